import { beforeAll, expect, test } from 'vitest';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { describeOnBothQueues } from '../helpers/queues.js';

const MANY = 40;

describeOnBothQueues('queues that pass', (open, kind) => {
  let connection: QueueConnection;
  beforeAll(async () => {
    connection = await (await open()).connect();
  });

  test('that were let go, for others that were asked for since, go on for whoever holds one', async () => {
    const first = connection.passingQueue<object, null>('passing-0');
    await first.add('x', {});
    expect(connection.passingQueue('passing-0')).toBe(first);
    for (let i = 1; i < MANY; i++) await connection.passingQueue<object, null>(`passing-${i}`).add('x', {});
    expect(connection.passingQueue('passing-0') === first).toBe(kind === 'embedded');
    expect(connection.passingQueue(`passing-${MANY - 1}`)).toBe(
      connection.passingQueue(`passing-${MANY - 1}`),
    );
    await first.add('x', {});
    expect(await first.getWaitingCount()).toBe(2);
    expect(await connection.countJobs('passing-0', ['waiting', 'active'])).toBe(2);
    expect(await connection.countJobs('passing-1', ['waiting', 'active'])).toBe(1);
  });

  test('are the kept one where somebody keeps it', () => {
    const kept = connection.queue('kept');
    for (let i = 0; i < MANY; i++) connection.passingQueue(`other-${i}`);
    expect(connection.passingQueue('kept')).toBe(kept);
  });

  test('are counted by their states, one that is not there as empty', async () => {
    const queue = connection.queue<object, null>('counted');
    await queue.addBulk([
      { name: 'x', data: {} },
      { name: 'x', data: {}, opts: { delay: 60_000 } },
    ]);
    expect(await connection.countJobs('counted', ['waiting'])).toBe(1);
    expect(await connection.countJobs('counted', ['waiting', 'delayed'])).toBe(2);
    expect(await connection.countJobs('nowhere', ['waiting', 'delayed'])).toBe(0);
  });
});
