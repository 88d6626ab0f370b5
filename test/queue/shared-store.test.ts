import { setTimeout as delay } from 'node:timers/promises';
import { beforeAll, expect, test, vi } from 'vitest';
import type { SharedStore, Slot, SlotPace } from '../../src/shared/queue/store.js';
import { type QueueFixture, describeOnBothQueues } from '../helpers/queues.js';
import { soon } from '../helpers/wait-until.js';

/** The next free slot, taken. */
async function takeOne(store: SharedStore, name: string, pace: SlotPace): Promise<Slot> {
  const { slots } = await store.takeSlots(name, pace, 1);
  const [slot] = slots;
  if (slot === undefined || slots.length > 1) throw new Error(`${slots.length} slots`);
  return slot;
}

/** In how many milliseconds the next free slot is, which is taken. */
async function takeSlot(store: SharedStore, name: string, intervalMs: number): Promise<number> {
  return (await takeOne(store, name, { intervalMs })).inMs;
}

describeOnBothQueues('the shared store', (open, kind) => {
  let fixture: QueueFixture;
  /** The store as two processes have it, which the embedded queue cannot have. */
  let stores: [SharedStore, SharedStore];
  beforeAll(async () => {
    fixture = await open();
    const { store } = await fixture.connect();
    stores = [store, kind === 'redis' ? (await fixture.connect()).store : store];
  });

  test('spaces slots by the interval over all processes', async () => {
    const before = performance.now();
    const waits = await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        const wait = await takeSlot(stores[i % 2 === 0 ? 0 : 1], 'spaced', 1000);
        return { wait, latest: performance.now() };
      }),
    );
    const slots = waits.map(({ wait }) => wait).sort((a, b) => a - b);
    const took = performance.now() - before;
    expect(slots[0]).toBe(0);
    slots.forEach((slot, i) => {
      // The waits were answered at different moments, within the time that all of it took.
      expect(slot).toBeLessThanOrEqual(i * 1000);
      expect(slot).toBeGreaterThan(i * 1000 - took - 1);
    });
  });

  test('keeps no slot that has passed: after a rest there is no burst', async () => {
    const [store] = stores;
    await takeSlot(store, 'rested', 20);
    await delay(200);
    expect(await takeSlot(store, 'rested', 60_000)).toBe(0);
    expect(await takeSlot(store, 'rested', 60_000)).toBeGreaterThan(30_000);
  });

  test('takes intervals that are no whole milliseconds', async () => {
    const [store] = stores;
    for (let i = 0; i < 100; i++) await takeSlot(store, 'fraction', 1000 / 3);
    const wait = await takeSlot(store, 'fraction', 1000 / 3);
    expect(wait).toBeGreaterThan(30_000);
    expect(wait).toBeLessThanOrEqual(33_334);
  });

  test('holds the slots back, and never brings them nearer', async () => {
    const [a, b] = stores;
    expect(await a.holdSlots('held', 60_000)).toBeGreaterThan(40_000);
    expect(await b.holdSlots('held', 1000)).toBeGreaterThan(40_000);
    expect(await takeSlot(b, 'held', 60_000)).toBeGreaterThan(40_000);
    expect(await takeSlot(a, 'held', 60_000)).toBeGreaterThan(100_000);
    expect(await a.holdSlots('not-held', 0)).toBe(0);
    expect(await takeSlot(a, 'not-held', 100)).toBe(0);
  });

  test('gives several slots at once, each with a name of its own', async () => {
    const [a, b] = stores;
    const { slots, nextInMs } = await a.takeSlots('several', { intervalMs: 60_000 }, 3);
    expect(slots.map(({ inMs }) => Math.round(inMs))).toEqual([0, 60_000, 120_000]);
    expect(new Set(slots.map(({ id }) => id)).size).toBe(3);
    expect(nextInMs).toBe(0);
    expect(await takeSlot(b, 'several', 60_000)).toBeGreaterThan(140_000);
  });

  test('gives no slot that is further away than asked for, and tells when it comes', async () => {
    const [a, b] = stores;
    const near = { intervalMs: 60_000, withinMs: 90_000 };
    const first = await a.takeSlots('near', near, 5);
    expect(first.slots.map(({ inMs }) => Math.round(inMs))).toEqual([0, 60_000]);
    expect(Math.round(first.nextInMs)).toBe(120_000);
    const second = await b.takeSlots('near', near, 1);
    expect(second.slots).toEqual([]);
    expect(second.nextInMs).toBeGreaterThan(90_000);
    expect(second.nextInMs).toBeLessThanOrEqual(120_000);
  });

  test('puts no more slots into any window than it may hold, whatever their distance', async () => {
    const [a, b] = stores;
    const pace = { intervalMs: 100, window: { count: 3, ms: 1000, catchUpMs: 0 } };
    const calls = [await a.takeSlots('window', pace, 2), await b.takeSlots('window', pace, 8)];
    const times = calls.flatMap(({ slots }) => slots.map(({ id }) => Number(id)));
    const [start = NaN] = times;
    const distances = times.map((time) => Math.round(time - start));
    // The second call may come a little later than its first slot could be.
    const lateMs = (distances[2] ?? 0) - 200;
    expect(lateMs).toBeLessThan(800);
    const expected = [0, 100, 200 + lateMs, 1000, 1100, 1200 + lateMs, 2000, 2100, 2200 + lateMs, 3000];
    expect(distances).toHaveLength(expected.length);
    expected.forEach((time, i) => {
      expect(Math.abs((distances[i] ?? NaN) - time)).toBeLessThanOrEqual(1);
    });
  });

  test('counts a slot in its window by when it was used, which was not in the future', async () => {
    const [a, b] = stores;
    const window = { count: 3, ms: 1000, catchUpMs: 0 };
    const pace = { intervalMs: 100, window };
    const { slots } = await a.takeSlots('late', pace, 3);
    const [first] = slots;
    if (first === undefined) throw new Error('no slots');
    await delay(200);
    // It went out behind the second one, so that the second is the first to leave the window, and then this one.
    await b.delaySlots('late', window, [{ slot: first, lateMs: 150 }]);
    await b.delaySlots('late', window, [{ slot: first, lateMs: 20 }]);
    const start = Number(first.id);
    const distances = async (count: number) =>
      (await a.takeSlots('late', pace, count)).slots.map(({ id }) => Math.round(Number(id) - start));
    expect(await distances(2)).toEqual([1100, 1180]);
    await b.delaySlots('late', window, [{ slot: { id: '1', inMs: 0 }, lateMs: 150 }]);
    const toldAt = (await distances(1))[0] ?? NaN;
    expect(toldAt).toBe(1260);
    const told = await takeOne(a, 'future', pace);
    await b.delaySlots('future', window, [{ slot: told, lateMs: 60_000 }]);
    expect((await takeOne(a, 'future', pace)).inMs).toBeLessThan(1000);
  });

  test('knows a slot that was used late as long as its window needs it', async () => {
    const [a, b] = stores;
    const window = { count: 1, ms: 1500, catchUpMs: 0 };
    const pace = { intervalMs: 1500, window };
    const first = await takeOne(a, 'kept', pace);
    await delay(1400);
    await b.delaySlots('kept', window, [{ slot: first, lateMs: 1390 }]);
    await delay(200);
    const next = Number((await takeOne(b, 'kept', pace)).id);
    expect(Math.round(next - Number(first.id))).toBeGreaterThanOrEqual(2889);
    expect(Math.round(next - Number(first.id))).toBeLessThanOrEqual(2891);
  });

  test('counts one that was used so late that it was not kept any more', async () => {
    const [a, b] = stores;
    const window = { count: 1, ms: 1000, catchUpMs: 0 };
    const pace = { intervalMs: 1000, window };
    const first = await takeOne(a, 'forgotten', pace);
    await delay(1100);
    const second = Number((await takeOne(a, 'forgotten', pace)).id);
    await delay(30);
    const usedAt = second + 20;
    await b.delaySlots('forgotten', window, [{ slot: first, lateMs: usedAt - Number(first.id) }]);
    const next = Number((await takeOne(a, 'forgotten', pace)).id);
    expect(Math.abs(next - usedAt - 1000)).toBeLessThanOrEqual(1);
  });

  test('makes up for slots that passed unused a little while ago, a little nearer to each other', async () => {
    const [a] = stores;
    const pace = { intervalMs: 100, window: { count: 100, ms: 100_000, catchUpMs: 60_000 } };
    const given = await a.takeSlots('made-up', pace, 1);
    const began = Number(given.slots[0]?.id);
    await delay(350);
    const after = await a.takeSlots('made-up', pace, 25);
    const times = after.slots.map(({ id }) => Number(id) - began);
    const [now = NaN] = times;
    expect(now).toBeGreaterThanOrEqual(349);
    times.forEach((time, i) => {
      // Where slot i + 1 was meant to be, or four fifths of a distance behind the one before it.
      expect(time).toBeCloseTo(Math.max((i + 1) * 100, now + i * 80), 0);
    });
  });

  test('makes up for nothing after a longer rest', async () => {
    const [store] = stores;
    const pace = { intervalMs: 20, window: { count: 100, ms: 2000, catchUpMs: 50 } };
    await store.takeSlots('long-rest', pace, 1);
    await delay(200);
    const { slots } = await store.takeSlots('long-rest', pace, 3);
    const [first = NaN, ...others] = slots.map(({ id }) => Number(id));
    expect(others.map((time) => Math.round(time - first))).toEqual([20, 40]);
  });

  test('sets and removes fields, and leaves the others', async () => {
    const [a, b] = stores;
    expect(await a.getFields('record')).toEqual({});
    await a.setFields('record', { one: '1', two: '2', empty: '' });
    await b.setFields('record', { two: null, one: 'I', three: '3', absent: null });
    expect(await a.getFields('record')).toEqual({ one: 'I', three: '3', empty: '' });
    await a.setFields('record', {});
    await a.setFields('record', { one: null, three: null, empty: null });
    expect(await b.getFields('record')).toEqual({});
  });

  test('adds to the numbers of a record over all processes, and loses none', async () => {
    const [a, b] = stores;
    await a.setFields('sums', { other: 'text', broken: 'no number' });
    await Promise.all(
      Array.from({ length: 40 }, (_, i) =>
        (i % 2 === 0 ? a : b).addToFields('sums', { count: 1, seconds: 0.25, 'with spaces': 2 }),
      ),
    );
    await a.addToFields('sums', { large: 3_000_000_000, broken: 5, tiny: 0.0001, down: -2 });
    await b.addToFields('sums', {});
    const { other, ...sums } = await b.getFields('sums');
    expect(other).toBe('text');
    expect(Object.fromEntries(Object.entries(sums).map(([name, text]) => [name, Number(text)]))).toEqual({
      count: 40,
      seconds: 10,
      'with spaces': 80,
      large: 3_000_000_000,
      broken: 5,
      tiny: 0.0001,
      down: -2,
    });
  });

  test('gives a lease to one owner at a time', async () => {
    const [a, b] = stores;
    expect(await a.lease('run', 'ada', 60_000)).toBe(true);
    expect(await b.lease('run', 'bob', 60_000)).toBe(false);
    expect(await a.lease('run', 'ada', 60_000)).toBe(true);
    expect(await b.leaseOwner('run')).toBe('ada');
    await b.release('run', 'bob');
    expect(await b.leaseOwner('run')).toBe('ada');
    await a.release('run', 'ada');
    expect(await a.leaseOwner('run')).toBeUndefined();
    expect(await b.lease('run', 'bob', 60_000)).toBe(true);
  });

  test('ends a lease that is not renewed', async () => {
    const [a, b] = stores;
    await a.lease('short', 'ada', 50);
    await vi.waitFor(async () => expect(await b.lease('short', 'bob', 60_000)).toBe(true), soon);
    expect(await a.lease('short', 'ada', 50)).toBe(false);
  });

  test('lists the members whose time is not over, with what they say', async () => {
    const [a, b] = stores;
    await a.announce('workers', 'w1', '{"pid":1}', 60_000);
    await b.announce('workers', 'w2', 'a|b|c', 60_000);
    await b.announce('workers', 'w3', 'short', 50);
    await a.announce('workers', 'w1', '{"pid":2}', 60_000);
    await vi.waitFor(async () => expect((await a.members('workers')).has('w3')).toBe(false), soon);
    expect(await b.members('workers')).toEqual(
      new Map([
        ['w1', '{"pid":2}'],
        ['w2', 'a|b|c'],
      ]),
    );
    await b.withdraw('workers', 'w1');
    expect([...(await a.members('workers')).keys()]).toEqual(['w2']);
    expect(await a.members('nobody')).toEqual(new Map());
  });

  test('keeps fields when everybody has gone', async () => {
    const other = await open();
    const first = await other.connect();
    await first.store.setFields('account', { rate: '20/min' });
    await first.close();
    const second = await other.connect();
    expect(await second.store.getFields('account')).toEqual({ rate: '20/min' });
  });
});
