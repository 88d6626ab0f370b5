import type { StopReason } from '../describe-api/attempt-policy.js';
import type { DescribeClient } from '../describe-api/client.js';
import { resultsQueueName } from '../shared/account.js';
import type { AccountLimits } from '../shared/account-limits.js';
import { GroupCommit, forEachRun } from '../shared/group-commit.js';
import {
  type DescribeJobData,
  type FailedOutcome,
  type Outcome,
  type Prompts,
  type PublishedResults,
  RESULT_JOB,
  type ResultJobData,
  resultsTogether,
} from '../shared/jobs.js';
import { plural } from '../shared/plural.js';
import type { JobQueue, QueueConnection } from '../shared/queue/connection.js';
import type { RateLimiter } from '../shared/queue/limiter.js';
import { retryUntilUp } from '../shared/queue/outage.js';
import type { SpendingCounter } from '../shared/run-spending.js';
import type { ApiHealth, Intake } from './api-health.js';
import type { Images } from './images.js';
import type { LivingRuns } from './living-runs.js';
import type { PollTurns } from './message-polls.js';
import type { PollSchedule } from './poll-schedule.js';
import type { Callback, WorkerWebhooks } from './webhooks.js';
import type { WorkerMetrics } from './worker-metrics.js';

/** The job as its processing sees it. */
export interface ActiveJob {
  readonly image: string;
  /** Tells the job from all others, also from an earlier one of the same id. */
  readonly identity: string;
  readonly data: DescribeJobData;
  /** BullMQ's count of the job's processings, this one included. */
  readonly attemptsStarted: number;
  /** Nothing is to be paid for it yet, see `HELD`. */
  readonly isHeld: boolean;
  /** Stores the data and does not give up while the queue is away. */
  save(data: DescribeJobData): Promise<void>;
  /** Makes certain that the job is still this processing's. @throws when another worker may have taken it up */
  renewLock(): Promise<void>;
  /** For people: the API's progress, and a line for the job's log. Never fails, never waits. */
  report(progress: number): void;
  log(line: string): void;
}

/** What a processing works with; all of it is shared by the worker's images. */
export interface ProcessingDeps {
  readonly connection: QueueConnection;
  readonly queue: JobQueue<DescribeJobData, ResultJobData>;
  readonly client: Pick<DescribeClient, 'submit' | 'message' | 'dialect'>;
  readonly images: Pick<Images, 'sendsUrl' | 'read' | 'refusedUrl' | 'described'>;
  readonly submitLimiter: RateLimiter;
  readonly pollTurns: Pick<PollTurns, 'take'>;
  readonly limits: AccountLimits;
  readonly spending: Pick<SpendingCounter, 'takeCall' | 'giveCallBack' | 'add'>;
  readonly health: ApiHealth;
  /** Only for runs whose coordinator lives anything is paid. */
  readonly living: Pick<LivingRuns, 'has'>;
  readonly schedule: PollSchedule;
  readonly metrics: WorkerMetrics;
  /**
   * Jobs that were taken up again with their message, which has not been asked for since. Fresh submits wait for them: one
   * that is completed by now makes room, and nothing is paid for before what is paid for already was looked at.
   */
  readonly firstPolls: Set<ActiveJob>;
  /** Undefined where the API is to call nobody. */
  readonly webhooks?: WorkerWebhooks | undefined;
  readonly publisher: GroupCommit<PublishedResult>;
  readonly intake: Pick<Intake, 'rest' | 'takeNoMore'>;
  /** Monotonic milliseconds: a machine's sleep does not count. */
  now(): number;
}

export interface Processing {
  readonly job: ActiveJob;
  readonly deps: ProcessingDeps;
  /** Aborts when the worker is to release its images; a submit on the wire is still awaited. */
  readonly stopping: AbortSignal;
  /** Of the submit whose message it waits for; undefined without webhooks. */
  readonly callback: Callback | undefined;
}

/** The outcome of the processing: what becomes of the job. Results are published before. */
export type ProcessingOutcome =
  | { readonly kind: 'complete'; readonly result: ResultJobData }
  /** `data` is what the failed job keeps for being taken up again. */
  | { readonly kind: 'fail'; readonly result: ResultJobData; readonly data: DescribeJobData }
  /** To the head of the queue, for any worker. */
  | { readonly kind: 'release'; readonly data: DescribeJobData; readonly why: string }
  | { readonly kind: 'delay'; readonly data: DescribeJobData; readonly ms: number }
  /** A submit met a 429: the job goes back, and the whole queue waits. */
  | { readonly kind: 'rateLimited'; readonly data: DescribeJobData; readonly ms: number };

/** Releases an image of a worker that stops, or that takes no more images because of a refusal. */
export async function release(
  { deps }: Processing,
  data: DescribeJobData,
  refusal?: { readonly why: StopReason; readonly reason: string },
): Promise<ProcessingOutcome> {
  if (refusal === undefined) return { kind: 'release', data, why: 'the worker stops' };
  await deps.intake.takeNoMore(refusal.why, refusal.reason);
  return { kind: 'release', data, why: `this worker takes no more images: ${refusal.reason}` };
}

export async function publishDescribed(
  processing: Processing,
  data: DescribeJobData,
  prompts: Prompts,
): Promise<ProcessingOutcome> {
  const { job } = processing;
  job.report(100);
  job.log(`completed after ${plural(data.polls, 'poll')}`);
  const messageId = data.messageId ?? '';
  const describedAt = new Date().toISOString();
  const result = await publish(processing, data, { status: 'described', prompts, messageId, describedAt });
  return { kind: 'complete', result };
}

export async function publishFailed(
  processing: Processing,
  data: DescribeJobData,
  { code, reason, answer }: Pick<FailedOutcome, 'code' | 'reason' | 'answer'>,
): Promise<ProcessingOutcome> {
  processing.job.log(`failed (${code}): ${reason}`);
  const { attempts } = data;
  const messageId = data.messageId ?? data.lastMessageId;
  const outcome = { status: 'failed', code, reason, attempts, messageId, answer } as const;
  const result = await publish(processing, data, outcome);
  const kept = {
    ...data,
    submittedIn: undefined,
    unanswered: undefined,
    messageId: undefined,
    answered: undefined,
    wrong: undefined,
    waitedMs: undefined,
    lastMessageId: messageId,
    attempts: 0,
  };
  return { kind: 'fail', result, data: kept };
}

/** The result is in the run's results queue before its describe job ends: no crash between loses it. */
async function publish(
  { job, deps }: Processing,
  data: DescribeJobData,
  outcome: Outcome,
): Promise<ResultJobData> {
  const { run, submits, polls, maybePaid, rescued, inputTokens, outputTokens } = data;
  const result = { image: job.image, outcome, submits, polls, maybePaid, rescued, inputTokens, outputTokens };
  job.log(`published to run ${run}`);
  const isPaid = outcome.status === 'described' || outcome.code === 'bad-response';
  if (isPaid) await deps.spending.add(run, { answered: 1 });
  await deps.publisher.commit({ run, result });
  return result;
}

/** More in one job would keep the coordinator's memory and Redis busy for too long at a time. */
const MOST_TOGETHER = 50;

export interface PublishedResult {
  readonly run: string;
  readonly result: ResultJobData;
}

/**
 * Publishes results to their runs: the first at once, and those that come meanwhile together in the next jobs. So a
 * coordinator takes and acknowledges many of them at a time when there are many, and none waits for more to come.
 */
export function createResultPublisher(
  connection: Pick<QueueConnection, 'passingQueue' | 'outage'>,
): GroupCommit<PublishedResult> {
  const add = (run: string, own: readonly PublishedResult[]) =>
    retryUntilUp(connection, () =>
      connection
        .passingQueue<PublishedResults, null>(resultsQueueName(run))
        .add(RESULT_JOB, resultsTogether(own.map(({ result }) => result))),
    );
  return new GroupCommit((entries) => forEachRun(entries, add), {
    maxEntries: MOST_TOGETHER,
    goesOnAfterFailure: true,
  });
}
