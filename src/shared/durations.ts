import { UsageError } from './errors.js';

const UNIT_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  min: 60_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** A rate: at most `count` calls in `perMs` milliseconds. */
export interface Rate {
  readonly count: number;
  readonly perMs: number;
}

function unitMs(unit: string): number | undefined {
  return Object.hasOwn(UNIT_MS, unit) ? UNIT_MS[unit] : undefined;
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
  const ms = Number(match?.[1]) * (unitMs(match?.[2] ?? '') ?? NaN);
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
  const perMs = Number(match?.[2] ?? 1) * (unitMs(match?.[3] ?? '') ?? NaN);
  if (!isRate({ count, perMs })) {
    throw new UsageError(`${name} ${text}: expected a rate such as 20/min, 1/3s or 10/s`);
  }
  return { count, perMs };
}

/** Calls per second. */
export function perSecond(rate: Rate): number {
  return (rate.count / rate.perMs) * 1000;
}

/** Writes a rate the way a flag takes it: `20/min`, `1/3s`. */
export function formatRate(rate: Rate): string {
  const unit = Object.entries({ d: 86_400_000, h: 3_600_000, min: 60_000, s: 1000, ms: 1 }).find(
    ([, ms]) => rate.perMs >= ms && rate.perMs % ms === 0,
  );
  const [name, ms] = unit ?? ['ms', 1];
  const times = rate.perMs / ms;
  return `${Number(rate.count.toFixed(3))}/${times === 1 ? '' : times}${name}`;
}

/** Writes a duration for people, in its largest sensible unit: `45 s`, `12 min`, `3.4 hours`, `6.9 days`. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 90_000) return `${Math.round(ms / 1000)} s`;
  if (ms < 5_400_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${(ms / 3_600_000).toFixed(1)} hours`;
  return `${(ms / 86_400_000).toFixed(1)} days`;
}
