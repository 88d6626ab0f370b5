import type { Job } from 'bullmq';
import { z } from 'zod';
import { type Receipt, nameSchema, runStopSchema, taskSchema, textSchema } from '../run/run-options.js';
import { UsageError, manifestsText } from '../shared/errors.js';
import { RUNS_QUEUE, UNFINISHED_STATES } from '../shared/jobs.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { PublishedKind } from '../shared/published.js';

export { RUNS_QUEUE, RUN_JOB } from '../shared/jobs.js';

const LATEST_MS = 8.64e15;

/** Epoch milliseconds that are a date. */
const instantSchema = z.number().int().min(0).max(LATEST_MS);

/**
 * What `enqueue` and schedules put into the runs queue. Paths are the server's, relative ones to its `--root`. It holds
 * neither a token nor a command. An option that a server does not know makes it refuse the request: to leave it away
 * could cost money. `output` may hold `{date}` for a schedule.
 */
export const runRequestSchema = z.strictObject({
  ...taskSchema.shape,
  /** Instead of the server's own API and account. */
  api: textSchema.optional(),
  account: textSchema.optional(),
  dialect: textSchema.optional(),

  /** The time zone of the schedule's dates. */
  timeZone: nameSchema.optional(),
  /** Of a scheduled run that has begun: when, in epoch milliseconds, and what `output` was before it had its date. */
  begunAt: instantSchema.optional(),
  outputPattern: nameSchema.optional(),
});

export type RunRequest = z.infer<typeof runRequestSchema>;

/**
 * Reads what was put into the runs queue.
 * @param what for the message: `the request of job 7`
 * @throws {UsageError} when it is none of ours, or of another version
 */
export function readRequest(data: unknown, what = 'the request'): RunRequest {
  const parsed = runRequestSchema.safeParse(data);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const where = issue?.path.join('.') ?? '';
  throw new UsageError(
    `${what} cannot be read (${where === '' ? '' : `${where}: `}${issue?.message ?? 'no object'}): is this server of the same version?`,
  );
}

/**
 * How a request ended; the return value of its job.
 * ended: it ran, see `exitCode`. skipped: a scheduled run that found the run before it still going on.
 * refused: it did not begin, since something in it or in its files cannot work; its job has failed.
 */
export interface RunOutcome {
  readonly outcome: 'ended' | 'skipped' | 'refused';
  readonly exitCode: number;
  /** One line: why it was stopped, skipped or refused. */
  readonly reason?: string | undefined;
  readonly receipt?: Receipt | undefined;
}

/** A job of the runs queue. Anybody may have put anything there: its data is read before it is believed. */
export type RunRequestJob = Job<unknown, RunOutcome>;

/** How it has ended, where its server had lost the job: whoever is given that next ends it so. */
const outcome = z
  .custom<RunOutcome>(
    (value) => z.object({ outcome: z.string(), exitCode: z.number() }).safeParse(value).success,
  )
  .optional();

/**
 * The progress of a request's job: `opened` from the moment in which the server has opened manifest and output,
 * `refused` when it could not.
 */
const runJobProgressSchema = z.discriminatedUnion('state', [
  z.object({
    state: z.literal('opened'),
    /** The run's id, and its files as the server sees them. */
    run: z.string(),
    manifest: z.string(),
    output: z.string(),
    outcome,
  }),
  z.object({ state: z.literal('refused'), exitCode: z.number(), reason: z.string(), outcome }),
]);

export type RunJobProgress = z.infer<typeof runJobProgressSchema>;

/** What a request's job shows of its run. */
export function runJobProgress(job: Pick<RunRequestJob, 'progress'>): RunJobProgress | undefined {
  return runJobProgressSchema.safeParse(job.progress).data;
}

/** The run of a request's job; undefined before its files are open. */
export function openedRun(job: Pick<RunRequestJob, 'progress'> | undefined) {
  const progress = job && runJobProgress(job);
  return progress?.state === 'opened' ? progress : undefined;
}

/** How a request's job ended, or is about to, since it was refused; undefined while it has not. */
export function runOutcomeOf(
  job: Pick<RunRequestJob, 'progress' | 'failedReason' | 'returnvalue' | 'finishedOn'>,
): RunOutcome | undefined {
  const progress = runJobProgress(job);
  if (progress?.state === 'refused') return { ...progress, outcome: 'refused' };
  if (job.finishedOn === undefined) return undefined;
  return job.failedReason ? { outcome: 'refused', exitCode: 1, reason: job.failedReason } : job.returnvalue;
}

/** An outcome on one line: `12 described, 3 failed`, `skipped: ...`. */
export function outcomeText({ outcome, reason, receipt }: RunOutcome): string {
  const why = reason === undefined || reason === '' ? '' : `: ${reason}`;
  if (outcome !== 'ended' || receipt === undefined) return `${outcome}${why}`;
  const { described, resumed, copied, failed, remaining } = receipt;
  const counts = Object.entries({ described, resumed, copied, failed, remaining })
    .filter(([name, count]) => count > 0 || name === 'described')
    .map(([name, count]) => `${count} ${name}`);
  return `${counts.join(', ')}${why}`;
}

/**
 * What a request is known by. Whatever else it says may be of another version: its run can still be found and cancelled, and
 * it is still seen as its schedule's.
 */
const namesSchema = z
  .object({
    manifest: z.string(),
    moreManifests: z.array(z.string()).optional(),
    output: z.string().optional(),
    schedule: z.string().optional(),
    begunAt: instantSchema.optional(),
  })
  .transform(({ manifest, moreManifests = [], ...names }) => ({
    ...names,
    manifest: manifestsText([manifest, ...moreManifests]),
  }));

export type RequestNames = z.infer<typeof namesSchema>;

/** What a job of the runs queue is known by; undefined when it is no request at all. */
export function requestNames(data: unknown): RequestNames | undefined {
  return namesSchema.safeParse(data).data;
}

/**
 * The requests of the runs queue that are not over, with what they are known by. Jobs that are none are left out: a server
 * refuses them when they are due, and they concern nobody else.
 */
export async function queuedRequests(connection: QueueConnection) {
  const jobs = await connection.queue<unknown, RunOutcome>(RUNS_QUEUE).getJobs([...UNFINISHED_STATES]);
  return jobs.flatMap((job) => {
    const names = requestNames(job.data);
    return names === undefined ? [] : [{ job, names }];
  });
}

/** What a server has executed: what it takes to execute it again. */
const keptRequestSchema = z.object({
  run: z.string(),
  /** With the output's path as it was at that time. */
  request: runRequestSchema,
  /** The folder of the server that executed it. */
  root: z.string(),
  /** Epoch milliseconds; undefined while it goes on. */
  endedAt: z.number().optional(),
  /** Why it ended before its time. */
  stop: runStopSchema.optional(),
});

export type KeptRequest = z.infer<typeof keptRequestSchema>;

/** The requests of the last month by their runs, which can be retried without their command; the newest first. */
export const KEPT_REQUESTS = new PublishedKind({
  group: 'requests',
  schema: keptRequestSchema,
  ttlMs: 30 * 24 * 3_600_000,
  order: (a, b) => (b.endedAt ?? 0) - (a.endedAt ?? 0),
});

/** Without what is asked for one time only: whoever asks again may want something else, and limits are the account's by now. */
const lastingSchema = runRequestSchema
  .omit({
    retryAll: true,
    onlyFailed: true,
    collectOnly: true,
    stoppedBefore: true,
    limits: true,
    schedule: true,
    timeZone: true,
    begunAt: true,
    outputPattern: true,
    payAgain: true,
    newColumns: true,
  })
  .strip();

/** The request that executes a run again. */
export function lastingRequest(request: RunRequest, output: string): RunRequest {
  return lastingSchema.parse({ ...request, output });
}
