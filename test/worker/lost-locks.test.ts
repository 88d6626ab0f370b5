import { Redis } from 'ioredis';
import { expect, test } from 'vitest';
import { describeQueueName } from '../../src/shared/account.js';
import { DESCRIBE_JOB, describeJobId, freshJobData } from '../../src/shared/jobs.js';
import { KEY_PREFIX } from '../../src/shared/queue/connection.js';
import { runLeaseName } from '../../src/shared/run-leases.js';
import { accountOf } from '../../src/run/api-options.js';
import { newRunId } from '../../src/writer/run-file.js';
import { ServerFixture } from '../helpers/server-fixture.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';

describeOnRedis('an image that another worker has taken up while it waited for its permit', (openQueue) => {
  const servers = ServerFixture.forSuite(openQueue);
  const { fixture } = servers;

  test('is not submitted, since that would be paid for twice', async () => {
    const connection = await servers.connect();
    const queue = connection.queue<unknown, unknown>(
      describeQueueName(accountOf({ api: fixture.simulator.url })),
    );
    const run = newRunId();
    await connection.store.lease(runLeaseName(run), 'another-host/1/coordinator', 60_000);
    const rate = { count: 1, perMs: 1000 };
    await servers.startWorker({ rate, pollRate: { count: 100, perMs: 1000 }, maxInFlight: 10 });
    const add = (image: string, row: number) =>
      queue.add(
        DESCRIBE_JOB,
        freshJobData({ run, url: `http://images.test/${row}.jpg`, row, maxAttempts: 3, deadlineMs: 60_000 }),
        { jobId: describeJobId(run, image) },
      );
    const jobs = [await add('a', 1), await add('b', 2), await add('c', 3), await add('d', 4)];
    const [, , third, last] = jobs;
    await waitUntil('the third one waits for its permit', async () => (await third?.getState()) === 'active');
    const redis = new Redis(fixture.queue.url);
    // As after an outage in which the lock ran out.
    await redis.set(`${KEY_PREFIX}:${queue.name}:${third?.id}:lock`, 'of-another-worker', 'PX', 600_000);
    redis.disconnect();
    await waitUntil('the one behind it is described', async () => (await last?.getState()) === 'completed');
    expect(await third?.getState()).toBe('active');
    expect(fixture.simulator.stats().paid).toBe(3);
  });
});
