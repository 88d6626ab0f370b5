import { describe, expect, test } from 'vitest';
import {
  formatDuration,
  formatRate,
  pendingWindow,
  parseDuration,
  parseRate,
  perSecond,
  processingWindow,
} from '../../src/shared/limits.js';

describe('durations and rates', () => {
  test.each([
    ['500ms', 500],
    ['30s', 30_000],
    ['1.5h', 5_400_000],
    ['20m', 1_200_000],
    ['2min', 120_000],
  ])('reads the duration %s', (text, ms) => {
    expect(parseDuration(text, '--deadline')).toBe(ms);
  });
  test.each(['', '5', '0s', '-1s', 's', '1w', '1 2s', 'constructor'])('refuses the duration %j', (text) => {
    expect(() => parseDuration(text, '--deadline')).toThrow(/^--deadline .*expected a duration/);
  });
  test.each([
    ['20/min', 20, 60_000],
    ['1/3s', 1, 3000],
    ['500/h', 500, 3_600_000],
    ['0.5/s', 0.5, 1000],
  ])('reads the rate %s', (text, count, perMs) => {
    expect(parseRate(text, '--rate')).toEqual({ count, perMs });
  });
  test.each(['', '20', '/min', '0/s', '5/', '-5/s', '5/0s'])('refuses the rate %j', (text) => {
    expect(() => parseRate(text, '--rate')).toThrow(/^--rate .*expected a rate/);
  });
  test.each(['20/min', '1/3s', '10/s', '500/h'])('writes the rate %s as it was given', (text) => {
    expect(formatRate(parseRate(text, '--rate'))).toBe(text);
  });
  test.each([
    [45_000, '45 s'],
    [720_000, '12 min'],
    [12_240_000, '3.4 hours'],
    [596_160_000, '6.9 days'],
  ])('writes %d ms for people', (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });
});

describe("the window of BullMQ's rate limit", () => {
  test.each(['1/3s', '20/min', '3/s', '10/s', '33/s', '50/s', '200/s', '1000/s', '7/h'])(
    'allows more than %s, less while many wait, in whole numbers',
    (text) => {
      const rate = parseRate(text, '--rate');
      const shareFor = (waiting: number) => {
        const { max, duration } = processingWindow(rate, waiting);
        expect([max, duration].every(Number.isInteger)).toBe(true);
        return ((max / duration) * 1000) / perSecond(rate);
      };
      expect(shareFor(1)).toBeCloseTo(1.25, 1);
      expect(shareFor(101)).toBeCloseTo(0.8, 1);
    },
  );
  test('holds one job below ten a second', () => {
    expect(processingWindow({ count: 20, perMs: 60_000 }, 0)).toEqual({ max: 1, duration: 2400 });
  });
});

describe('the window of outstanding rows', () => {
  const pollRate = { count: 10, perMs: 1000 };
  test.each([
    [20 / 60, 10, 50],
    [10, 10, 610],
    [200, 100, 5000],
  ])('at %d/s and %d in flight is %d', (rate, maxInFlight, rows) => {
    expect(pendingWindow({ rate: { count: rate, perMs: 1000 }, pollRate, maxInFlight })).toBe(rows);
  });
});
