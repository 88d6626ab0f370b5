import { describe, expect, test } from 'vitest';
import { FULL_RATE, afterRateLimit, afterSubmit, shareAt } from '../../src/shared/account-limits.js';

const T0 = 1_000_000;

describe('learned rate', () => {
  test('halves at a 429', () => {
    expect(shareAt(afterRateLimit(FULL_RATE, T0, 1000).learned, T0)).toBe(0.5);
  });
  test('falls once for refusals of the same storm', () => {
    const once = afterRateLimit(FULL_RATE, T0, 2000).learned;
    expect(afterRateLimit(once, T0 + 50, 2000).learned.share).toBe(once.share);
  });
  test('never falls below a tenth', () => {
    let learned = FULL_RATE;
    for (let storm = 0; storm < 20; storm++)
      learned = afterRateLimit(learned, T0 + storm * 10_000, 0).learned;
    expect(learned.share).toBeGreaterThanOrEqual(0.1);
  });
  test('is back at 95 % within 60 s of the end of the pause, from wherever it fell to', () => {
    let learned = FULL_RATE;
    for (let storm = 0; storm < 20; storm++) learned = afterRateLimit(learned, T0 + storm * 2500, 0).learned;
    expect(shareAt(learned, learned.heldUntil)).toBeLessThan(0.2);
    expect(shareAt(learned, Math.max(learned.fellAt, learned.heldUntil) + 60_000)).toBeGreaterThanOrEqual(
      0.95,
    );
  });
  test('recovers in steps', () => {
    const { learned } = afterRateLimit(FULL_RATE, T0, 0);
    expect(shareAt(learned, T0 + 1999)).toBe(0.5);
    expect(shareAt(learned, T0 + 2000)).toBeCloseTo(0.55);
  });
  test('waits as long as Retry-After says', () => {
    expect(afterRateLimit(FULL_RATE, T0, 7000).pauseMs).toBe(7000);
  });
  test('waits longer each time when the API does not say how long', () => {
    const first = afterRateLimit(FULL_RATE, T0, undefined);
    const second = afterRateLimit(first.learned, T0 + 10_000, undefined);
    const third = afterRateLimit(second.learned, T0 + 20_000, undefined);
    expect([first.pauseMs, second.pauseMs, third.pauseMs]).toEqual([1000, 2000, 4000]);
  });
  test('starts over with short waits after a success', () => {
    const { learned } = afterRateLimit(FULL_RATE, T0, undefined);
    expect(afterRateLimit(afterSubmit(learned), T0 + 10_000, undefined).pauseMs).toBe(1000);
  });
  test('does not shorten a wait that is under way', () => {
    const long = afterRateLimit(FULL_RATE, T0, 60_000).learned;
    expect(afterRateLimit(long, T0 + 100, 1000).learned.heldUntil).toBe(long.heldUntil);
  });
  test('counts a growing pause only for what comes without Retry-After', () => {
    const told = afterRateLimit(FULL_RATE, T0, 1000).learned;
    expect(afterRateLimit(told, T0 + 10_000, undefined).pauseMs).toBe(1000);
  });
  test('forgets a fall that the clock has not come to: it has gone back since', () => {
    const { learned } = afterRateLimit(FULL_RATE, T0, 900_000);
    expect(shareAt(learned, T0 - 600_000)).toBe(1);
    expect(afterRateLimit(learned, T0 - 600_000, undefined)).toMatchObject({
      learned: { share: 0.5, fellAt: T0 - 600_000, heldUntil: T0 - 599_000 },
      pauseMs: 1000,
    });
  });
});
