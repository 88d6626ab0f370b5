import { z } from 'zod';
import { UsageError } from '../shared/errors.js';

/**
 * Ways to misbehave. "Paid": the submit was accepted, and is counted.
 * - at a submit, nothing paid: `http500`, `quota` (402), `resetBefore` (connection destroyed)
 * - at a submit, nothing paid, and always the same URLs: `reject` (200, `success: false`), `reject400`
 * - at a submit that asks for what a server may not have, nothing paid: `noUrls` (400 for an image's URL), `noSchema` (400 for
 *   a `response_format` with a schema), `noFormat` (400 for any `response_format`)
 * - at a submit, paid: `reset` (connection destroyed), `badJson` (cut off), `html` (200), `hang` (no answer)
 * - the accepted message: `incomplete` (expires where it would have completed), `never` (never completes)
 * - at a poll: `pollError` (500), `pollMissing` (404, only while it is working)
 */
export const FAILURE_KINDS = [
  'http500',
  'quota',
  'resetBefore',
  'reject',
  'reject400',
  'noUrls',
  'noSchema',
  'noFormat',
  'reset',
  'badJson',
  'html',
  'hang',
  'incomplete',
  'never',
  'pollError',
  'pollMissing',
] as const;
export type FailureKind = (typeof FAILURE_KINDS)[number];

const rate = z.strictObject({ count: z.number().positive(), perMs: z.number().positive() });

const optionsSchema = z.strictObject({
  /** Port to listen on; 0 takes a free one. */
  port: z.int().min(0).max(65_535).default(0),
  /** The only token that is let in; with null any is, and none. */
  token: z.string().min(1).nullable().default(null),
  /** Median milliseconds from a submit to its completion. */
  latencyMs: z.number().nonnegative().default(1000),
  /** Spread of the latency: sigma of a lognormal distribution, 0 for always the same. */
  latencySpread: z.number().nonnegative().default(0.3),
  /** Submits let through in any sliding window; more get 429. With null there is no limit. */
  rateLimit: rate.nullable().default(null),
  /** Images in progress at most; more get 429. With null there is no limit. */
  maxInFlight: z.int().positive().nullable().default(null),
  /** How a 429 gives `Retry-After`. */
  retryAfter: z.enum(['seconds', 'date', 'none']).default('seconds'),
  /** The share (0 to 1) of calls that fail in each way. */
  failures: z.partialRecord(z.enum(FAILURE_KINDS), z.number().min(0).max(1)).default({}),
  /** Start of all random decisions. */
  seed: z.number().default(1),
  /** File to which each accepted submit is appended before it is answered; null for none. */
  journal: z.string().nullable().default(null),
});

export type SimulatorOptions = Readonly<z.input<typeof optionsSchema>>;
export type CompleteOptions = Readonly<z.output<typeof optionsSchema>>;
export type FailureShares = CompleteOptions['failures'];

/** Completes the options of a simulator. @throws {UsageError} for values that cannot be */
export function completeOptions(options: SimulatorOptions): CompleteOptions {
  const parsed = optionsSchema.safeParse(options);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(
    ({ path, message }) => `${path.join('.') || 'options'}: ${message}`,
  );
  throw new UsageError(`the simulator's options: ${problems.join('; ')}`);
}
