import { beforeAll, expect, test } from 'vitest';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { PollSchedule } from '../../src/worker/poll-schedule.js';
import { describeOnAnyQueue } from '../helpers/queues.js';

describeOnAnyQueue('how long describes take', (open) => {
  let connection: QueueConnection;
  let count = 0;
  beforeAll(async () => {
    connection = await (await open()).connect();
  });
  const openAt = (queue: string) => PollSchedule.open(connection.store, queue);

  test('is known to a worker that starts when another one has stopped', async () => {
    const queue = `describe@example.com@thenextleg@${count++}`;
    const earlier = await openAt(queue);
    for (let took = 1000; took < 3000; took += 100) earlier.completed(took, 10);
    await earlier.save(connection.store, queue);
    const next = await openAt(queue);
    expect([next.slowMs, next.nextDelayMs(0, 0)]).toEqual([earlier.slowMs, earlier.nextDelayMs(0, 0)]);
    expect((await openAt(`${queue}-other`)).slowMs).toBe(undefined);
  });

  test('is not known when too little was seen, and not when somebody has written rubbish', async () => {
    const queue = `describe@example.com@thenextleg@${count++}`;
    const earlier = await openAt(queue);
    for (let seen = 0; seen < 15; seen++) earlier.completed(1000, 10);
    await earlier.save(connection.store, queue);
    expect((await openAt(queue)).slowMs).toBe(undefined);
    for (const ms of ['', 'no JSON', '{"a":1}', '[1,"2"]', '[-5]', '[null]']) {
      await connection.store.setFields(`latencies:${queue}`, { ms });
      expect((await openAt(queue)).slowMs).toBe(undefined);
    }
  });
});
