import { describe, expect, it } from 'vitest';
import { reserveTogether } from '../../src/worker/slot-batch.js';
import { SlotQueue } from '../../src/worker/slot-queue.js';

/** The slots of an account, as the store keeps them, and how they were reserved. */
function createSlots() {
  let free = 0;
  const counts: number[] = [];
  const reserve = (intervalMs: number, count: number): Promise<number> => {
    counts.push(count);
    const slot = Math.max(performance.now(), free);
    free = slot + intervalMs * count;
    return Promise.resolve(slot - performance.now());
  };
  return { reserve, counts, aheadMs: () => free - performance.now() };
}

const forever = new AbortController().signal;

describe('images that wait for a slot', () => {
  it('get one in the order in which they came, never closer than the interval over all workers', async () => {
    const { reserve } = createSlots();
    const workers = [1, 2].map(() => new SlotQueue({ intervalMs: () => 10, reserve }));
    const startedAt = performance.now();
    const served: string[] = [];
    const times: number[] = [];
    const takes = workers.flatMap((queue, worker) =>
      Array.from({ length: 20 }, async (_, image) => {
        expect(await queue.take(forever)).toBe(true);
        times.push(performance.now());
        served.push(`${worker}.${image}`);
      }),
    );
    await Promise.all(takes);
    expect((times.at(-1) ?? 0) - startedAt).toBeGreaterThanOrEqual(39 * 10 - 2);
    for (const worker of ['0', '1']) {
      const own = served.filter((name) => name.startsWith(worker));
      expect(own).toEqual(Array.from({ length: 20 }, (_, image) => `${worker}.${image}`));
    }
  });

  it('have slots reserved for many of them at once, but not far ahead', async () => {
    const { reserve, counts, aheadMs } = createSlots();
    const queue = new SlotQueue({ intervalMs: () => 100, reserve });
    const stopping = new AbortController();
    const takes = Array.from({ length: 2000 }, () => queue.take(stopping.signal));
    expect(await takes[0]).toBe(true);
    expect(counts).toEqual([5]);
    expect(aheadMs()).toBeLessThanOrEqual(500);
    stopping.abort();
    expect((await Promise.all(takes)).filter((hasSlot) => hasSlot).length).toBeLessThanOrEqual(5);
  });

  it('leave their slots to the next ones when they give up', async () => {
    const { reserve, counts } = createSlots();
    const queue = new SlotQueue({ intervalMs: () => 50, reserve });
    const givesUp = new AbortController();
    const takes = [
      queue.take(forever),
      ...[1, 2, 3].map(() => queue.take(givesUp.signal)),
      queue.take(forever),
    ];
    expect(await takes[0]).toBe(true);
    givesUp.abort();
    expect(await Promise.all(takes)).toEqual([true, false, false, false, true]);
    expect(counts).toEqual([5]);
  });

  it('wait for no slot once nobody needs it, and for the next one again afterwards', async () => {
    const { reserve } = createSlots();
    await reserve(60_000, 1);
    const queue = new SlotQueue({ intervalMs: () => 1, reserve });
    const stopping = new AbortController();
    const take = queue.take(stopping.signal);
    await new Promise((resolve) => setImmediate(resolve));
    stopping.abort();
    expect(await take).toBe(false);
    expect(await queue.take(stopping.signal)).toBe(false);
  });

  it('are told when slots cannot be reserved', async () => {
    let isBroken = true;
    const reserve = () => (isBroken ? Promise.reject(new Error('no slots')) : Promise.resolve(0));
    const queue = new SlotQueue({ intervalMs: () => 1, reserve });
    await expect(Promise.all([queue.take(forever), queue.take(forever)])).rejects.toThrow('no slots');
    isBroken = false;
    expect(await queue.take(forever)).toBe(true);
  });
});

describe('reservations of one turn of the event loop', () => {
  it('are made together, each with a slot of its own', async () => {
    const counts: number[] = [];
    const reserve = reserveTogether((_, count) => {
      counts.push(count);
      return Promise.resolve(5);
    });
    expect(await Promise.all([reserve(10), reserve(10), reserve(10)])).toEqual([5, 15, 25]);
    expect(await reserve(10)).toBe(5);
    expect(counts).toEqual([3, 1]);
  });
});
