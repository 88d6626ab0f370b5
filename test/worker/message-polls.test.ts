import { beforeAll, expect, onTestFinished, test, vi } from 'vitest';
import { silentLogger } from '../../src/shared/log.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { MessagePolls } from '../../src/worker/message-polls.js';
import { PollSchedule } from '../../src/worker/poll-schedule.js';
import { WorkerWebhooks, rarePollDelayMs, recoveryPatienceMs } from '../../src/worker/webhooks.js';
import { WorkerMetrics } from '../../src/worker/worker-metrics.js';
import { describeOnRedis } from '../helpers/queues.js';

let connection: QueueConnection;

async function pollsWithWebhooks() {
  const schedule = new PollSchedule();
  const webhooks = await WorkerWebhooks.open(
    { url: 'http://hook.test' },
    connection.store,
    'message-polls',
    silentLogger(),
  );
  const { watch } = webhooks.callback('seed');
  const deps = { schedule, metrics: new WorkerMetrics(), webhooks, now: () => performance.now() };
  return { polls: new MessagePolls(deps, watch, 'm'), watch, schedule, webhooks };
}

const never = new AbortController().signal;

describeOnRedis('the polls of a message whose delivery is expected', (openQueue) => {
  beforeAll(async () => {
    connection = await (await openQueue()).connect();
  });

  test('a delivery ends the waiting at once, also one that came before', async () => {
    const { polls, watch } = await pollsWithWebhooks();
    watch.notify('m');
    expect(await polls.come(60_000, never)).toBe(true);
    const stopping = new AbortController();
    const coming = polls.come(60_000, stopping.signal);
    stopping.abort();
    expect(await coming).toBe(false);
  });

  test('a flood of deliveries for one message leads to three polls, and then to those by the clock', async () => {
    const { polls, watch } = await pollsWithWebhooks();
    vi.useFakeTimers({
      toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance'],
    });
    onTestFinished(() => void vi.useRealTimers());
    setInterval(() => watch.notify(''), 2);
    const startedAt = performance.now();
    const comesAt: number[] = [];
    for (let count = 0; count < 4; count++) {
      const coming = polls.come(7000, never).then((isDue) => {
        expect(isDue).toBe(true);
        comesAt.push(performance.now() - startedAt);
      });
      while (comesAt.length === count && performance.now() - startedAt < 30_000)
        await vi.advanceTimersByTimeAsync(10);
      await coming;
    }
    const gaps = comesAt.map((at, i) => at - (comesAt[i - 1] ?? 0));
    expect(gaps[0]).toBeLessThan(900);
    for (const [i, least] of [0, 990, 3990, 6990].entries()) expect(gaps[i]).toBeGreaterThanOrEqual(least);
  });

  test('completions that a delivery announced are learned from; three in a row without one bring the clock back', async () => {
    const { polls, watch, schedule, webhooks } = await pollsWithWebhooks();
    expect(polls.dueMs(0, 0)).toBe(5000);
    watch.notify('m');
    await polls.come(1000, never);
    polls.completed(2000, 2000, true);
    expect([schedule.slowMs, webhooks.areComing]).toEqual([2000, true]);
    for (let i = 0; i < 3; i++) {
      expect(polls.dueMs(0, 0)).toBe(5000);
      await polls.come(0, never);
      polls.completed(5000, 5000, true);
    }
    // What rare polls find late is not learned from.
    expect([schedule.slowMs, webhooks.areComing]).toEqual([2000, false]);
    expect(polls.dueMs(0, 0)).toBe(2000);
    webhooks.came();
    expect(polls.dueMs(0, 0)).toBe(5000);
  });
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
