import type { CompleteOptions } from './options.js';

/** What is left of a rate limit, and for how many milliseconds nothing is; 0 while something is left. */
export interface LimitView {
  readonly remaining: number;
  readonly waitMs: number;
}

/** The account's limits as the service keeps them: submits in a sliding window, and images in progress. */
export class AccountLimits {
  /** When the submits of the last window were let through, oldest first. */
  private submits: number[] = [];
  /** When the images in progress will end. */
  private ends: number[] = [];

  /** Images in progress. */
  inFlight(nowMs: number): number {
    this.ends = this.ends.filter((end) => end > nowMs);
    return this.ends.length;
  }

  /**
   * Lets a submit through, or says when to come back.
   * @returns undefined, or milliseconds until there is room
   */
  admit(settings: Pick<CompleteOptions, 'rateLimit' | 'maxInFlight'>, nowMs: number): number | undefined {
    const { rateLimit, maxInFlight } = settings;
    if (maxInFlight !== null && this.inFlight(nowMs) >= maxInFlight) return Math.min(...this.ends) - nowMs;
    const left = this.left(rateLimit, nowMs);
    if (left === undefined) return undefined;
    if (left.remaining === 0) return left.waitMs;
    this.submits.push(nowMs);
    return undefined;
  }

  /** What is left of the rate limit; undefined without one. */
  left(rateLimit: CompleteOptions['rateLimit'], nowMs: number): LimitView | undefined {
    if (rateLimit === null) return undefined;
    // Whole submits in a window: half a submit a second is one in two.
    const count = Math.max(1, Math.floor(rateLimit.count));
    const perMs = rateLimit.perMs * Math.max(1, 1 / rateLimit.count);
    while (this.submits[0] !== undefined && this.submits[0] <= nowMs - perMs) this.submits.shift();
    const remaining = Math.max(0, count - this.submits.length);
    const freeAt = remaining > 0 ? nowMs : (this.submits.at(-count) ?? nowMs) + perMs;
    return { remaining, waitMs: freeAt - nowMs };
  }

  /** An accepted submit is in progress until then. */
  occupy(untilMs: number): void {
    this.ends.push(untilMs);
  }
}

/** `Retry-After` for a wait, in the form asked for; undefined for none. Both forms know whole seconds only. */
export function formatRetryAfter(
  waitMs: number,
  form: CompleteOptions['retryAfter'],
  nowMs: number,
): string | undefined {
  if (form === 'none') return undefined;
  if (form === 'date') return new Date(Math.ceil((nowMs + waitMs) / 1000) * 1000).toUTCString();
  return String(Math.max(1, Math.ceil(waitMs / 1000)));
}
