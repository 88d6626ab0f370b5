import { describe, expect, it } from 'vitest';
import { SubmitPace } from '../../src/worker/submit-pace.js';

/** The slots of an account, as the store keeps them. */
function createSlots(onReserve: () => void = () => undefined) {
  let free = 0;
  return (intervalMs: number): Promise<number> => {
    const slot = Math.max(performance.now(), free);
    free = slot + intervalMs;
    const waitMs = slot - performance.now();
    setImmediate(onReserve);
    return Promise.resolve(waitMs);
  };
}

const forever = new AbortController().signal;

describe('the pace of submits', () => {
  it('keeps the distance over all workers, however many images wait at once', async () => {
    const reserve = createSlots();
    const workers = Array.from(
      { length: 3 },
      () => new SubmitPace({ intervalMs: () => 20, reserve, onWaiting: () => undefined }),
    );
    const startedAt = performance.now();
    const takes = workers.flatMap((pace) => Array.from({ length: 10 }, () => pace.take(forever)));
    expect(await Promise.all(takes)).toEqual(takes.map(() => true));
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(29 * 20 - 1);
  });

  it('leaves a hundredth between what the rate says and what is used, so that no window holds one too many', async () => {
    const asked: number[] = [];
    const reserve = (ms: number) => Promise.resolve(asked.push(ms) * 0);
    const pace = new SubmitPace({ intervalMs: () => 3000, reserve, onWaiting: () => undefined });
    await pace.take(forever);
    expect(asked).toEqual([3030]);
  });

  it('does not use a slot that it has missed, but takes another', async () => {
    let reservations = 0;
    // While the first slot is waited for, the process does not get its processor.
    const reserve = createSlots(() => {
      if (++reservations > 1) return;
      const until = performance.now() + 120;
      while (performance.now() < until);
    });
    const pace = new SubmitPace({ intervalMs: () => 10, reserve, onWaiting: () => undefined });
    expect(await pace.take(forever)).toBe(true);
    expect(reservations).toBeGreaterThanOrEqual(2);
  });

  it('tells when the first image waits and when none does, and ends with the signal', async () => {
    const told: boolean[] = [];
    const reserve = createSlots();
    await reserve(60_000);
    const stopping = new AbortController();
    const pace = new SubmitPace({
      intervalMs: () => 60_000,
      reserve,
      onWaiting: (isWaiting) => told.push(isWaiting),
    });
    const takes = [pace.take(stopping.signal), pace.take(stopping.signal)];
    expect([pace.isWaiting, told]).toEqual([true, [true]]);
    stopping.abort();
    expect(await Promise.all(takes)).toEqual([false, false]);
    expect([pace.isWaiting, told]).toEqual([false, [true, false]]);
  });
});
