import { describe, expect, it } from 'vitest';
import { EmbeddedSlots } from '../../src/shared/queue/embedded/embedded-slots.js';
import { SlotQueue } from '../../src/worker/slot-queue.js';

/** The slots of an account, as the store keeps them, and how they were taken. */
function createSlots() {
  const slots = new EmbeddedSlots();
  const counts: number[] = [];
  const takeSlots = (intervalMs: number, count: number): Promise<number[]> => {
    counts.push(count);
    const given = slots.take({ intervalMs }, count, performance.now());
    return Promise.resolve(given.slots.map(({ inMs }) => inMs));
  };
  return { takeSlots, counts, aheadMs: () => slots.hold(0, performance.now()) };
}

const forever = new AbortController().signal;

describe('images that wait for a slot', () => {
  it('get one in the order in which they came, never closer than the interval over all workers', async () => {
    const { takeSlots } = createSlots();
    const workers = [1, 2].map(() => new SlotQueue({ intervalMs: () => 10, takeSlots }));
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

  it('have slots taken for many of them at once, but not far ahead', async () => {
    const { takeSlots, counts, aheadMs } = createSlots();
    const queue = new SlotQueue({ intervalMs: () => 100, takeSlots });
    const stopping = new AbortController();
    const takes = Array.from({ length: 2000 }, () => queue.take(stopping.signal));
    expect(await takes[0]).toBe(true);
    expect(counts).toEqual([5]);
    expect(aheadMs()).toBeLessThanOrEqual(500);
    stopping.abort();
    expect((await Promise.all(takes)).filter((hasSlot) => hasSlot).length).toBeLessThanOrEqual(5);
  });

  it('leave their slots to the next ones when they give up', async () => {
    const { takeSlots, counts } = createSlots();
    const queue = new SlotQueue({ intervalMs: () => 50, takeSlots });
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
    const { takeSlots } = createSlots();
    await takeSlots(60_000, 1);
    const queue = new SlotQueue({ intervalMs: () => 1, takeSlots });
    const stopping = new AbortController();
    const take = queue.take(stopping.signal);
    await new Promise((resolve) => setImmediate(resolve));
    stopping.abort();
    expect(await take).toBe(false);
    expect(await queue.take(stopping.signal)).toBe(false);
  });

  it('are told when slots cannot be taken', async () => {
    let isBroken = true;
    const takeSlots = () => (isBroken ? Promise.reject(new Error('no slots')) : Promise.resolve([0]));
    const queue = new SlotQueue({ intervalMs: () => 1, takeSlots });
    await expect(Promise.all([queue.take(forever), queue.take(forever)])).rejects.toThrow('no slots');
    isBroken = false;
    expect(await queue.take(forever)).toBe(true);
  });
});
