import { beforeAll, expect, test } from 'vitest';
import { readMetrics } from '../../src/shared/published.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import type { SharedStore } from '../../src/shared/queue/store.js';
import { WorkerMetrics } from '../../src/worker/worker-metrics.js';
import { describeOnAnyQueue } from '../helpers/queues.js';

const outcome = {
  status: 'described',
  prompts: ['1', '2', '3', '4'],
  messageId: 'm',
  describedAt: 'now',
} as const;

describeOnAnyQueue("a worker's counts", (open) => {
  let connection: QueueConnection;
  beforeAll(async () => {
    connection = await (await open()).connect();
  });

  test('are published once when it stops while the queue is taking them', async () => {
    const queueName = 'describe@example.com@thenextleg@slow';
    let answer = (): void => undefined;
    let onTaken = (): void => undefined;
    const taken = new Promise<void>((resolve) => (onTaken = resolve));
    const late = new Promise<void>((resolve) => (answer = resolve));
    // What the queue has taken is there; its answer comes late.
    const addToFields: SharedStore['addToFields'] = async (...counts) => {
      const sums = await connection.store.addToFields(...counts);
      onTaken();
      await late;
      return sums;
    };
    const store = new Proxy(connection.store, {
      get: (target, name): unknown =>
        name === 'addToFields' ? addToFields : Reflect.get(target, name, target),
    });
    const metrics = new WorkerMetrics();
    metrics.ended(outcome);
    const first = metrics.publish(store, queueName);
    await taken;
    metrics.ended(outcome);
    const stopped = metrics.publish(store, queueName);
    answer();
    await Promise.all([first, stopped]);
    expect(Object.fromEntries(await readMetrics(connection.store, queueName))).toEqual({
      'outcomes:described': 2,
    });
  });
});
