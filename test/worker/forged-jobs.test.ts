import { expect, test } from 'vitest';
import { describeQueueName } from '../../src/shared/account.js';
import { DESCRIBE_JOB, describeJobId, freshJobData } from '../../src/shared/jobs.js';
import { runLeaseName } from '../../src/shared/run-leases.js';
import { accountOf } from '../../src/run/api-options.js';
import { newRunId } from '../../src/writer/run-file.js';
import { ServerFixture } from '../helpers/server-fixture.js';
import { describeOnRedis } from '../helpers/queues.js';
import { everythingIn } from '../helpers/everything-in.js';
import { waitUntil } from '../helpers/wait-until.js';

describeOnRedis('what is no describe job in a queue of images', (openQueue) => {
  const servers = ServerFixture.forSuite(openQueue);
  const { fixture } = servers;

  test('fails, and neither is submitted nor makes a queue of results', async () => {
    const connection = await servers.connect();
    const queue = connection.queue<unknown, unknown>(
      describeQueueName(accountOf({ api: fixture.simulator.url })),
    );
    const about = { url: 'http://images.test/1.jpg', row: 1, maxAttempts: 3, deadlineMs: 60_000 };
    const run = newRunId();
    const forged = [null, {}, 'job', freshJobData({ ...about, run: '../x' }), { ...about, run }];
    for (const data of forged) await queue.add(DESCRIBE_JOB, data);
    const good = await queue.add(DESCRIBE_JOB, freshJobData({ ...about, run }), {
      jobId: describeJobId(run, 'i'),
    });
    await connection.store.lease(runLeaseName(run), 'another-host/1/coordinator', 60_000);
    await servers.startWorker();
    await waitUntil('the good one is described', async () => (await good.getState()) === 'completed');
    await waitUntil('the others have failed', async () => (await queue.getFailedCount()) === forged.length);
    const reasons = (await queue.getFailed()).map(({ failedReason }) => failedReason);
    for (const reason of reasons)
      expect(reason).toMatch(/^this is no describe job, and nothing was submitted/);
    expect(fixture.simulator.stats().paid).toBe(1);
    const kept = await everythingIn(fixture.queue.url);
    expect(kept).toContain(`results@${run}`);
    expect(kept).not.toMatch(/results@(undefined|\.\.)/);
  });
});
