import { z } from 'zod';
import { UsageError } from '../shared/errors.js';
import type { Rate } from '../shared/durations.js';

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

/** The share (0 to 1) of calls that fail in each way; a way that is left out does not happen. */
export type FailureShares = { readonly [kind in FailureKind]?: number | undefined };

/**
 * Ways in which deliveries to webhooks go wrong, each of them in one way at most:
 * - `lost` is not sent, `doubled` is sent twice
 * - `late` is sent when the message has been completed for once or twice as long as it took, a second at least
 * - `early` is sent while it is in progress, though it says that it is completed
 */
export const DELIVERY_FAULTS = ['lost', 'late', 'early', 'doubled'] as const;
export type DeliveryFault = (typeof DELIVERY_FAULTS)[number];

/** The share (0 to 1) of deliveries that go wrong in each way. */
export type WebhookFaults = { readonly [fault in DeliveryFault]?: number | undefined } & {
  /** Made-up deliveries about the newest submits, besides; to their own webhooks and near them. */
  readonly forged?: Rate | undefined;
};

/** Forms of a completed message, see docs/describe-api.md; `mixed` is one of the others for each message. */
export const SHAPES = ['flat', 'nested', 'string', 'nested-string', 'seconds-date', 'mixed'] as const;
export type Shape = (typeof SHAPES)[number];

/** What `setOptions` and `POST /options` can change while the simulator runs. */
export interface SimulatorSettings {
  /** The only token that is let in; with null any is, and none. */
  readonly token: string | null;
  /** Median milliseconds from a submit to its completion. */
  readonly latencyMs: number;
  /** Spread of the latency: sigma of a lognormal distribution, 0 for always the same. */
  readonly latencySpread: number;
  /** Submits let through in any sliding window; more get 429. With null there is no limit. */
  readonly rateLimit: Rate | null;
  /** Images in progress at most; more get 429. With null there is no limit. */
  readonly maxInFlight: number | null;
  /** How a 429 gives `Retry-After`. */
  readonly retryAfter: 'seconds' | 'date' | 'none';
  /** How often to fail, in which ways; setting it replaces all shares. */
  readonly failures: FailureShares;
  /** What goes wrong with deliveries; setting it replaces all of it. */
  readonly webhooks: WebhookFaults;
  /** Every call of the API gets 503. */
  readonly down: boolean;
  /** The same until this time (epoch milliseconds); null for not at all. */
  readonly downUntil: number | null;
  /** The form of completed messages. */
  readonly shape: Shape;
}

export interface SimulatorOptions extends SimulatorSettings {
  /** Port to listen on; 0 takes a free one. */
  readonly port: number;
  /** Address to listen on. */
  readonly host: string;
  /** Start of all random decisions. */
  readonly seed: number;
  /** Count submits by URL; turn off for long benchmarks, since this grows with the URLs. */
  readonly trackUrls: boolean;
  /** File to which each accepted submit is appended before it is answered; null for none. */
  readonly journal: string | null;
}

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
  downUntil: null,
  shape: 'flat',
  trackUrls: true,
  journal: null,
};

/** All or some of them; undefined is the same as left out. */
export type Some<T> = { readonly [K in keyof T]?: T[K] | undefined };

/** The old options with those changed that are given. */
export function change<T extends object>(old: T, changes: Some<T>): T {
  return {
    ...old,
    ...Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined)),
  };
}

const positive = z.number().positive();
const rateSchema = z.strictObject({ count: positive, perMs: positive });
const shareSchema = z.number().min(0).max(1).optional();

const settingsSchema = z.strictObject({
  token: z.string().min(1).nullable(),
  latencyMs: z.number().nonnegative(),
  latencySpread: z.number().nonnegative(),
  rateLimit: rateSchema.nullable(),
  maxInFlight: z.int().positive().nullable(),
  retryAfter: z.enum(['seconds', 'date', 'none']),
  failures: z.partialRecord(z.enum(FAILURE_KINDS), z.number().min(0).max(1)),
  webhooks: z.strictObject({
    lost: shareSchema,
    late: shareSchema,
    early: shareSchema,
    doubled: shareSchema,
    forged: rateSchema.optional(),
  }),
  down: z.boolean(),
  downUntil: z.number().nullable(),
  shape: z.enum(SHAPES),
}) satisfies z.ZodType<SimulatorSettings>;

/**
 * Checks the options of whoever starts a simulator from a program.
 * @throws {UsageError} for values that cannot be
 */
export function checkOptions(options: Some<SimulatorOptions>): void {
  const isSetting = ([name, value]: [string, unknown]) => value !== undefined && name in settingsSchema.shape;
  const settings = Object.entries(options).filter(isSetting);
  const wrong = parseSettings(Object.fromEntries(settings));
  if (typeof wrong === 'string') throw new UsageError(`the simulator's options: ${wrong}`);
}

/**
 * Checks settings that came from outside.
 * @returns the settings, or what is wrong with them on one line
 */
export function parseSettings(body: unknown): Some<SimulatorSettings> | string {
  const settings = settingsSchema.partial().safeParse(body);
  if (settings.success) return settings.data;
  return settings.error.issues
    .map(({ path, message }) => `${path.join('.') || 'options'}: ${message}`)
    .join('; ');
}
