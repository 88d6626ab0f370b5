import type { Rate } from '../shared/durations.js';
import type { LimitView } from './dialects/simulated-dialect.js';
import type { SimulatorSettings } from './options.js';
import { SlidingWindow } from './sliding-window.js';
import { TimeHeap } from './time-heap.js';

/** Whole calls in a window: half a call a second is one in two. */
function wholeRate({ count, perMs }: Rate): Rate {
  return count < 1 ? { count: 1, perMs: perMs / count } : { count: Math.floor(count), perMs };
}

/** The account's limits as the service keeps them: submits in a sliding window, and images in progress. */
export class AccountLimits {
  private readonly submits = new SlidingWindow();
  private readonly ends = new TimeHeap();

  /** Images in progress. */
  inFlight(nowMs: number): number {
    this.ends.dropUntil(nowMs);
    return this.ends.size;
  }

  /**
   * Lets a submit through, or tells when to come back.
   * @returns undefined, or milliseconds until there is room
   */
  admit(settings: Pick<SimulatorSettings, 'rateLimit' | 'maxInFlight'>, nowMs: number): number | undefined {
    const { rateLimit, maxInFlight } = settings;
    if (maxInFlight !== null && this.inFlight(nowMs) >= maxInFlight)
      return (this.ends.earliest ?? nowMs) - nowMs;
    if (rateLimit === null) return undefined;
    const { count, perMs } = wholeRate(rateLimit);
    const inWindow = this.submits.count(nowMs, perMs);
    if (inWindow >= count) return (this.submits.at(inWindow - count) ?? nowMs) + perMs - nowMs;
    this.submits.add(nowMs);
    return undefined;
  }

  /**
   * What is left of the rate limit, and when there is room again; undefined without a limit.
   * @returns `waitMs`: milliseconds until the next submit fits, 0 while there is room
   */
  left({ rateLimit }: Pick<SimulatorSettings, 'rateLimit'>, nowMs: number): LimitView | undefined {
    if (rateLimit === null) return undefined;
    const { count, perMs } = wholeRate(rateLimit);
    const inWindow = this.submits.count(nowMs, perMs);
    const remaining = Math.max(0, count - inWindow);
    const freeAt = remaining > 0 ? nowMs : (this.submits.at(inWindow - count) ?? nowMs) + perMs;
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
  form: SimulatorSettings['retryAfter'],
  nowMs: number,
): string | undefined {
  if (form === 'none') return undefined;
  if (form === 'date') return new Date(Math.ceil((nowMs + waitMs) / 1000) * 1000).toUTCString();
  return String(Math.max(1, Math.ceil(waitMs / 1000)));
}
