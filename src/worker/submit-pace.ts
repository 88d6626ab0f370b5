import pLimit from 'p-limit';
import type { Rate } from '../shared/durations.js';
import { intervalMs } from '../shared/limits.js';
import type { LateSlot, SlotPace, SlotWindow } from '../shared/queue/store.js';
import { sleep } from '../shared/sleep.js';
import { Lateness } from './lateness.js';
import type { OneSlot } from './slot-batch.js';
import { AHEAD_MS, mostLateMs, slotPace, toleratedMs } from './slot-pace.js';

export interface SubmitPaceTools {
  /** The account's rate at the moment. */
  rate(): Rate;
  /** Takes the account's next free slot over all its workers. */
  takeSlot(pace: SlotPace): Promise<OneSlot>;
  /** Tells all workers that a slot was used so much later than it was; nobody waits for that. */
  delaySlot(late: LateSlot, window: SlotWindow): void;
  /** Told when the first image begins to wait for a slot, and when none waits any more. */
  onWaiting(isWaiting: boolean): void;
}

/** The turn of one submit. */
export interface SubmitSlot {
  /** To be called when the submit goes out: it may wait for a connection. */
  readonly sent: () => void;
}

/**
 * Keeps an account's submits at their distance, over all its workers, and what any window of its rate's unit may hold.
 *
 * BullMQ's limiter alone cannot: its windows begin when somebody looks, so each look that comes late makes all
 * that follow later, and an image is activated some time before its submit is sent. So the limiter only decides
 * how many images are activated (a few more than the rate), and each submit then waits for its slot in the store.
 * Few slots are taken ahead, since a 429 can only push those that are free.
 */
export class SubmitPace {
  readonly #turns = pLimit(1);
  #waiting = 0;
  readonly #lateness = new Lateness();

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
      const pace = slotPace(rate);
      const { slot, dueAt, earliestAt } = await this.tools.takeSlot(pace);
      // Who asks first gets the next one; nobody is to be the first each time.
      const earlyMs = slot === undefined ? (pace.withinMs ?? 0) * (0.1 + 0.8 * Math.random()) : 0;
      if (!(await sleep(Math.max(0, dueAt - earlyMs - performance.now()), signal))) return undefined;
      // A process that was asleep so long, or a queue that was away, comes back into windows that others have used.
      const isGone = performance.now() - earliestAt > mostLateMs(rate);
      if (slot === undefined || isGone) continue;
      return { sent: () => this.#sent({ slot, lateMs: performance.now() - earliestAt }, rate, pace.window) };
    }
    return undefined;
  }

  #sent({ slot, lateMs }: LateSlot, rate: Rate, window: SlotWindow | undefined): void {
    const beyondMs = this.#lateness.beyondUsual(lateMs);
    if (window !== undefined && beyondMs > toleratedMs(rate)) {
      this.tools.delaySlot({ slot, lateMs: beyondMs }, window);
    }
  }
}
