import { z } from 'zod';
import { UsageError } from '../shared/errors.js';

/**
 * Ways to misbehave. "Paid": the submit was accepted, and is counted.
 * - at a submit, nothing paid: `http500`, `quota` (402), `resetBefore` (connection destroyed)
 * - at a submit, nothing paid, and always the same URLs: `reject` (200, `success: false`), `reject400`
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

/**
 * Ways in which deliveries to webhooks go wrong; each goes wrong in one way at most:
 * - `lost` is not sent, `doubled` is sent twice
 * - `late` is sent when the message has been completed for once or twice as long as it took, a second at least
 * - `early` is sent while the message is in progress, though it says that it is completed
 */
export const DELIVERY_FAULTS = ['lost', 'late', 'early', 'doubled'] as const;
export type DeliveryFault = (typeof DELIVERY_FAULTS)[number];

/** Forms of a completed message, see docs/describe-api.md; `mixed` is one of the others for each message. */
export const SHAPES = ['flat', 'nested', 'string', 'nested-string', 'seconds-date', 'mixed'] as const;
export type Shape = (typeof SHAPES)[number];

const share = z.number().min(0).max(1);
const rate = z.strictObject({ count: z.number().positive(), perMs: z.number().positive() });

const settingsSchema = z.strictObject({
  /** The only token that is let in; with null any is, and none. */
  token: z.string().min(1).nullable(),
  /** Median milliseconds from a submit to its completion. */
  latencyMs: z.number().nonnegative(),
  /** Spread of the latency: sigma of a lognormal distribution, 0 for always the same. */
  latencySpread: z.number().nonnegative(),
  /** Submits let through in any sliding window; more get 429. With null there is no limit. */
  rateLimit: rate.nullable(),
  /** Images in progress at most; more get 429. With null there is no limit. */
  maxInFlight: z.int().positive().nullable(),
  /** How a 429 gives `Retry-After`. */
  retryAfter: z.enum(['seconds', 'date', 'none']),
  /** The share (0 to 1) of calls that fail in each way; setting it replaces all shares. */
  failures: z.partialRecord(z.enum(FAILURE_KINDS), share),
  /** The share (0 to 1) of deliveries that go wrong in each way; setting it replaces all of it. */
  webhooks: z.strictObject({
    ...{ lost: share.optional(), late: share.optional(), early: share.optional(), doubled: share.optional() },
    /** Made-up deliveries about the newest submits, besides; to their own webhooks and near them. */
    forged: rate.optional(),
  }),
  /** Every call of the API gets 503. */
  down: z.boolean(),
  /** The form of completed messages. */
  shape: z.enum(SHAPES),
});

const optionsSchema = settingsSchema.extend({
  /** Port to listen on; 0 takes a free one. */
  port: z.int().min(0).max(65_535),
  /** Address to listen on. */
  host: z.string(),
  /** Start of all random decisions. */
  seed: z.number(),
  /** Count submits by URL; turn off for long benchmarks, since this grows with the URLs. */
  trackUrls: z.boolean(),
  /** File to which each accepted submit is appended before it is answered; null for none. */
  journal: z.string().nullable(),
});

/** What `setOptions` and `POST /options` can change while the simulator runs. */
export type SimulatorSettings = Readonly<z.infer<typeof settingsSchema>>;
export type SimulatorOptions = Readonly<z.infer<typeof optionsSchema>>;
export type FailureShares = SimulatorSettings['failures'];
export type WebhookFaults = SimulatorSettings['webhooks'];

export const DEFAULTS: SimulatorOptions = {
  port: 0,
  host: '127.0.0.1',
  seed: 1,
  token: null,
  latencyMs: 1000,
  latencySpread: 0.3,
  rateLimit: null,
  maxInFlight: null,
  retryAfter: 'seconds',
  failures: {},
  webhooks: {},
  down: false,
  shape: 'flat',
  trackUrls: true,
  journal: null,
};

/** All or some of them; undefined is the same as left out. */
export type Some<T> = { readonly [K in keyof T]?: T[K] | undefined };

/** The old options with those changed that are given. */
export function change<T extends object>(old: T, changes: Some<T>): T {
  const given = Object.entries(changes).filter(([, value]) => value !== undefined);
  return { ...old, ...Object.fromEntries(given) };
}

/**
 * Completes the options of a program that starts a simulator.
 * @throws {UsageError} for values that cannot be
 */
export function completeOptions(options: Some<SimulatorOptions>): SimulatorOptions {
  const parsed = optionsSchema.partial().safeParse(options);
  if (parsed.success) return change(DEFAULTS, parsed.data);
  throw new UsageError(`the simulator's options: ${problemsIn(parsed.error)}`);
}

/**
 * Checks settings that came from outside.
 * @returns the settings, or what is wrong with them on one line
 */
export function parseSettings(body: unknown): Some<SimulatorSettings> | string {
  const parsed = settingsSchema.partial().safeParse(body);
  return parsed.success ? parsed.data : problemsIn(parsed.error);
}

function problemsIn({ issues }: z.ZodError): string {
  return issues.map(({ path, message }) => `${path.join('.') || 'options'}: ${message}`).join('; ');
}
