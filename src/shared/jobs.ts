import { z } from 'zod';

/** The states of a job that has not ended, as BullMQ calls them. */
export const UNFINISHED_STATES = ['waiting', 'active', 'delayed', 'prioritized'] as const;

const count = z.number().int().nonnegative();
/** JSON, a value for each of the output's columns for answers; by default they are the four prompts. */
const answerValues = z.array(z.json()).min(1).readonly();

/** What a describe job has to hold before anything is done with it: anybody who reaches the queue can put anything in. */
export const describeJobSchema = z.object({
  /** A queue is named after it. */
  run: z.string().regex(/^[a-z][a-z0-9]{11}$/),
  /** The image's absolute URL: http(s), `file:` or `data:`. */
  url: z.string().min(1),
  /** What a model is asked of it, where that is not the same for all images of the account. */
  prompt: z.string().optional(),
  /** What its row calls it, for people who watch. */
  title: z.string().optional(),
  /** Number of the first manifest record that shows this image, for people who watch. */
  row: z.number(),
  /** What that row is called where rows have keys, see `nameOfKey`: its URL may be signed anew before it is written. */
  key: z.string().optional(),
  /** Submits of this image at most, and how long one may take to complete. */
  maxAttempts: z.number().int().positive(),
  deadlineMs: z.number().positive(),

  /** HTTP calls made for this image so far. */
  submits: count,
  polls: count,
  /** Submits whose answer was lost: each may have been paid for without anything to show for it. */
  maybePaid: count,
  /** Submits that count against `maxAttempts`. */
  attempts: count,

  /** The message that is being waited for: whoever takes the job up polls it and does not submit. */
  messageId: z.string().optional(),
  /**
   * What a synchronous API has answered to the submit: the message is completed with it, and nothing is polled.
   * Whoever takes the job up publishes it.
   */
  answered: answerValues.optional(),
  /** Milliseconds that a worker has waited for it, up to the last orderly end of a processing. */
  waitedMs: z.number().optional(),
  /** The message of an earlier failure, to be asked for once before anything is paid again. */
  lastMessageId: z.string().optional(),
  /**
   * BullMQ's `attemptsStarted` when a processing last ended in order. When a job without a messageId
   * starts with a count that is more than one higher, those between ended by a crash, and a
   * submit may have been lost with each.
   */
  orderlyStarts: count,

  /** With webhooks: the processing that made the submit, since its ref is made of that. */
  submittedIn: z.number().optional(),
  /** With webhooks: processings whose submits are unconfirmed, and whose deliveries are still waited for. */
  unanswered: z.array(z.number()).readonly().optional(),
  /** What was wrong with a model's last answer: it is told so when it is asked once more. */
  wrong: z.string().optional(),
  /** What the API says that the image has cost so far, in tokens. */
  inputTokens: count.optional(),
  outputTokens: count.optional(),
  /** Submits whose answer was lost, and that need not be made again, since their delivery came. */
  rescued: z.number().optional(),
});

/**
 * A job of the describe queue: one image of one run. It is active from its submit until its message is
 * completed. What has been paid for is in here before anything is done with it.
 */
export type DescribeJobData = Readonly<z.infer<typeof describeJobSchema>>;

/**
 * The progress of a job that an earlier start of its run has left without a message: nothing is paid for it before its row
 * has its place in the run. It is no field of the data, which a worker that has just taken the job writes as a whole.
 */
export const HELD = 'waits for its row';

/** Why a job's data is none of a describe job; undefined when it is. */
export function notDescribable(data: unknown): string | undefined {
  const parsed = describeJobSchema.safeParse(data);
  if (parsed.success) return undefined;
  const [issue] = parsed.error.issues;
  const where = issue?.path.join('.') ?? '';
  return `this is no describe job, and nothing was submitted for it: ${where === '' ? '' : `${where}: `}${issue?.message ?? ''}`;
}

/** What a worker publishes to the run's coordinator; also the describe job's return value. */
export interface ResultJobData extends Pick<
  DescribeJobData,
  // Totals of the image's whole life.
  'submits' | 'polls' | 'maybePaid' | 'rescued' | 'inputTokens' | 'outputTokens'
> {
  /** The image's hash, see `imageHash`. */
  readonly image: string;
  readonly outcome: Outcome;
}

/** A job of a results queue: a result, and those that were published together with it. */
export interface PublishedResults extends ResultJobData {
  readonly more?: readonly ResultJobData[] | undefined;
}

export function resultsTogether([first, ...more]: readonly ResultJobData[]): PublishedResults {
  if (first === undefined) throw new RangeError('there is no result to publish');
  return more.length === 0 ? first : { ...first, more };
}

export function outcomesIn({ more = [], ...first }: PublishedResults): readonly ResultJobData[] {
  return [first, ...more];
}

/** Name of every describe job and every result: BullMQ wants one, nothing reads it. */
export const DESCRIBE_JOB = 'describe';
export const RESULT_JOB = 'outcome';

/** The queue of runs that servers execute, one job being "do this run"; and the name of its jobs. */
export const RUNS_QUEUE = 'runs';
export const RUN_JOB = 'run';

/** A describe job's id: one image of one run. Image hashes are base64url, so neither part holds a dot. */
export function describeJobId(run: string, image: string): string {
  return `${run}.${image}`;
}

/** Takes a describe job's id apart; undefined for a job of another run. */
export function imageOfJobId(run: string, jobId: string): string | undefined {
  return jobId.startsWith(`${run}.`) ? jobId.slice(run.length + 1) : undefined;
}

/** Takes any describe job's id apart; undefined for what is none. */
export function partsOfJobId(jobId: string): { run: string; image: string } | undefined {
  const dot = jobId.indexOf('.');
  return dot === -1 ? undefined : { run: jobId.slice(0, dot), image: jobId.slice(dot + 1) };
}

/** Whether nothing is to be had of the job's submits: what was paid for is lost, and counted in its data. */
export function hasNothing(job: { data: DescribeJobData; attemptsStarted: number }): boolean {
  const { messageId, lastMessageId, orderlyStarts, unanswered } = job.data;
  const crashed = job.attemptsStarted > orderlyStarts;
  return (messageId ?? lastMessageId ?? unanswered) === undefined && !crashed;
}

/** Whether no submit of the job can have been paid for. */
export function isUntouched(job: { data: DescribeJobData; attemptsStarted: number }): boolean {
  return hasNothing(job) && job.data.maybePaid === 0;
}

/** Whether the job waits neither for a message nor for its row: once it has left the queue, its row comes again. */
export function isUnsubmitted({ data, progress }: { data: DescribeJobData; progress: unknown }): boolean {
  return data.messageId === undefined && progress !== HELD;
}

/** Whether the job is as its run has added it: one that the API has refused may have been put back by a person. */
export function isUntried(job: { data: DescribeJobData; attemptsStarted: number }): boolean {
  return isUntouched(job) && job.data.submits === 0;
}

/** The fields of a job that has not been submitted yet. */
export function freshJobData(
  about: Pick<
    DescribeJobData,
    'run' | 'url' | 'title' | 'prompt' | 'row' | 'key' | 'maxAttempts' | 'deadlineMs'
  >,
  earlier: { lastMessageId?: string | undefined; maybePaid?: number } = {},
): DescribeJobData {
  return {
    ...about,
    submits: 0,
    polls: 0,
    maybePaid: earlier.maybePaid ?? 0,
    attempts: 0,
    orderlyStarts: 0,
    ...(earlier.lastMessageId === undefined ? {} : { lastMessageId: earlier.lastMessageId }),
  };
}

/** How a row can fail; the values of the failures file's `error_code` column. */
export const ERROR_CODES = [
  'invalid-url',
  'bad-record',
  'duplicate-key',
  'bad-image',
  'rejected',
  'incomplete',
  'deadline',
  'http',
  'network',
  'bad-response',
  'lost',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** One value of an answer: a text, or what else a field is asked to be. */
export type AnswerValue = z.infer<typeof answerValues>[number];

/** A value of an answer as a cell: texts as they are, lists with the separator between, what is nested as JSON. */
export function answerCell(value: AnswerValue, listSeparator = ', '): string {
  if (value === null) return '';
  if (typeof value !== 'object') return String(value);
  const isPlainList =
    Array.isArray(value) && value.every((item) => typeof item !== 'object' || item === null);
  if (!isPlainList || listSeparator === 'json') return JSON.stringify(value);
  return value.map((item) => answerCell(item)).join(listSeparator);
}

/** What was answered of one image, a value for each column: the four prompts (keycaps stripped), or fields of one's own. */
export type Prompts = readonly AnswerValue[];

export interface DescribedOutcome {
  readonly status: 'described';
  readonly prompts: Prompts;
  readonly messageId: string;
  /** When the worker received the prompts: ISO 8601, UTC. */
  readonly describedAt: string;
}

/** What an output has behind the manifest's columns: the answer's, by default these; with `--usage` its tokens; then when it came. */
export const PROMPT_COLUMNS = ['prompt_1', 'prompt_2', 'prompt_3', 'prompt_4'] as const;
export const USAGE_COLUMNS = ['input_tokens', 'output_tokens'] as const;
export const MESSAGE_COLUMNS = ['message_id', 'described_at'] as const;

/** What a failures file has behind them. */
export const FAILURE_COLUMNS = ['error_code', 'error', 'attempts', 'message_id'] as const;

/** An image (or a row that never became one) that could not be described. */
export interface FailedOutcome {
  readonly status: 'failed';
  readonly code: ErrorCode;
  /** One line for people. */
  readonly reason: string;
  /** Submits made, 0 for rows that were never submitted. */
  readonly attempts: number;
  /** The last message, if a submit was ever answered. */
  readonly messageId?: string | undefined;
  /** What a model has answered in place of prompts, at most 8,000 characters; not kept once it is on disk. */
  readonly answer?: string | undefined;
}

/** How a row ended in an earlier run, and over which image. */
export interface PreviousFailure {
  readonly outcome: FailedOutcome;
  readonly image?: string | undefined;
}

export type Outcome = DescribedOutcome | FailedOutcome;

/**
 * Whether failures with this code are found anew by every run that reads the manifest, at no cost. Nothing
 * is known of such a row that the manifest does not say.
 */
export function isDecidedAnew(code: ErrorCode): boolean {
  return code === 'invalid-url' || code === 'bad-record' || code === 'duplicate-key';
}

/** Whether a failure is about the record alone: its key and its image may be those of another row. */
export function isOfRecord({ code }: FailedOutcome): boolean {
  return code === 'duplicate-key' || code === 'bad-record';
}

/**
 * Failures that the same command does not try again, since only a change of the manifest can help.
 * (`duplicate-key` is decided anew from the manifest each time, at no cost.)
 */
export function isPermanent(code: ErrorCode): boolean {
  return code === 'invalid-url' || code === 'rejected' || code === 'bad-record' || code === 'duplicate-key';
}
