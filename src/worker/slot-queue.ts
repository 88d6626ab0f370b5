import { sleep } from '../shared/sleep.js';

export interface SlotQueueTools {
  /** Milliseconds between two slots of the account at the moment. */
  intervalMs(): number;
  /** Takes so many of the account's slots, one after the other. @returns in how many milliseconds each is */
  takeSlots(intervalMs: number, count: number): Promise<readonly number[]>;
}

interface Waiter {
  resolve: (hasSlot: boolean) => void;
}

/**
 * Slots are taken at most so far ahead. Each image taking its own would take them minutes ahead when thousands
 * are in flight; those slots would be lost with a worker that stops, and everybody else would wait for nobody.
 */
const AHEAD_MS = 500;

/**
 * The images of a worker that wait for slots of a rate which all workers of the account share: first come, first
 * served, so that none starves. Slots are taken for many at a time, which makes them cheap, and one whose image
 * does not need it any more is the next one's.
 */
export class SlotQueue {
  readonly #waiting = new Set<Waiter>();
  #isServing = false;
  /** Aborts when nobody waits any more. */
  #needed = new AbortController();
  #failure: { error: unknown } | undefined;

  constructor(private readonly tools: SlotQueueTools) {}

  /**
   * Waits for a slot.
   * @returns false when the signal cut it short
   * @throws what `takeSlots` throws
   */
  async take(signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) return false;
    const waiter: Waiter = { resolve: () => undefined };
    const leave = () => this.#leave(waiter);
    signal.addEventListener('abort', leave, { once: true });
    const hasSlot = await new Promise<boolean>((resolve) => {
      waiter.resolve = resolve;
      this.#waiting.add(waiter);
      if (!this.#isServing) void this.#serve();
    });
    signal.removeEventListener('abort', leave);
    if (!hasSlot && this.#failure !== undefined) throw this.#failure.error;
    return hasSlot;
  }

  #leave(waiter: Waiter): void {
    this.#waiting.delete(waiter);
    waiter.resolve(false);
    // Nobody is left to wait for a slot that may be minutes away.
    if (this.#waiting.size === 0) this.#needed.abort();
  }

  async #serve(): Promise<void> {
    this.#isServing = true;
    this.#failure = undefined;
    try {
      // Images of the same turn of the event loop share the first slots.
      await Promise.resolve();
      while (this.#waiting.size > 0) {
        this.#needed = new AbortController();
        await this.#serveSome(this.#needed.signal);
      }
    } catch (error) {
      this.#failure = { error };
      for (const waiter of this.#waiting) waiter.resolve(false);
      this.#waiting.clear();
    }
    this.#isServing = false;
  }

  async #serveSome(unneeded: AbortSignal): Promise<void> {
    const intervalMs = this.tools.intervalMs();
    const count = Math.min(this.#waiting.size, Math.max(1, Math.floor(AHEAD_MS / intervalMs)));
    const waits = await this.tools.takeSlots(intervalMs, count);
    const givenAt = performance.now();
    for (const waitMs of waits) {
      const leftMs = givenAt + waitMs - performance.now();
      if (leftMs > 0 && !(await sleep(leftMs, unneeded))) return;
      const [first] = this.#waiting;
      if (first === undefined) return;
      this.#waiting.delete(first);
      first.resolve(true);
    }
  }
}
