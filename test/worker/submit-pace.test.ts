import { describe, expect, it } from 'vitest';
import { waitUntil } from '../helpers/wait-until.js';
import { SubmitPace, type SubmitPaceTools } from '../../src/worker/submit-pace.js';

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

function createPace(
  intervalMs: number,
  reserve: SubmitPaceTools['reserve'],
  tools: Partial<SubmitPaceTools> = {},
): SubmitPace {
  const shift = () => undefined;
  return new SubmitPace({
    rate: () => ({ count: 1, perMs: intervalMs }),
    reserve,
    shift,
    onWaiting: () => undefined,
    ...tools,
  });
}

describe('the pace of submits', () => {
  it('keeps the distance over all workers, however many images wait at once', async () => {
    const reserve = createSlots();
    const workers = Array.from({ length: 3 }, () => createPace(20, reserve));
    const startedAt = performance.now();
    const takes = workers.flatMap((pace) => Array.from({ length: 10 }, () => pace.take(forever)));
    expect((await Promise.all(takes)).every((slot) => slot !== undefined)).toBe(true);
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(29 * 20 - 1);
  });

  it('leaves a hundredth between what the rate says and what is used, so that no window holds one too many', async () => {
    const asked: number[] = [];
    const reserve = (ms: number) => Promise.resolve(asked.push(ms) * 0);
    const pace = createPace(3000, reserve);
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
    const pace = createPace(10, reserve);
    expect(await pace.take(forever)).toBeDefined();
    expect(reservations).toBeGreaterThanOrEqual(2);
  });

  it('moves the slots behind a submit that went out later than others, by what is more than there is room for', async () => {
    const shifts: number[] = [];
    const pace = createPace(2000, () => Promise.resolve(0), {
      shift: (ms) => shifts.push(ms),
    });
    const [first, second] = [await pace.take(forever), await pace.take(forever)];
    first?.sent();
    expect(shifts).toEqual([]);
    const until = performance.now() + 1000;
    await waitUntil('it is late', () => performance.now() >= until);
    second?.sent();
    // No more than a submit may be late by itself: here a tenth of the distance.
    expect(shifts).toEqual([200]);
  });

  it('tells when the first image waits and when none does, and ends with the signal', async () => {
    const told: boolean[] = [];
    const reserve = createSlots();
    await reserve(60_000);
    const stopping = new AbortController();
    const pace = createPace(60_000, reserve, { onWaiting: (isWaiting) => told.push(isWaiting) });
    const takes = [pace.take(stopping.signal), pace.take(stopping.signal)];
    expect([pace.isWaiting, told]).toEqual([true, [true]]);
    stopping.abort();
    expect(await Promise.all(takes)).toEqual([undefined, undefined]);
    expect([pace.isWaiting, told]).toEqual([false, [true, false]]);
  });
});
