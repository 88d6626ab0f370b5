import { DelayedError, type Job, RateLimitError, UnrecoverableError, WaitingError } from 'bullmq';
import { resultsQueueName } from '../shared/account.js';
import { messageOf } from '../shared/errors.js';
import { GroupCommit } from '../shared/group-commit.js';
import {
  type DescribeJobData,
  type HandedOver,
  RESULT_JOB,
  type ResultJobData,
  handOverTogether,
} from '../shared/jobs.js';
import type { Logger } from '../shared/log.js';
import type { JobQueue, QueueConnection } from '../shared/queue/connection.js';
import { holdQueue } from '../shared/queue/limiter.js';
import type { ProcessingOutcome, StopReason } from './processing.js';

export type DescribeJob = Job<DescribeJobData, ResultJobData>;

/** Runs a queue operation until it succeeds, through outages of the queue. */
export type Persist = <T>(operation: () => Promise<T>) => Promise<T>;

export interface SettleDeps {
  readonly connection: QueueConnection;
  readonly queue: JobQueue<DescribeJobData, ResultJobData>;
  readonly persist: Persist;
  readonly publisher: ResultPublisher;
  readonly logger: Logger;
  /** The limiter's window: a wait that is shorter would end the one under way before its time. */
  windowMs(): number;
  /** The worker takes no images for a while. */
  rest(ms: number): Promise<void>;
  /** Ends the worker's taking of images. */
  stop(why: StopReason, reason: string): Promise<void>;
}

/** BullMQ's word for a job that was removed: by a person, or with the whole of Redis. */
function isMissingJob(error: unknown): boolean {
  return /^Missing key for job/.test(messageOf(error));
}

/** Stores a job's data. A job that was removed by hand meanwhile is still finished: its row waits at home. */
export async function saveJob(job: DescribeJob, data: DescribeJobData, deps: SettleDeps): Promise<void> {
  try {
    await deps.persist(() => job.updateData(data));
  } catch (error) {
    if (!isMissingJob(error)) throw error;
    // BullMQ says so too when the job ends, and that is told.
    deps.logger.debug(
      { job: job.id, messageId: data.messageId },
      'the job was removed while it was worked on',
    );
  }
}

/**
 * Makes of the processing's outcome what BullMQ is to do with the job.
 * @returns the job's return value, for an image that was described
 * @throws BullMQ's marker errors, for every other ending
 */
export async function settleJob(
  job: DescribeJob,
  token: string,
  ending: ProcessingOutcome,
  deps: SettleDeps,
): Promise<ResultJobData> {
  switch (ending.kind) {
    case 'outcome':
      return settleOutcome(job, ending.result, ending.data, deps);
    case 'stop':
      await deps.stop(ending.why, ending.reason);
      return releaseJob(job, token, ending.data, deps);
    case 'rest':
      await deps.rest(ending.ms);
      return releaseJob(job, token, ending.data, deps);
    case 'release':
      return releaseJob(job, token, ending.data, deps);
    case 'delay':
      await saveJob(job, ending.data, deps);
      await deps.persist(() => job.moveToDelayed(Date.now() + Math.ceil(ending.ms), token));
      throw new DelayedError();
    case 'rate-limited':
      await saveJob(job, ending.data, deps);
      await deps.persist(() =>
        holdQueue(deps.queue, deps.connection.store, Math.max(ending.ms, deps.windowMs())),
      );
      throw new RateLimitError();
  }
}

/** The outcome is in the run's results queue before its describe job ends: no crash between loses it. */
async function settleOutcome(
  job: DescribeJob,
  result: ResultJobData,
  data: DescribeJobData,
  deps: SettleDeps,
): Promise<ResultJobData> {
  await deps.publisher.publish(job.data.run, result);
  if (result.outcome.status === 'described') return result;
  await saveJob(job, data, deps);
  const failure = new UnrecoverableError(`${result.outcome.code}: ${result.outcome.reason}`);
  // BullMQ keeps the stack with the job, where it says nothing of the image.
  failure.stack = failure.message;
  throw failure;
}

async function releaseJob(
  job: DescribeJob,
  token: string,
  data: DescribeJobData,
  deps: SettleDeps,
): Promise<never> {
  await saveJob(job, data, deps);
  await deps.persist(() => job.moveToWait(token));
  throw new WaitingError();
}

/** More in one job would keep the coordinator's memory and Redis busy for too long at a time. */
const MOST_TOGETHER = 50;

/**
 * Publishes results to their runs: the first at once, and those that come meanwhile together in the next job. So a
 * coordinator takes and acknowledges many of them at a time when there are many, and none waits for more to come.
 */
export class ResultPublisher {
  readonly #commits = new Map<string, GroupCommit<ResultJobData>>();

  constructor(
    private readonly connection: Pick<QueueConnection, 'passingQueue'>,
    private readonly persist: Persist,
  ) {}

  /** Resolves when the result is where its run finds it; rejects when it could not be stored. */
  async publish(run: string, result: ResultJobData): Promise<void> {
    const commit = this.#commits.get(run) ?? this.#open(run);
    try {
      await commit.commit(result);
    } finally {
      if (commit.isIdle && this.#commits.get(run) === commit) this.#commits.delete(run);
    }
  }

  #open(run: string): GroupCommit<ResultJobData> {
    const add = (results: readonly ResultJobData[]) =>
      this.persist(() =>
        this.connection
          .passingQueue<HandedOver, null>(resultsQueueName(run))
          .add(RESULT_JOB, handOverTogether(results)),
      );
    const commit = new GroupCommit<ResultJobData>(add, {
      maxEntries: MOST_TOGETHER,
      goesOnAfterFailure: true,
    });
    this.#commits.set(run, commit);
    return commit;
  }
}
