import { z } from 'zod';
import type { ManifestFormat } from '../producer/manifest.js';
import type { RunStop } from '../run/receipt.js';
import { isDuration, isRate } from '../shared/durations.js';
import { UsageError } from '../shared/errors.js';
import type { Limits } from '../shared/limits.js';
import { ERROR_CODES } from '../shared/outcome.js';

export { RUNS_QUEUE, RUN_JOB } from '../shared/jobs.js';

const LATEST_MS = 8.64e15;

/** Neither a file's name nor an environment holds a NUL. */
const textSchema = z.string().refine((text) => !text.includes('\0'), 'a NUL character is in it');
const nameSchema = textSchema.min(1).max(4096);
const rateSchema = z
  .object({ count: z.number(), perMs: z.number() })
  .refine(isRate, 'expected a rate that can be kept, such as 20 in 60000 ms');
const limitsSchema = z.object({
  rate: rateSchema.optional(),
  pollRate: rateSchema.optional(),
  maxInFlight: z.number().int().min(1).optional(),
}) satisfies z.ZodType<Partial<Limits>>;
const formatSchema = z.enum(['csv', 'tsv', 'jsonl', 'list']) satisfies z.ZodType<ManifestFormat>;

export const runStopSchema = z.object({
  kind: z.enum(['interrupted', 'cancelled', 'token', 'quota', 'down', 'failing', 'fatal']),
  reason: z.string(),
}) satisfies z.ZodType<RunStop>;

/** Epoch milliseconds that are a date. */
export const instantSchema = z.number().int().min(0).max(LATEST_MS);

/**
 * What `enqueue` and schedules put into the runs queue. Paths are the home's, relative ones to its `--root`. It holds
 * neither a token nor a command. An option that a home does not know makes it refuse the request: to leave it away
 * could cost money.
 */
export const runRequestSchema = z.strictObject({
  manifest: nameSchema,
  /** Beside the manifest where it is not given. May hold `{date}` for a schedule. */
  output: nameSchema.optional(),
  format: formatSchema.optional(),
  delimiter: textSchema.optional(),
  urlColumn: textSchema.optional(),
  keyColumn: textSchema.optional(),
  baseUrl: textSchema.optional(),

  /** Instead of the home's own API and account. */
  api: textSchema.optional(),
  account: textSchema.optional(),
  dialect: textSchema.optional(),
  /** Changes what holds for the whole account. */
  limits: limitsSchema.optional(),

  attempts: z.number().int().min(1).optional(),
  deadlineMs: z.number().refine(isDuration, 'expected a duration above 0').optional(),
  limit: z.number().int().min(0).optional(),
  accept: z.array(z.enum(ERROR_CODES)).optional(),
  stopFailing: z.number().min(0).max(100).optional(),
  newColumns: z.boolean().optional(),
  payAgain: z.number().int().min(0).optional(),

  /** The schedule that asks for it, and the time zone of its dates. */
  schedule: nameSchema.optional(),
  timeZone: nameSchema.optional(),
  /** Of a schedule's turn that has begun: when, in epoch milliseconds, and what `output` was before it had its date. */
  begunAt: instantSchema.optional(),
  outputPattern: nameSchema.optional(),
  /** Failed rows are taken up again, the permanent ones too. */
  retryAll: z.boolean().optional(),
  /** Rows that have never failed are left. */
  onlyFailed: z.boolean().optional(),
  /** Nothing is paid for: only what the queue holds for this output is brought home. */
  collectOnly: z.boolean().optional(),
  /** Why the run that is completed so ended before its time. */
  stoppedBefore: runStopSchema.optional(),
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
    `${what} cannot be read (${where === '' ? '' : `${where}: `}${issue?.message ?? 'no object'}): is this home of the same version?`,
  );
}
