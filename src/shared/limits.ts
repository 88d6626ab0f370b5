import { UsageError } from './errors.js';

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

const WINDOW_MS = 100;
const EAGER = 1.25;
const CALM = 0.8;

/**
 * BullMQ's rate limit for a rate: how many images are taken up, each of which then waits for a permit to be submitted.
 * Its windows begin when somebody looks, so that the rate alone would not be used: more is allowed, but less while many
 * wait, since those fill `--max-in-flight`, and count as perhaps paid when their worker is killed. Windows are short, and
 * one image long below ten a second: `max` images in each `duration` milliseconds, both whole numbers.
 * @param waiting how many images wait for permits
 */
export function processingWindow(rate: Rate, waiting: number): { max: number; duration: number } {
  const perMs = rate.count / rate.perMs;
  const max = Math.max(1, Math.floor(perMs * WINDOW_MS));
  const share = waiting > max ? CALM : EAGER;
  return { max, duration: Math.max(1, Math.floor(max / perMs / share)) };
}

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
 * How many rows of a run may be pending: what may be in flight plus a minute of the rate. So the queue
 * does not grow with the manifest, and a second run waits a minute, not for the whole of the first.
 * @param windowMs instead of the minute
 */
export function pendingWindow(limits: Limits, windowMs = 60_000): number {
  const wanted = Math.ceil(limits.maxInFlight + (perSecond(limits.rate) * windowMs) / 1000);
  return Math.min(LARGEST_WINDOW, Math.max(SMALLEST_WINDOW, wanted));
}

const UNITS = { d: 86_400_000, h: 3_600_000, min: 60_000, s: 1000, ms: 1 };
const UNIT_MS: ReadonlyMap<string | undefined, number> = new Map(Object.entries({ ...UNITS, m: UNITS.min }));

/** A rate: at most `count` calls in `perMs` milliseconds. */
export interface Rate {
  readonly count: number;
  readonly perMs: number;
}

/** A century: longer ones mean nothing, and are more than clocks and dates take. */
const LONGEST_MS = 36_525 * 86_400_000;
const MOST_PER_MS = 1000;
const LEAST = 1e-6;

/** Whether so many milliseconds can be waited for: above 0, and a century at most. */
export function isDuration(ms: number): boolean {
  return ms > 0 && ms <= LONGEST_MS;
}

/** Whether calls can be paced with it: a million a second at most, and one in a century at least. */
export function isRate({ count, perMs }: Rate): boolean {
  const isEach = count >= LEAST && perMs >= LEAST && isDuration(perMs);
  return isEach && count / perMs <= MOST_PER_MS && isDuration(perMs / count);
}

/**
 * Reads a duration such as `500ms`, `20m`, `1.5h`.
 * @param name the flag, for the message
 * @returns milliseconds, above 0
 * @throws {UsageError} when it is no duration
 */
export function parseDuration(text: string, name: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)$/.exec(text.trim());
  const ms = Number(match?.[1]) * (UNIT_MS.get(match?.[2]) ?? NaN);
  if (!isDuration(ms)) throw new UsageError(`${name} ${text}: expected a duration such as 30s, 20m or 2h`);
  return ms;
}

/**
 * Reads a rate such as `20/min`, `1/3s`, `500/h`.
 * @param name the flag, for the message
 * @throws {UsageError} when it is no rate
 */
export function parseRate(text: string, name: string): Rate {
  const match = /^(\d+(?:\.\d+)?)\s*\/\s*(\d+(?:\.\d+)?)?\s*(ms|s|min|m|h|d)$/.exec(text.trim());
  const count = Number(match?.[1]);
  const perMs = Number(match?.[2] ?? 1) * (UNIT_MS.get(match?.[3]) ?? NaN);
  if (!isRate({ count, perMs })) {
    throw new UsageError(`${name} ${text}: expected a rate such as 20/min, 1/3s or 10/s`);
  }
  return { count, perMs };
}

export function perSecond(rate: Rate): number {
  return (rate.count / rate.perMs) * 1000;
}

/** Writes a rate the way a flag takes it: `20/min`, `1/3s`. */
export function formatRate(rate: Rate): string {
  const fits = ([, ms]: [string, number]) => rate.perMs >= ms && rate.perMs % ms === 0;
  const [name, ms] = Object.entries(UNITS).find(fits) ?? ['ms', 1];
  const times = rate.perMs / ms;
  return `${Number(rate.count.toFixed(3))}/${times === 1 ? '' : times}${name}`;
}

/** Writes a duration for people, in its largest sensible unit, a second at least: `45 s`, `12 min`, `3.4 hours`, `6.9 days`. */
export function formatDuration(ms: number): string {
  if (ms < 90_000) return `${ms > 0 ? Math.max(1, Math.round(ms / 1000)) : 0} s`;
  if (ms < 5_400_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${(ms / 3_600_000).toFixed(1)} hours`;
  return `${(ms / 86_400_000).toFixed(1)} days`;
}
