import { type Rate, perSecond } from './durations.js';

/** The limits of an account; they hold over all its workers together. */
export interface Limits {
  /** Submits. */
  readonly rate: Rate;
  /** Polls. */
  readonly pollRate: Rate;
  /** Images submitted and not yet completed. */
  readonly maxInFlight: number;
}

/** What services of this family allow, see "Limits seen" in docs/describe-api.md. */
export const DEFAULT_LIMITS: Limits = {
  rate: { count: 20, perMs: 60_000 },
  pollRate: { count: 10, perMs: 1000 },
  maxInFlight: 10,
};

/** BullMQ's rate limit, a fixed window: `max` jobs in each `duration` milliseconds, whole numbers. */
export interface RateLimitWindow {
  readonly max: number;
  readonly duration: number;
}

const WINDOW_MS = 100;
const EAGER = 1.25;
const CALM = 0.8;

/**
 * BullMQ's rate limit for a rate: how many images are taken up, each of which then waits for a permit to be submitted.
 * Its windows begin when somebody looks, so that the rate alone would not be used: more is allowed, but less while many
 * wait, since those fill `--max-in-flight`, and count as perhaps paid when their worker is killed. Windows are short, and
 * one image long below ten a second.
 * @param waiting how many images wait for permits
 */
export function processingWindow(rate: Rate, waiting: number): RateLimitWindow {
  const perMs = rate.count / rate.perMs;
  const max = Math.max(1, Math.floor(perMs * WINDOW_MS));
  const share = waiting > max ? CALM : EAGER;
  return { max, duration: Math.max(1, Math.floor(max / perMs / share)) };
}

/** Milliseconds between two calls at a rate. */
export function intervalMs(rate: Rate): number {
  return rate.perMs / rate.count;
}

/** The same rate, slowed down by a factor in (0, 1]. */
export function scaleRate(rate: Rate, factor: number): Rate {
  return { count: rate.count * factor, perMs: rate.perMs };
}

const SMALLEST_WINDOW = 50;
const LARGEST_WINDOW = 5000;

/**
 * How many rows a home may have outstanding: what may be in flight plus a minute of the rate. So the queue
 * does not grow with the manifest, and a second run waits a minute for its turn, not for the whole of the first.
 * @param windowMs instead of the minute
 */
export function outstandingWindow(limits: Limits, windowMs = 60_000): number {
  const wanted = Math.ceil(limits.maxInFlight + (perSecond(limits.rate) * windowMs) / 1000);
  return Math.min(LARGEST_WINDOW, Math.max(SMALLEST_WINDOW, wanted));
}
