import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { DescribeClient } from '../../src/describe-api/client.js';
import { imageHash } from '../../src/producer/image-url.js';
import { describeManifest } from '../../src/run/describe-manifest.js';
import { accountOf } from '../../src/run/api-options.js';
import type { Receipt, RunOptions, RunResult } from '../../src/run/run-options.js';
import { describeQueueName, resultsQueueName } from '../../src/shared/account.js';
import { AccountLimits } from '../../src/shared/account-limits.js';
import { type DescribeJobData, type ResultJobData, describeJobId } from '../../src/shared/jobs.js';
import type { Limits } from '../../src/shared/limits.js';
import { silentLogger } from '../../src/shared/log.js';
import type { JobQueue, QueueConnection } from '../../src/shared/queue/connection.js';
import { type Simulator, startSimulator } from './simulator.js';
import { DescribeWorker } from '../../src/worker/describe-worker.js';
import type { OpenFixture, QueueFixture } from './queues.js';
import { Workspace } from './workspace.js';

const rate = { count: 500, perMs: 1000 };
/** Limits that no test waits for. */
export const FAST: Limits = { rate, pollRate: rate, maxInFlight: 20 };
export const FAST_FLAGS = ['--rate', '500/s', '--poll-rate', '500/s', '--max-in-flight', '20'];

export interface EndedRun extends RunResult {
  readonly receipt: Receipt;
}

/** Runs a manifest to its receipt, with limits that no test waits for. */
export async function runToReceipt(options: RunOptions): Promise<EndedRun> {
  const result = await describeManifest({ token: 'any', limits: FAST, ...options });
  if (result.receipt === undefined) throw new Error('no receipt');
  return { ...result, receipt: result.receipt };
}

export function expectBalanced({ differences, receipt }: EndedRun): void {
  expect(differences).toEqual([]);
  expect(receipt.balanced).toBe(true);
  const { rows, described, resumed, copied, failed, remaining } = receipt;
  expect(described + resumed + copied + failed + remaining).toBe(rows);
}

/** The queues of one run, as somebody at the board sees them. */
export interface BoardView {
  readonly connection: QueueConnection;
  readonly jobs: JobQueue<DescribeJobData, ResultJobData>;
  readonly results: JobQueue<ResultJobData, null>;
  readonly jobOf: (url: string) => ReturnType<JobQueue<DescribeJobData, ResultJobData>['getJob']>;
  /** A worker that belongs to nobody's run, while `during` goes on. */
  readonly withWorker: (during: () => Promise<void>) => Promise<void>;
}

/** What a run needs around it: a folder, an API and a queue, new for each test (the queue: for each suite). */
export class RunFixture {
  workspace!: Workspace;
  simulator!: Simulator;
  queue!: QueueFixture;

  /** Makes one for the suite that is being defined. */
  static forSuite(openQueue: OpenFixture): RunFixture {
    const fixture = new RunFixture();
    beforeAll(async () => {
      fixture.queue = await openQueue();
    });
    beforeEach(async () => {
      fixture.workspace = await Workspace.create();
      fixture.simulator = await startSimulator({ latencyMs: 30 });
    });
    afterEach(async () => {
      await fixture.simulator.close();
      await fixture.workspace.remove();
    });
    afterAll(() => fixture.queue.cleanup());
    return fixture;
  }

  /** Runs a manifest to `out.csv`; the account has to balance. */
  async run(options: Partial<RunOptions> & { manifest: string }): Promise<EndedRun> {
    const ended = await this.runAnyhow(options);
    expectBalanced(ended);
    return ended;
  }

  /** The same, whatever the account says. */
  runAnyhow(options: Partial<RunOptions> & { manifest: string }): Promise<EndedRun> {
    return runToReceipt({
      api: this.simulator.url,
      queue: this.queue.url,
      output: this.workspace.at('out.csv'),
      ...options,
    });
  }

  /** Looks at a run's queues from outside, between two runs. */
  async atBoard(run: string, look: (board: BoardView) => Promise<void>): Promise<void> {
    const connection = await this.queue.connect();
    const account = accountOf({ api: this.simulator.url });
    const jobs = connection.queue<DescribeJobData, ResultJobData>(describeQueueName(account));
    const board: BoardView = {
      connection,
      jobs,
      results: connection.queue<ResultJobData, null>(resultsQueueName(run)),
      jobOf: (url) => jobs.getJob(describeJobId(run, imageHash(url))),
      withWorker: async (during) => {
        const client = new DescribeClient({ baseUrl: this.simulator.url, token: 'any' });
        const logger = silentLogger();
        const limits = await AccountLimits.open(connection.store, describeQueueName(account), FAST, logger);
        const worker = await DescribeWorker.start({ connection, account, client, limits, logger });
        try {
          await during();
        } finally {
          await worker.stop();
          await client.close();
        }
      },
    };
    try {
      await look(board);
    } finally {
      await connection.close();
    }
  }

  /** Ids of the rows in a file; none when there is no such file. */
  async ids(name: string): Promise<string[]> {
    if (!(await this.workspace.files()).includes(name)) return [];
    return (await this.workspace.records(name)).map((record) => record['id'] ?? '').sort();
  }

  /** Each manifest row is in one of the files, once. */
  async expectRows(described: readonly string[], failed: readonly string[]): Promise<void> {
    expect(await this.ids('out.csv')).toEqual([...described].sort());
    expect(await this.ids('out.failed.csv')).toEqual([...failed].sort());
  }
}
