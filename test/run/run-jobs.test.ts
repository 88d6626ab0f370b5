import { expect, test } from 'vitest';
import { describeQueueName } from '../../src/shared/account.js';
import type { DescribeJobData, ResultJobData } from '../../src/shared/jobs.js';
import { reclaimJob } from '../../src/shared/queue/job-moves.js';
import { RunJobs } from '../../src/run/run-jobs.js';
import { newRunId } from '../../src/writer/run-file.js';
import { describeOnBothQueues } from '../helpers/queues.js';

describeOnBothQueues("a run's jobs", (open) => {
  test('that are removed after a crash count the submits that it may have lost', async () => {
    const connection = await (await open()).connect();
    const account = { host: 'api.test', dialect: 'thenextleg', name: 'default' } as const;
    const jobs = new RunJobs(connection, account, newRunId());
    await jobs.add([
      { image: 'untouched', url: 'http://h/1.jpg', row: 1 },
      { image: 'crashed', url: 'http://h/2.jpg', row: 2 },
      { image: 'waited', url: 'http://h/3.jpg', row: 3 },
    ]);
    const crashed = new Set(['crashed', 'waited']);
    const taken = new Set<string>();
    const worker = connection.worker<DescribeJobData, ResultJobData>(
      describeQueueName(account),
      async (job) => {
        // One that waits for its permit when its worker dies has stored that it has submitted nothing.
        if (job.data.row === 3) await job.updateData({ ...job.data, orderlyStarts: job.attemptsStarted });
        taken.add(job.id ?? '');
        return new Promise<never>(() => undefined);
      },
      { concurrency: 3, lockDuration: 1000 },
    );
    await expect.poll(() => taken.size, { timeout: 60_000 }).toBe(3);
    await worker.close(true);
    for (const image of crashed) {
      const job = await jobs.get(image);
      if (job !== undefined) await reclaimJob(job);
    }
    const lost = new Map<string, number | undefined>();
    const removeAll = async () => {
      const removed = await jobs.remove((_job, image) => crashed.has(image));
      for (const [image, { maybePaid }] of removed) lost.set(image, maybePaid);
      return Object.fromEntries(lost);
    };
    // As soon as the locks of the dead worker are over.
    await expect.poll(removeAll, { timeout: 60_000 }).toEqual({ crashed: 1, waited: 0 });
  });
});
