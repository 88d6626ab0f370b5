import { expect, test } from 'vitest';
import { DeliveryTiming, rarePollDelayMs, recoveryPatienceMs } from '../../src/worker/webhooks.js';
import { DeliveryWatch } from '../../src/webhook/deliveries.js';
import { MessagePolls } from '../../src/worker/message-polls.js';
import type { Webhooks } from '../../src/worker/webhooks.js';

function turnsOf(watch: DeliveryWatch, timing = new DeliveryTiming()) {
  const learned: (readonly [number, number])[] = [];
  const schedule = {
    nextDelayMs: () => 77,
    completed: (seen: number, gap: number) => learned.push([seen, gap]),
    learned: () => [],
  };
  const webhooks: Webhooks = {
    timing,
    callback: () => ({ ref: 'r', url: 'u', watch }),
    alsoFor: () => () => undefined,
    notifyEarlier: () => Promise.resolve(),
  };
  const callback = webhooks.callback('seed');
  const turns = new MessagePolls({ schedule, webhooks, now: () => performance.now() }, callback, 'm');
  return { turns, timing, learned };
}

const never = new AbortController().signal;
const newWatch = () => new DeliveryWatch(() => undefined);

test('a delivery ends the waiting at once, also one that came before', async () => {
  const watch = newWatch();
  const { turns } = turnsOf(watch);
  watch.notify('m');
  expect(await turns.come(60_000, never)).toBe(true);
  const stopping = new AbortController();
  const coming = turns.come(60_000, stopping.signal);
  stopping.abort();
  expect(await coming).toBe(false);
});

test('a flood of deliveries for one message leads to three polls, and then to those by the clock', async () => {
  const watch = newWatch();
  const { turns } = turnsOf(watch);
  const flood = setInterval(() => watch.notify(''), 2);
  const startedAt = performance.now();
  const comesAt: number[] = [];
  try {
    for (let polls = 0; polls < 4; polls++) {
      expect(await turns.come(7000, never)).toBe(true);
      comesAt.push(performance.now() - startedAt);
    }
  } finally {
    clearInterval(flood);
  }
  const gaps = comesAt.map((at, i) => at - (comesAt[i - 1] ?? 0));
  expect(gaps[0]).toBeLessThan(900);
  for (const [i, least] of [0, 990, 3990, 6990].entries()) expect(gaps[i]).toBeGreaterThanOrEqual(least);
}, 30_000);

test('completions that a delivery announced are learned from; three in a row without one bring the clock back', async () => {
  const watch = newWatch();
  const { turns, timing, learned } = turnsOf(watch);
  expect(turns.dueMs(0, 0)).toBe(5000);
  watch.notify('m');
  await turns.come(1000, never);
  turns.completed(2000, 2000, true);
  expect([timing.slowMs, timing.areComing, learned]).toEqual([2000, true, [[2000, 0]]]);
  for (let i = 0; i < 3; i++) {
    expect(turns.dueMs(0, 0)).toBe(5000);
    await turns.come(0, never);
    turns.completed(5000, 5000, true);
  }
  // What rare polls find late is not learned from.
  expect([timing.slowMs, timing.areComing, learned.length]).toEqual([2000, false, 1]);
  expect(turns.dueMs(0, 0)).toBe(77);
  timing.came(undefined);
  expect(turns.dueMs(0, 0)).toBe(5000);
});

test.each([
  [0, undefined, 5000],
  [10_000, undefined, 10_000],
  [100_000, undefined, 30_000],
  [0, 10_000, 17_000],
  [16_000, 10_000, 1000],
  [20_000, 10_000, 10_000],
  [500_000, 10_000, 60_000],
])('after %d ms, with describes that take %s ms, the next rare poll is in %d ms', (waited, slow, due) => {
  expect(rarePollDelayMs(waited, slow)).toBe(due);
});

test.each([
  [undefined, 90_000],
  [100, 10_000],
  [20_000, 45_000],
  [10 ** 7, 600_000],
])('with describes that take %s ms a lost submit waits %d ms for its delivery', (slow, patience) => {
  expect(recoveryPatienceMs(slow)).toBe(patience);
});
