import { expect, test } from 'vitest';
import { EmbeddedSlots } from '../../src/shared/queue/embedded/embedded-slots.js';
import { takeTogether, tellTogether } from '../../src/worker/slot-batch.js';

const TEN_MS = { intervalMs: 10 };

test('slots asked for in one turn of the event loop are taken together, one for each', async () => {
  const counts: number[] = [];
  const take = takeTogether((pace, count) => {
    counts.push(count);
    return Promise.resolve(new EmbeddedSlots().take(pace, count, 5000));
  });
  const before = performance.now();
  const taken = await Promise.all([take(TEN_MS), take(TEN_MS), take(TEN_MS)]);
  expect(taken.map(({ slot }) => slot?.id)).toEqual(['5000.000', '5010.000', '5020.000']);
  const [first] = taken;
  const [none, ten, twenty] = taken.map(({ dueAt }) => dueAt - first.dueAt);
  expect(none).toBe(0);
  expect(ten).toBeCloseTo(10);
  expect(twenty).toBeCloseTo(20);
  expect(first.earliestAt).toBeGreaterThanOrEqual(before);
  expect(first.earliestAt).toBe(first.dueAt);
  await take(TEN_MS);
  expect(counts).toEqual([3, 1]);
});

test('those for whom there is none yet are told when the next one comes', async () => {
  const take = takeTogether((pace, count) => Promise.resolve(new EmbeddedSlots().take(pace, count, 0)));
  const pace = { intervalMs: 100, withinMs: 50 };
  const [first, second, third] = await Promise.all([take(pace), take(pace), take(pace)]);
  expect([first.slot?.id, second.slot, third.slot]).toEqual(['0.000', undefined, undefined]);
  const laterMs = second.dueAt - first.dueAt;
  // It is asked for again a round trip earlier.
  expect(laterMs).toBeLessThanOrEqual(100);
  expect(laterMs).toBeGreaterThan(50);
});

test('all are told when none can be taken, and the next ones ask again', async () => {
  let isBroken = true;
  const take = takeTogether((pace, count) =>
    isBroken
      ? Promise.reject(new Error('no slots'))
      : Promise.resolve(new EmbeddedSlots().take(pace, count, 0)),
  );
  const asked = await Promise.allSettled([take(TEN_MS), take(TEN_MS)]);
  expect(asked.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  isBroken = false;
  expect((await take(TEN_MS)).slot).toBeDefined();
});

test('late slots of one turn are told of together', async () => {
  const told: number[][] = [];
  const tell = tellTogether((late) => told.push(late.map(({ lateMs }) => lateMs)));
  const slot = { id: '1', inMs: 0 };
  const window = { count: 1, ms: 100, catchUpMs: 0 };
  tell({ slot, lateMs: 10 }, window);
  tell({ slot, lateMs: 20 }, window);
  await new Promise((resolve) => setImmediate(resolve));
  tell({ slot, lateMs: 30 }, window);
  await new Promise((resolve) => setImmediate(resolve));
  expect(told).toEqual([[10, 20], [30]]);
});

test('a question that is held up is known by those that were not', async () => {
  let isHeldUp = false;
  const slots = new EmbeddedSlots();
  const take = takeTogether(async (pace, count) => {
    const given = slots.take(pace, count, performance.now());
    if (isHeldUp) await new Promise((resolve) => setTimeout(resolve, 200));
    return given;
  });
  await take(TEN_MS);
  isHeldUp = true;
  const { dueAt, earliestAt } = await take(TEN_MS);
  expect(dueAt - earliestAt).toBeGreaterThan(150);
});
