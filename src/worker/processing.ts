import type { StopReason } from '../describe-api/attempt-policy.js';
import type { DescribeClient } from '../describe-api/client.js';
import type { AccountLimits } from '../shared/account-limits.js';
import type { GroupCommit } from '../shared/group-commit.js';
import type { DescribeJobData, ResultJobData } from '../shared/jobs.js';
import type { JobQueue, QueueConnection } from '../shared/queue/connection.js';
import type { RateLimiter } from '../shared/queue/limiter.js';
import type { SpendingCounter } from '../shared/run-spending.js';
import type { ApiHealth, Intake } from './api-health.js';
import type { Images } from './images.js';
import type { LivingRuns } from './living-runs.js';
import type { PollSchedule } from './poll-schedule.js';
import type { PollTurns } from './poll-turns.js';
import type { PublishedResult } from './publish-result.js';
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
  /** For people: the API's progress, and a line for the job's log. Never fails, never waits. */
  report(progress: number): void;
  log(line: string): void;
}

/** What a processing works with; all of it is shared by the worker's images. */
export interface ProcessingDeps {
  readonly connection: QueueConnection;
  /** The account's queue of images. */
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

/** One processing of a job. */
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
  /** Processed again after a while. */
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
