import { z } from 'zod';
import type { ManifestFormat } from '../producer/manifest.js';
import type { RunStop } from '../run/receipt.js';
import type { Limits } from '../shared/limits.js';
import { ERROR_CODES } from '../shared/outcome.js';

export { RUNS_QUEUE, RUN_JOB } from '../shared/jobs.js';

const rateSchema = z.object({ count: z.number().positive(), perMs: z.number().positive() });
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

/**
 * What `enqueue` and schedules put into the runs queue. Paths are the home's, relative ones to its `--root`. It holds
 * neither a token nor a command. An option that a home does not know makes it refuse the request: to leave it away
 * could cost money.
 */
export const runRequestSchema = z.strictObject({
  manifest: z.string().min(1),
  /** Beside the manifest where it is not given. May hold `{date}` for a schedule. */
  output: z.string().min(1).optional(),
  format: formatSchema.optional(),
  delimiter: z.string().optional(),
  urlColumn: z.string().optional(),
  keyColumn: z.string().optional(),
  baseUrl: z.string().optional(),

  /** Instead of the home's own API and account. */
  api: z.string().optional(),
  account: z.string().optional(),
  dialect: z.string().optional(),
  /** Changes what holds for the whole account. */
  limits: limitsSchema.optional(),

  attempts: z.number().int().min(1).optional(),
  deadlineMs: z.number().positive().optional(),
  limit: z.number().int().min(0).optional(),
  accept: z.array(z.enum(ERROR_CODES)).optional(),
  stopFailing: z.number().min(0).max(100).optional(),
  newColumns: z.boolean().optional(),
  payAgain: z.number().int().min(0).optional(),

  /** The schedule that asks for it, and the time zone of its dates. */
  schedule: z.string().min(1).optional(),
  timeZone: z.string().min(1).optional(),
  /** Of a schedule's turn that has begun: when, in epoch milliseconds, and what `output` was before it had its date. */
  begunAt: z.number().optional(),
  outputPattern: z.string().optional(),
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
