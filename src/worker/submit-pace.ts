import pLimit from 'p-limit';
import type { Rate } from '../shared/durations.js';
import { intervalMs } from '../shared/limits.js';
import { sleep } from '../shared/sleep.js';
import { Lateness } from './lateness.js';

export interface SubmitPaceTools {
  /** The account's rate at the moment. */
  rate(): Rate;
  /** Reserves the account's next free slot over all its workers. @returns in how many milliseconds it is */
  reserve(intervalMs: number): Promise<number>;
  /** Makes all slots that are still free so many milliseconds later; nobody waits for that. */
  shift(ms: number): void;
  /** Told when the first image begins to wait for a slot, and when none waits any more. */
  onWaiting(isWaiting: boolean): void;
}

/** The turn of one submit. */
export interface SubmitSlot {
  /** To be called when the submit goes out: it may wait for a connection. */
  readonly sent: () => void;
}

/** Slots are reserved so far ahead, so that a process that is kept waiting for its processor misses none. */
const AHEAD_MS = 50;
/**
 * Distances are a hundredth longer than the rate says. At its very pace a window of its unit would hold one submit more
 * than it says whenever one is a little late and a later one is not, and an API that counts to the millisecond refuses.
 */
const MARGIN = 1.01;
/** A submit may be so late for its slot; later it would come together with those that are in time. */
const LATE_MS = 50;

/**
 * Keeps an account's submits at their distance, over all its workers.
 *
 * BullMQ's limiter alone cannot: its windows begin when somebody looks, so each look that comes late makes all
 * that follow later, and an image is activated some time before its submit is sent. So the limiter only decides
 * how many images are activated (a few more than the rate), and each submit then waits for its slot in the store.
 * Few slots are reserved at a time, since a 429 can only push those that are free.
 */
export class SubmitPace {
  readonly #turns = pLimit(1);
  #waiting = 0;
  readonly #lateness = new Lateness(MARGIN - 1);

  constructor(private readonly tools: SubmitPaceTools) {}

  get isWaiting(): boolean {
    return this.#waiting > 0;
  }

  /** Waits for a slot; undefined when the signal cut it short. */
  async take(signal: AbortSignal): Promise<SubmitSlot | undefined> {
    if (this.#waiting++ === 0) this.tools.onWaiting(true);
    try {
      this.#turns.concurrency = Math.max(1, Math.ceil(AHEAD_MS / intervalMs(this.tools.rate())));
      return await this.#turns(() => this.#takeSlot(signal));
    } finally {
      if (--this.#waiting === 0) this.tools.onWaiting(false);
    }
  }

  async #takeSlot(signal: AbortSignal): Promise<SubmitSlot | undefined> {
    while (!signal.aborted) {
      const rate = this.tools.rate();
      const distanceMs = intervalMs(rate) * MARGIN;
      const waitMs = await this.tools.reserve(distanceMs);
      const dueAt = performance.now() + waitMs;
      if (!(await sleep(waitMs, signal))) return undefined;
      if (performance.now() - dueAt > mostLateMs(rate)) continue;
      return { sent: () => this.#sent(performance.now() - dueAt, rate) };
    }
    return undefined;
  }

  #sent(lateMs: number, rate: Rate): void {
    const tooLateMs = this.#lateness.tooLateMs(lateMs, rate);
    // Whatever a submit had to wait for behind its slot (a connection, seconds long), the others do not wait as long each.
    if (tooLateMs > 0) this.tools.shift(Math.min(tooLateMs, mostLateMs(rate)));
  }
}

function mostLateMs(rate: Rate): number {
  return Math.max(LATE_MS, intervalMs(rate) / 10);
}
