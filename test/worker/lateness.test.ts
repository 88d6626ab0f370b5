import { describe, expect, test } from 'vitest';
import { Lateness } from '../../src/worker/lateness.js';

/** What is told of each of some submits, one after the other. */
function tell(lateMs: readonly number[]): number[] {
  const lateness = new Lateness();
  return lateMs.map((ms) => lateness.beyondUsual(ms));
}

describe('how much later than usual a submit goes out', () => {
  test('the first one is compared with one in time', () => {
    expect(tell([30, 2])).toEqual([30, 2]);
  });

  test('what all of the last sixteen were late by is usual', () => {
    const same = Array.from({ length: 16 }, () => 15);
    expect(tell([...same, 15, 22, 15, 3, 15]).slice(15)).toEqual([15, 0, 7, 0, -12, 12]);
  });
});
