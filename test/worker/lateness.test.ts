import { describe, expect, test } from 'vitest';
import { Lateness } from '../../src/worker/lateness.js';

const TEN_A_SECOND = { count: 10, perMs: 1000 };

/** What is told of each of some submits, one after the other. */
function tell(lateMs: readonly number[], rate = TEN_A_SECOND): number[] {
  const lateness = new Lateness(0.01);
  return lateMs.map((ms) => lateness.tooLateMs(ms, rate));
}

describe('how much too late a submit is', () => {
  test('half of the margin is free', () => {
    expect(tell([0, 5, 6, 25]).slice(1)).toEqual([0, 1, 20]);
  });

  test('what all are late by moves nothing', () => {
    expect(tell([15, 15, 16, 22]).slice(1)).toEqual([-5, -4, 2]);
  });

  test('only the last sixteen tell what is usual', () => {
    expect(tell([0, ...Array.from({ length: 17 }, () => 20)]).slice(-3)).toEqual([15, -5, -5]);
  });

  test.each([
    [{ count: 1, perMs: 3000 }, 15],
    [{ count: 20, perMs: 60_000 }, 300 + 3000],
    [{ count: 50, perMs: 1000 }, 5 + 2 * 20],
    [{ count: 200, perMs: 1000 }, 5 + 10 * 5],
  ])('a rate of %j has room for %d ms', (rate, roomMs) => {
    const [, none, some] = tell([0, roomMs, roomMs + 7], rate);
    expect([none, some]).toEqual([expect.closeTo(0, 6), expect.closeTo(7, 6)]);
  });
});
