import { describe, expect, test } from 'vitest';
import { mostLateMs, slotPace, toleratedMs } from '../../src/worker/slot-pace.js';

describe('how submits are spread at a rate', () => {
  test.each([
    ['1/3s', { count: 1, perMs: 3000 }, 3051, 1, 3025.5, 50],
    ['20/min', { count: 20, perMs: 60_000 }, 3030, 20, 60_300, 50],
    ['10/s', { count: 10, perMs: 1000 }, 101.7, 10, 1008.5, 50],
    ['a fifth of 12/s, as learned', { count: 2.4, perMs: 1000 }, 423.75, 2, 840.42, 50],
    ['a third of 1/s, as learned', { count: 1 / 3, perMs: 1000 }, 3051, 1, 3025.5, 50],
    ['20/s', { count: 20, perMs: 1000 }, 50.5, 20, 1005, 25],
    ['200/s', { count: 200, perMs: 1000 }, 5.05, 200, 1005, undefined],
    ['1/5ms', { count: 1, perMs: 5 }, 5.05, 200, 1005, undefined],
    ['3/100ms', { count: 3, perMs: 100 }, 33.67, 30, 1005, undefined],
    ['36000/h', { count: 36_000, perMs: 3_600_000 }, 101, 500, 50_250, 50],
  ])('%s', (_rate, rate, intervalMs, count, ms, withinMs) => {
    const pace = slotPace(rate);
    expect(pace.intervalMs).toBeCloseTo(intervalMs, 2);
    expect(pace.window?.count).toBe(count);
    expect(pace.window?.ms).toBeCloseTo(ms, 2);
    expect(pace.withinMs).toBe(withinMs);
  });
});

describe('how late a submit may be without the others being told', () => {
  test.each([
    [{ count: 1, perMs: 3000 }, 12.75],
    [{ count: 10, perMs: 1000 }, 4.25],
    [{ count: 20, perMs: 60_000 }, 150],
    [{ count: 200, perMs: 1000 }, 2.5],
    [{ count: 1, perMs: 5 }, 2.5],
  ])('%j: %d ms', (rate, ms) => {
    expect(toleratedMs(rate)).toBeCloseTo(ms, 6);
  });
});

test('submits that are nearer than a millisecond are not counted in windows', () => {
  const rate = { count: 2000, perMs: 1000 };
  expect(slotPace(rate)).toEqual({ intervalMs: 0.505, window: undefined, withinMs: undefined });
});

test.each([
  [{ count: 10, perMs: 1000 }, 500],
  [{ count: 1, perMs: 3000 }, 1500],
  [{ count: 1, perMs: 5 }, 500],
])('at %j a submit that is later than %d ms takes another slot', (rate, ms) => {
  expect(mostLateMs(rate)).toBe(ms);
});
