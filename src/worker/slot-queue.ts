import { sleep } from '../shared/sleep.js';

export interface SlotQueueTools {
  /** Milliseconds between two slots of the account at the moment. */
  intervalMs(): number;
  /** Reserves so many of the account's slots, one after the other. @returns in how many milliseconds the first is */
  reserve(intervalMs: number, count: number): Promise<number>;
}

interface Waiter {
  resolve: (hasSlot: boolean) => void;
}

/**
 * Slots are reserved at most so far ahead. Each image reserving its own would reserve minutes ahead when thousands
 * are in flight; those slots would be lost with a worker that stops, and everybody else would wait for nobody.
 */
const AHEAD_MS = 500;

/**
 * The images of a worker that wait for slots of a rate which all workers of the account share: first come, first
 * served, so that none starves. Slots are reserved for many at a time, which makes them cheap, and one whose image
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
   * @throws what `reserve` throws
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
      // Images of the same turn of the event loop share the first reservation.
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
    const firstMs = await this.tools.reserve(intervalMs, count);
    const firstAt = performance.now() + firstMs;
    for (let slot = 0; slot < count; slot++) {
      const leftMs = firstAt + slot * intervalMs - performance.now();
      if (leftMs > 0 && !(await sleep(leftMs, unneeded))) return;
      const [first] = this.#waiting;
      if (first === undefined) return;
      this.#waiting.delete(first);
      first.resolve(true);
    }
  }
}
