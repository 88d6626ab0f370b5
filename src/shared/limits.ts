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

/** BullMQ's limiter is a fixed window: `max` jobs in each `duration` milliseconds. */
export interface LimiterWindow {
  readonly max: number;
  readonly duration: number;
}

const WINDOW_MS = 100;

/**
 * Chooses the limiter's window for a rate. Windows are short, since a fixed window lets up to twice its
 * `max` through in some sliding one: about 100 ms, and one job a window below ten a second. The duration is
 * rounded up, so that the result is never faster than the rate.
 */
export function limiterWindow(rate: Rate): LimiterWindow {
  const perMs = rate.count / rate.perMs;
  const max = Math.max(1, Math.floor(perMs * WINDOW_MS));
  return { max, duration: Math.ceil(max / perMs) };
}

const EAGER_MS = 25;

/**
 * The window with which images are activated while none waits for its submit's slot: shorter, so that looks that
 * come late do not add up to a lower rate. The slots keep the rate.
 */
export function eagerWindow({ max, duration }: LimiterWindow): LimiterWindow {
  return { max, duration: Math.max(1, Math.floor(Math.max(duration * 0.8, duration - EAGER_MS))) };
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
