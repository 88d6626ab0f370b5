import type { Message, Submitted } from '../describe-api/client.js';
import type { Dialect } from '../describe-api/dialects/index.js';
import type { DescribeJobData } from '../shared/jobs.js';
import type { ApiHealth } from './api-health.js';
import type { FirstPolls } from './poll-schedule.js';
import type { PollSchedule } from './poll-schedule.js';
import type { Webhooks } from './webhooks.js';

/** The job as the activation sees it. */
export interface ActiveJob {
  readonly image: string;
  /** Tells the job from all others, also from an earlier one of the same id. */
  readonly identity: string;
  readonly data: DescribeJobData;
  /** BullMQ's count of activations, this one included. */
  readonly attemptsStarted: number;
  /** Stores the data and does not give up while the queue is away. */
  save(data: DescribeJobData): Promise<void>;
  /** Tells people: the API's progress, and a line for the job's log. Never fails, never waits. */
  report(progress: number): void;
  tell(line: string): void;
}

interface SubmitCall {
  readonly url: string;
  readonly ref?: string;
  readonly webhookOverride?: string;
}

/** What an activation works with; all of it is shared by the worker's images. */
export interface ActivationTools {
  readonly client: {
    readonly dialect: Pick<Dialect, 'givesRefs'>;
    submit(request: SubmitCall, about: { deadlineMs: number }): Promise<Submitted>;
    message(messageId: string, options: { signal: AbortSignal }): Promise<Message>;
  };
  readonly health: ApiHealth;
  readonly schedule: PollSchedule;
  readonly firstPolls: FirstPolls;
  /** Waits for a permit of the account's rate of submits; false when the signal cut it short. */
  takeSubmitPermit(signal: AbortSignal): Promise<boolean>;
  /** Whether the run's coordinator lives: for no other run anything is paid. */
  mayPay(run: string): Promise<boolean>;
  /** Notes for the coordinator, should it come back, that the image waits for it. */
  setAside(run: string, image: string): Promise<void>;
  /** Undefined where the API is to call nobody. */
  readonly webhooks?: Webhooks | undefined;
  /** Waits for a permit of the account's rate of polls; false when the signal cut it short. */
  takePollPermit(signal: AbortSignal): Promise<boolean>;
  /** The polls of the whole account wait. */
  holdPolls(ms: number): Promise<void>;
  /** A submit went through or met a 429; the latter returns how long the queue is to wait. */
  submitted(): Promise<void>;
  refused(retryAfterMs: number | undefined): Promise<number>;
  /** The API takes no other submit for a while: the queue waits, and nothing else follows. */
  holdSubmits(ms: number): Promise<void>;
  /** Monotonic milliseconds: a machine's sleep does not count. */
  now(): number;
}
