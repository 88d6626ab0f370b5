import { resultsQueueName } from '../shared/account.js';
import { GroupCommit } from '../shared/group-commit.js';
import {
  type DescribeJobData,
  type ErrorCode,
  type PublishedResults,
  type Outcome,
  type Prompts,
  RESULT_JOB,
  type ResultJobData,
  resultsTogether,
} from '../shared/jobs.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { retryUntilUp } from '../shared/queue/outage.js';
import type { ActiveJob, ProcessingDeps, ProcessingOutcome } from './processing.js';

type Deps = Pick<ProcessingDeps, 'publisher'>;

/** Publishes what an image was described with. */
export async function publishDescribed(
  job: ActiveJob,
  data: DescribeJobData,
  prompts: Prompts,
  deps: Deps,
): Promise<ProcessingOutcome> {
  job.report(100);
  job.log(`completed after ${data.polls} poll(s)`);
  const messageId = data.messageId ?? '';
  const describedAt = new Date().toISOString();
  const result = await publish(job, data, { status: 'described', prompts, messageId, describedAt }, deps);
  return { kind: 'complete', result };
}

/** Publishes why an image could not be described. */
export async function publishFailed(
  job: ActiveJob,
  data: DescribeJobData,
  { code, reason }: { readonly code: ErrorCode; readonly reason: string },
  deps: Deps,
): Promise<ProcessingOutcome> {
  job.log(`failed (${code}): ${reason}`);
  const { attempts } = data;
  const messageId = data.messageId ?? data.lastMessageId;
  const result = await publish(job, data, { status: 'failed', code, reason, attempts, messageId }, deps);
  const kept = {
    ...data,
    submittedIn: undefined,
    unanswered: undefined,
    messageId: undefined,
    answered: undefined,
    waitedMs: undefined,
    lastMessageId: messageId,
    attempts: 0,
  };
  return { kind: 'fail', result, data: kept };
}

/** The result is in the run's results queue before its describe job ends: no crash between loses it. */
async function publish(
  job: ActiveJob,
  data: DescribeJobData,
  outcome: Outcome,
  { publisher }: Deps,
): Promise<ResultJobData> {
  const { submits, polls, maybePaid, rescued } = data;
  const result = { image: job.image, outcome, submits, polls, maybePaid, rescued };
  job.log(`published to run ${data.run}`);
  await publisher.publish(data.run, result);
  return result;
}

/** More in one job would keep the coordinator's memory and Redis busy for too long at a time. */
const MOST_TOGETHER = 50;

/**
 * Publishes results to their runs: the first at once, and those that come meanwhile together in the next job. So a
 * coordinator takes and acknowledges many of them at a time when there are many, and none waits for more to come.
 */
export class ResultPublisher {
  readonly #commits = new Map<string, GroupCommit<ResultJobData>>();

  constructor(private readonly connection: Pick<QueueConnection, 'passingQueue' | 'noteTrouble'>) {}

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
    const { connection } = this;
    const add = (results: readonly ResultJobData[]) =>
      retryUntilUp(connection, () =>
        connection
          .passingQueue<PublishedResults, null>(resultsQueueName(run))
          .add(RESULT_JOB, resultsTogether(results)),
      );
    const commit = new GroupCommit<ResultJobData>(add, {
      maxEntries: MOST_TOGETHER,
      goesOnAfterFailure: true,
    });
    this.#commits.set(run, commit);
    return commit;
  }
}
