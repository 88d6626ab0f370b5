import pLimit from 'p-limit';
import { sleep } from '../shared/sleep.js';

export interface SubmitPaceTools {
  /** Milliseconds between two submits of the account at the moment. */
  intervalMs(): number;
  /** Reserves the account's next free slot over all its workers. @returns in how many milliseconds it is */
  reserve(intervalMs: number): Promise<number>;
  /** Told when the first image begins to wait for a slot, and when none waits any more. */
  onWaiting(isWaiting: boolean): void;
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

  constructor(private readonly tools: SubmitPaceTools) {}

  get isWaiting(): boolean {
    return this.#waiting > 0;
  }

  /** Waits for a slot; false when the signal cut it short. */
  async take(signal: AbortSignal): Promise<boolean> {
    if (this.#waiting++ === 0) this.tools.onWaiting(true);
    try {
      this.#turns.concurrency = Math.max(1, Math.ceil(AHEAD_MS / this.tools.intervalMs()));
      return await this.#turns(() => this.#takeSlot(signal));
    } finally {
      if (--this.#waiting === 0) this.tools.onWaiting(false);
    }
  }

  async #takeSlot(signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted) {
      const intervalMs = this.tools.intervalMs();
      const waitMs = await this.tools.reserve(intervalMs * MARGIN);
      const dueAt = performance.now() + waitMs;
      if (!(await sleep(waitMs, signal))) return false;
      if (performance.now() - dueAt <= Math.max(LATE_MS, intervalMs / 10)) return true;
    }
    return false;
  }
}
