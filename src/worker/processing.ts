import type { Message, Submitted } from '../describe-api/client.js';
import type { Dialect } from '../describe-api/dialects/index.js';
import type { DescribeJobData, ErrorCode, Outcome, Prompts, ResultJobData } from '../shared/jobs.js';
import type { ApiHealth } from './api-health.js';
import type { FirstPolls, PollSchedule } from './poll-schedule.js';
import type { Webhooks } from './webhooks.js';
import { z } from 'zod';

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
  log(line: string): void;
}

interface SubmitCall {
  readonly url: string;
  readonly ref?: string;
  readonly webhookOverride?: string;
}

/** What an activation works with; all of it is shared by the worker's images. */
export interface ProcessingDeps {
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

/** The outcome of the processing: what becomes of the job. */
export type ProcessingOutcome =
  /** The image has its outcome; `data` is what a failed job keeps for being taken up again. */
  | { readonly kind: 'outcome'; readonly result: ResultJobData; readonly data: DescribeJobData }
  /** To the head of the queue, for another worker. */
  | { readonly kind: 'release'; readonly data: DescribeJobData }
  /** Try again after a while; takes a new token of the limiter. */
  | { readonly kind: 'delay'; readonly data: DescribeJobData; readonly ms: number }
  /** The whole queue waits. */
  | { readonly kind: 'rate-limited'; readonly data: DescribeJobData; readonly ms: number }
  /** This worker waits, since the API is down for it; others may reach it. */
  | { readonly kind: 'rest'; readonly data: DescribeJobData; readonly ms: number }
  /** This worker's token is refused, or the account's quota is spent. */
  | {
      readonly kind: 'stop';
      readonly data: DescribeJobData;
      readonly why: StopReason;
      readonly reason: string;
    };

export type StopReason = 'token' | 'quota';

export function described(job: ActiveJob, data: DescribeJobData, prompts: Prompts): ProcessingOutcome {
  job.report(100);
  job.log(`completed after ${data.polls} poll(s)`);
  return endWith(job, data, {
    status: 'described',
    prompts,
    messageId: data.messageId ?? '',
    describedAt: new Date().toISOString(),
  });
}

export function failed(
  job: ActiveJob,
  data: DescribeJobData,
  code: ErrorCode,
  reason: string,
): ProcessingOutcome {
  job.log(`failed (${code}): ${reason}`);
  const messageId = data.messageId ?? data.lastMessageId;
  const { attempts } = data;
  return endWith(job, data, { status: 'failed', code, reason, attempts, messageId });
}

function endWith(job: ActiveJob, data: DescribeJobData, outcome: Outcome): ProcessingOutcome {
  const { submits, polls, maybePaid, rescued } = data;
  return {
    kind: 'outcome',
    result: { image: job.image, outcome, submits, polls, maybePaid, rescued },
    data: {
      ...data,
      submittedIn: undefined,
      unanswered: undefined,
      messageId: undefined,
      answered: undefined,
      waitedMs: undefined,
      lastMessageId: data.messageId ?? data.lastMessageId,
      attempts: 0,
    },
  };
}

const count = z.number().int().nonnegative();

/** What a describe job has to hold before anything is done with it: anybody who reaches the queue can put anything in. */
const describeJobSchema = z.looseObject({
  // A run's id: a queue is named after it.
  run: z.string().regex(/^[a-z][a-z0-9]{11}$/),
  url: z.string().min(1),
  row: z.number(),
  maxAttempts: z.number().int().positive(),
  deadlineMs: z.number().positive(),
  submits: count,
  polls: count,
  maybePaid: count,
  attempts: count,
  orderlyStarts: count,
  messageId: z.string().optional(),
  lastMessageId: z.string().optional(),
});

/** Why a job's data is none of a describe job; undefined when it is. */
export function notDescribable(data: unknown): string | undefined {
  const parsed = describeJobSchema.safeParse(data);
  if (parsed.success) return undefined;
  const [issue] = parsed.error.issues;
  const where = issue?.path.join('.') ?? '';
  return `this is no describe job, and nothing was submitted for it: ${where === '' ? '' : `${where}: `}${issue?.message ?? ''}`;
}
