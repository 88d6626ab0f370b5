import { beforeAll, expect, test, vi } from 'vitest';
import { KeptJobs } from '../../src/run/completed-jobs.js';
import { RunJobs } from '../../src/run/run-jobs.js';
import { describeQueueName } from '../../src/shared/account.js';
import type { DescribeJobData, ResultJobData } from '../../src/shared/jobs.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { describeOnBothQueues } from '../helpers/queues.js';
import { soon } from '../helpers/wait-until.js';

const POLICY = { maxAttempts: 1, deadlineMs: 1000 };
describeOnBothQueues('completed jobs of ended runs', (open) => {
  let connection: QueueConnection;
  let count = 0;
  beforeAll(async () => {
    connection = await (await open()).connect();
  });

  /** A queue with two completed jobs of each run. */
  async function complete(runs: readonly string[]) {
    const account = { host: 'example.com', dialect: 'thenextleg', name: `kept-${count++}` } as const;
    const queue = connection.queue<DescribeJobData, ResultJobData>(describeQueueName(account));
    for (const run of runs) {
      const image = (name: string) => ({
        image: name.padEnd(22, '0'),
        url: `https://i.example/${name}`,
        row: 1,
      });
      await new RunJobs(connection, account, run, POLICY).add([image('one'), image('two')]);
    }
    const outcome = { status: 'failed', code: 'http', reason: 'x', attempts: 1 } as const;
    const result = { image: 'any', outcome, submits: 1, polls: 1, maybePaid: 0 };
    const worker = connection.worker<DescribeJobData, ResultJobData>(
      queue.name,
      () => Promise.resolve(result),
      {},
    );
    await vi.waitFor(async () => expect(await queue.getCompletedCount()).toBe(2 * runs.length), soon);
    await worker.close();
    const runsOf = async () => {
      const jobs = await queue.getCompleted(0, -1);
      return [...new Set(jobs.map((job) => job.data.run))].sort();
    };
    return { kept: new KeptJobs(connection, account, 4), runsOf };
  }

  test('make room for those of the runs that end later, oldest run first', async () => {
    const { kept, runsOf } = await complete(['a', 'b', 'c']);
    await kept.add('a', 2);
    await kept.add('b', 2);
    expect(await runsOf()).toEqual(['a', 'b', 'c']);
    await kept.add('c', 2);
    expect(await runsOf()).toEqual(['b', 'c']);
  });

  test('stay while their run goes on again', async () => {
    const { kept, runsOf } = await complete(['a', 'b', 'c', 'd']);
    await kept.add('a', 2);
    await kept.add('b', 2);
    await kept.takeOut('a');
    await connection.store.lease('run:b', 'a coordinator', 60_000);
    await kept.add('c', 2);
    await kept.add('d', 2);
    expect(await runsOf()).toEqual(['a', 'b', 'c', 'd']);
    await connection.store.release('run:b', 'a coordinator');
    await kept.add('d', 2);
    expect(await runsOf()).toEqual(['a', 'c', 'd']);
  });
});
