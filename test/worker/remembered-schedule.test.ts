import { beforeAll, expect, test } from 'vitest';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { RememberedSchedule, createPollSchedule } from '../../src/worker/poll-schedule.js';
import { describeOnBothQueues } from '../helpers/queues.js';

describeOnBothQueues('how long describes take', (open) => {
  let connection: QueueConnection;
  let count = 0;
  beforeAll(async () => {
    connection = await (await open()).connect();
  });
  const openAt = (queue: string) => RememberedSchedule.open(connection.store, queue);

  test('is known to a worker that starts when another one has stopped', async () => {
    const queue = `describe@example.com@thenextleg@${count++}`;
    const earlier = await openAt(queue);
    for (let took = 1000; took < 3000; took += 100) earlier.schedule.completed(took, 10);
    await earlier.save();
    expect((await openAt(queue)).schedule.learned()).toEqual(earlier.schedule.learned());
    expect((await openAt(`${queue}-other`)).schedule.learned()).toEqual([]);
  });

  test('is not known when too little was seen, and not when somebody has written rubbish', async () => {
    const queue = `describe@example.com@thenextleg@${count++}`;
    const earlier = await openAt(queue);
    earlier.schedule.completed(1000, 10);
    await earlier.save();
    const unknown = createPollSchedule().nextDelayMs(0, 0);
    expect((await openAt(queue)).schedule.nextDelayMs(0, 0)).toBe(unknown);
    for (const ms of ['', 'no JSON', '{"a":1}', '[1,"2"]', '[-5]', '[null]']) {
      await connection.store.setFields(`latencies:${queue}`, { ms });
      expect((await openAt(queue)).schedule.nextDelayMs(0, 0)).toBe(unknown);
    }
  });
});
