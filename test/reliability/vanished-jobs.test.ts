import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { describeManifest } from '../../src/run/describe-manifest.js';
import { describeQueueName, resultsQueueName } from '../../src/shared/account.js';
import {
  type DescribeJobData,
  type PublishedResults,
  type ResultJobData,
  outcomesIn,
} from '../../src/shared/jobs.js';
import { type JobQueue, type QueueConnection, openQueue } from '../../src/shared/queue/connection.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { readRunFile } from '../../src/writer/run-file.js';
import { type TestRedis, redisAvailable, startRedis } from '../helpers/redis.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { allIds, describedIds } from './run-process.js';

const ROWS = 6;
const IN_FLIGHT = 3;
const SOON = { reconcileEveryMs: 300, tickMs: 100 };

/** The embedded queue is one process's own: nobody else can take anything out of it while a run goes on. */
describe.skipIf(!redisAvailable)('while a run goes on', () => {
  let redis: TestRedis;
  let admin: Redis;
  let other: QueueConnection;
  let workspace: Workspace;
  let simulator: Simulator;
  let jobs: JobQueue<DescribeJobData, ResultJobData>;

  beforeAll(async () => {
    redis = await startRedis();
    admin = new Redis(redis.url);
    other = await openQueue(parseQueueUrl(redis.url, {}));
  });
  beforeEach(async () => {
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 1000, latencySpread: 0 });
    jobs = other.queue(
      describeQueueName({ host: new URL(simulator.url).host, dialect: 'thenextleg', name: 'default' }),
    );
    await workspace.write('m.csv', manifestOf(ROWS));
  });
  afterEach(async () => {
    await simulator.close();
    await workspace.remove();
  });
  afterAll(async () => {
    await other.close();
    admin.disconnect();
    await redis.stop();
  });

  async function run() {
    const rate = { count: 500, perMs: 1000 };
    const { receipt, failedByCode, exitCode } = await describeManifest({
      manifest: workspace.at('m.csv'),
      output: workspace.at('out.csv'),
      api: simulator.url,
      token: 'any',
      queue: redis.url,
      limits: { rate, pollRate: rate, maxInFlight: IN_FLIGHT },
      timing: SOON,
    });
    expect(receipt?.balanced).toBe(true);
    return { receipt, failed: [...failedByCode], exitCode };
  }

  /** Runs `meddle` in the middle of a run. */
  async function runMeddledWith(meddle: () => Promise<unknown>) {
    const ended = run();
    await waitUntil('the run is under way', async () => {
      const { waiting, active } = await jobs.getJobCounts('waiting', 'active');
      return simulator.stats().paid === IN_FLIGHT && active === IN_FLIGHT && waiting === ROWS - IN_FLIGHT;
    });
    await meddle();
    return ended;
  }

  /** The same command again, at a quicker API. */
  async function runAgain() {
    simulator.setOptions({ latencyMs: 30 });
    return run();
  }

  const remove = (state: 'waiting' | 'active') => async () => {
    for (const job of await jobs.getJobs([state])) {
      await admin.del(jobs.toKey(`${job.id ?? ''}:lock`));
      await jobs.remove(job.id ?? '');
    }
  };

  test('waiting jobs that are removed by hand end as lost, and the next run describes them', async () => {
    const { receipt, failed, exitCode } = await runMeddledWith(remove('waiting'));
    expect(failed).toEqual([['lost', ROWS - IN_FLIGHT]]);
    expect([receipt?.described, exitCode]).toEqual([IN_FLIGHT, 2]);
    const failures = await workspace.records('out.failed.csv');
    expect(failures.map((row) => row['error_code'])).toEqual(Array(ROWS - IN_FLIGHT).fill('lost'));
    const again = await runAgain();
    expect(again.receipt).toMatchObject({ resumed: IN_FLIGHT, described: ROWS - IN_FLIGHT, failed: 0 });
    expect(await describedIds(workspace)).toEqual(allIds(ROWS));
    expect(simulator.stats().paid).toBe(ROWS);
  });

  test('jobs in flight that are removed by hand are described all the same', async () => {
    const { receipt } = await runMeddledWith(remove('active'));
    expect(receipt).toMatchObject({ described: ROWS, failed: 0, submits: ROWS });
    expect(simulator.stats().paid).toBe(ROWS);
  });

  test('jobs that are cleaned away end as lost', async () => {
    const { failed } = await runMeddledWith(() => jobs.clean(0, 100, 'wait'));
    expect(failed).toEqual([['lost', ROWS - IN_FLIGHT]]);
  });

  test('a job that the queue fails by itself ends as lost, with its reason', async () => {
    const { receipt } = await runMeddledWith(async () => {
      const [job] = await jobs.getWaiting();
      // What BullMQ does to a job that has stalled too often.
      await admin.hset(jobs.toKey(job?.id ?? ''), 'defa', 'job stalled more than allowable limit');
    });
    expect(receipt).toMatchObject({ described: ROWS - 1, failed: 1 });
    const [failure] = await workspace.records('out.failed.csv');
    expect([failure?.['error_code'], failure?.['error']]).toEqual([
      'lost',
      'job stalled more than allowable limit',
    ]);
    const again = await runAgain();
    expect(again.receipt).toMatchObject({ described: 1, resumed: ROWS - 1, failed: 0 });
  });

  test('a job in flight that somebody else fails is described all the same', async () => {
    const { receipt } = await runMeddledWith(async () => {
      for (const job of await jobs.getActive()) await job.moveToFailed(new Error('by hand'), '0');
    });
    expect(receipt).toMatchObject({ described: ROWS, failed: 0, submits: ROWS });
  });

  test('results that are removed by hand are made again from their jobs', async () => {
    const { receipt } = await runMeddledWith(async () => {
      const runFile = await readRunFile(workspace.at('out.csv.run'));
      const results = other.queue<PublishedResults, null>(resultsQueueName(runFile?.run ?? ''));
      await results.pause();
      await waitUntil('results have come', async () => {
        const waiting = await results.getWaiting();
        return waiting.flatMap(({ data }) => outcomesIn(data)).length >= IN_FLIGHT;
      });
      await results.drain();
      await results.resume();
    });
    expect(receipt).toMatchObject({ described: ROWS, failed: 0, submits: ROWS });
    expect(await describedIds(workspace)).toEqual(allIds(ROWS));
  });

  test('a failed job that is retried by hand neither holds the run up nor is written twice', async () => {
    simulator.setOptions({ failures: { reject: 1 } });
    const ended = run();
    let retried = 0;
    await waitUntil('a failed job was retried', async () => {
      for (const job of await jobs.getFailed()) {
        simulator.setOptions({ failures: {}, latencyMs: 30 });
        await job.retry('failed').then(
          () => retried++,
          () => undefined,
        );
      }
      return retried > 0;
    });
    const { receipt } = await ended;
    expect((receipt?.described ?? 0) + (receipt?.failed ?? 0)).toBe(ROWS);
    const ids = await describedIds(workspace);
    expect(ids).toEqual([...new Set(ids)]);
  });
});
