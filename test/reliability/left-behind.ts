import { UnrecoverableError } from 'bullmq';
import type { Redis } from 'ioredis';
import { DescribeClient } from '../../src/describe-api/client.js';
import { imageHash } from '../../src/producer/image-url.js';
import { accountOf } from '../../src/run/api-options.js';
import { accountLabel, describeQueueName, resultsQueueName } from '../../src/shared/account.js';
import {
  DESCRIBE_JOB,
  type DescribeJobData,
  type FailedOutcome,
  type Outcome,
  RESULT_JOB,
  type ResultJobData,
  describeJobId,
  freshJobData,
} from '../../src/shared/jobs.js';
import { KEY_PREFIX } from '../../src/shared/queue/connection.js';
import type { JobWorker, QueueConnection } from '../../src/shared/queue/connection.js';
import type { Simulator } from '../helpers/simulator.js';

export const JOBS = [
  'none',
  'waiting',
  'waiting with a message',
  'active',
  'active with a message',
  'delayed after a refusal',
  'delayed with a message',
  'completed',
  'failed',
  'failed, its message completed since',
] as const;
export const RESULTS = ['none', 'described', 'expired', 'rejected'] as const;
export const EARLIER = ['none', 'expired', 'rejected'] as const;

/** What earlier runs have left behind of one image. */
export interface ImageState {
  /** Manifest rows that show it, and how many of them the output has. */
  readonly rows: number;
  readonly inOutput: number;
  readonly job: (typeof JOBS)[number];
  readonly result: (typeof RESULTS)[number];
  /** Whether a coordinator that is dead now had taken the result. */
  readonly resultIsTaken: boolean;
  /** Whether the locks of dead workers are over. */
  readonly locksAreOver: boolean;
  /** What the failures file says. */
  readonly earlier: (typeof EARLIER)[number];
}

/** What has to become of an image: how often it is paid for in the next run, and how its rows end. */
export function fateOf(state: ImageState): { submits: number; ends: 'described' | 'rejected' } {
  const free = { submits: 0, ends: 'described' } as const;
  if (state.inOutput > 0 || state.result === 'described') return free;
  if (state.job.endsWith('with a message') || state.job === 'completed') return free;
  const paid = { submits: 1, ends: 'described' } as const;
  // A refused or crashed one goes on by itself, whatever was said of it before.
  if (state.job === 'active' || state.job === 'delayed after a refusal') return paid;
  const last = state.result === 'none' ? state.earlier : state.result;
  if (last === 'rejected') return { submits: 0, ends: 'rejected' };
  return state.job === 'failed, its message completed since' ? free : paid;
}

export function failureOf(what: 'expired' | 'rejected', messageId: string): FailedOutcome {
  if (what === 'rejected') return { status: 'failed', code: 'rejected', reason: 'no', attempts: 1 };
  return { status: 'failed', code: 'incomplete', reason: 'expired', attempts: 5, messageId };
}

/** Leaves behind in a queue what dead processes would have. */
export class LeftBehind {
  readonly #jobs;
  readonly #results;
  readonly #deadWorker;
  readonly #deadHome;
  readonly #client;
  readonly #queueName: string;
  /** As the run file names it. */
  readonly account: string;

  constructor(
    private readonly connection: QueueConnection,
    private readonly redis: Redis,
    private readonly simulator: Simulator,
    private readonly run: string,
    accountName: string,
  ) {
    const account = accountOf({ api: simulator.url, account: accountName });
    this.account = accountLabel(account);
    const name = describeQueueName(account);
    this.#queueName = name;
    this.#jobs = connection.queue<DescribeJobData, ResultJobData>(name);
    this.#results = connection.queue<ResultJobData, null>(resultsQueueName(run));
    this.#deadWorker = this.#worker<DescribeJobData, ResultJobData>(name);
    this.#deadHome = this.#worker<ResultJobData, null>(resultsQueueName(run));
    this.#client = new DescribeClient({ baseUrl: simulator.url });
  }

  /** A message that is completed, or has expired; it was paid for. */
  async message(url: string, fate: 'completed' | 'expired'): Promise<string> {
    this.simulator.setOptions({ failures: fate === 'expired' ? { incomplete: 1 } : {} });
    const { messageId } = await this.#client.submit({ url });
    this.simulator.setOptions({ failures: {} });
    return messageId;
  }

  async addJob(url: string, state: ImageState): Promise<void> {
    if (state.job === 'none') return;
    const messageId = state.job.includes('message') ? await this.message(url, 'completed') : undefined;
    const data = this.#data(url, state, messageId);
    const jobId = describeJobId(this.run, imageHash(url));
    const isDelayed = state.job.startsWith('delayed');
    const job = await this.#jobs.add(DESCRIBE_JOB, data, { jobId, ...(isDelayed ? { delay: 100 } : {}) });
    if (isDelayed || state.job.startsWith('waiting')) return;
    const active = await this.#deadWorker.getNextJob('token', { block: false });
    if (active.id !== job.id) throw new Error(`${active.id ?? 'nothing'} is active, not ${jobId}`);
    if (state.job === 'completed') {
      const outcome = describedAs(await this.message(url, 'completed'));
      const result = { image: imageHash(url), outcome, submits: 1, polls: 3, maybePaid: 0 };
      await active.moveToCompleted(result, 'token', false);
    } else if (state.job.startsWith('failed')) {
      await active.moveToFailed(new UnrecoverableError('it failed'), 'token', false);
    } else if (state.locksAreOver) {
      await this.#unlock(this.#queueName, jobId);
    }
  }

  async addResult(url: string, state: ImageState): Promise<void> {
    if (state.result === 'none') return;
    const outcome: Outcome =
      state.result === 'described'
        ? describedAs(await this.message(url, 'completed'))
        : failureOf(state.result, await this.message(url, 'expired'));
    const result = { image: imageHash(url), outcome, submits: 1, polls: 3, maybePaid: 0 };
    await this.#results.add(RESULT_JOB, result);
    if (!state.resultIsTaken) return;
    const taken = await this.#deadHome.getNextJob('token', { block: false });
    if (taken.id === undefined) throw new Error('there is no result to take');
    if (state.locksAreOver) await this.#unlock(resultsQueueName(this.run), taken.id);
  }

  async close(): Promise<void> {
    await this.#deadWorker.close();
    await this.#deadHome.close();
    await this.#client.close();
  }

  #data(url: string, state: ImageState, messageId: string | undefined): DescribeJobData {
    const fresh = freshJobData({ run: this.run, url, row: 1, maxAttempts: 5, deadlineMs: 60_000 });
    if (state.job === 'delayed after a refusal') return { ...fresh, submits: 1, attempts: 1 };
    if (state.job.startsWith('failed')) {
      return { ...fresh, submits: 5, ...(messageId === undefined ? {} : { lastMessageId: messageId }) };
    }
    if (messageId === undefined) return fresh;
    return { ...fresh, submits: 1, attempts: 1, messageId, waitedMs: 0 };
  }

  /** A worker that takes what it is told to take, and never finishes it. */
  #worker<D, R>(name: string): JobWorker<D, R> {
    const never = () => new Promise<R>(() => undefined);
    return this.connection.worker<D, R>(name, never, { autorun: false, name: 'dead' });
  }

  async #unlock(queue: string, jobId: string): Promise<void> {
    await this.redis.del(`${KEY_PREFIX}:${queue}:${jobId}:lock`);
  }
}

function describedAs(messageId: string): Outcome {
  const describedAt = '2026-01-02T03:04:05.678Z';
  return { status: 'described', prompts: ['a', 'b', 'c', 'd'], messageId, describedAt };
}
