import { pino } from 'pino';
import { beforeAll, expect, test } from 'vitest';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { createPollSchedule } from '../../src/worker/poll-schedule.js';
import { RememberedLatencies } from '../../src/worker/worker-metrics.js';
import { describeOnBothQueues } from '../helpers/queues.js';

const logger = pino({ level: 'silent' });

describeOnBothQueues('how long describes take', (open) => {
  let connection: QueueConnection;
  let count = 0;
  beforeAll(async () => {
    connection = await (await open()).connect();
  });
  const latencies = (queue: string) => new RememberedLatencies(connection, queue, logger);

  test('is known to a worker that starts when another one has stopped', async () => {
    const queue = `describe@example.com@thenextleg@${count++}`;
    const schedule = createPollSchedule(await latencies(queue).read());
    for (let took = 1000; took < 3000; took += 100) schedule.completed(took, 10);
    await latencies(queue).stop(schedule);
    expect(await latencies(queue).read()).toEqual(schedule.learned());
    expect(await latencies(`${queue}-other`).read()).toEqual([]);
  });

  test('is not known when too little was seen, and not when somebody has written rubbish', async () => {
    const queue = `describe@example.com@thenextleg@${count++}`;
    const schedule = createPollSchedule();
    schedule.completed(1000, 10);
    await latencies(queue).stop(schedule);
    expect(await latencies(queue).read()).toEqual([]);
    for (const ms of ['', 'no JSON', '{"a":1}', '[1,"2"]', '[-5]', '[null]']) {
      await connection.store.setFields(`latencies:${queue}`, { ms });
      expect(await latencies(queue).read()).toEqual([]);
    }
  });
});
