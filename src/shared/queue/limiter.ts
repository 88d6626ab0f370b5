import { type Rate, intervalMs } from '../limits.js';
import { sleep } from '../waiting.js';
import type { SharedStore } from './store.js';

/**
 * One limiter for each account and kind of call, shared by all workers: GCRA. Its state is one time (`tat`): when the next
 * permit is due. Each permit moves it on by the interval. A limiter that nobody asks falls behind by the catch-up at most:
 * how late a busy process may ask without losing permits, and all that a burst can be.
 *
 * Permits are given `AHEAD_MS` before they are due and not earlier: those of a worker that stops are lost, and a hold
 * cannot reach them.
 */
export interface PermitRequest {
  readonly intervalMs: number;
  readonly catchUpMs: number;
  /** How many permits are wanted. */
  readonly count: number;
}

export interface Permits {
  /** In how many milliseconds each is due. */
  readonly dueInMs: readonly number[];
  /** In how many the next one is. */
  readonly nextInMs: number;
}

export const AHEAD_MS = 15;

const CATCH_UP_MS = 40;

/** Distances are a little longer than the rate says: calls do not all take equally long to reach the API. */
const MARGIN = 1.015;
const MOST_AT_ONCE = 1000;

/**
 * What a limiter is asked for at a rate. Where calls are few, one more in a window counts for more, so less is caught up: at
 * most half of what the margin leaves free in a second.
 */
export function permitsAt(rate: Rate, count: number): PermitRequest {
  const distanceMs = intervalMs(rate) * MARGIN;
  return { intervalMs: distanceMs, catchUpMs: Math.min(CATCH_UP_MS, 500 / distanceMs), count };
}

/** The limiter's arithmetic within one process; the Redis script `takePermits` is the same. Times are of a monotonic clock. */
export class LocalLimiter {
  #tat = -Infinity;
  #heldUntil = -Infinity;

  take({ intervalMs, catchUpMs, count }: PermitRequest, now: number): Permits {
    // Too far ahead to be true: the rate was lower before.
    if (this.#tat > now + AHEAD_MS + 2 * intervalMs) this.#tat = now;
    let tat = Math.max(this.#tat, now - catchUpMs);
    if (this.#heldUntil > now) tat = Math.max(tat, this.#heldUntil);
    const dueInMs: number[] = [];
    while (dueInMs.length < count && tat - now <= AHEAD_MS) {
      dueInMs.push(Math.max(0, tat - now));
      tat += intervalMs;
    }
    if (dueInMs.length > 0) this.#tat = tat;
    return { dueInMs, nextInMs: Math.max(0, tat - now) };
  }

  /** @returns how long the hold lasts, which an earlier call may have made longer */
  hold(ms: number, now: number): number {
    this.#heldUntil = Math.max(this.#heldUntil, now + ms);
    return Math.max(0, this.#heldUntil - now);
  }
}

/** The store's name for the limiter of a queue's calls. */
export function limiterName(call: 'submit' | 'poll', queueName: string): string {
  return `${call}:${queueName}`;
}

interface Waiter {
  readonly resolve: (hasPermit: boolean) => void;
  readonly reject: (error: unknown) => void;
  /** Called once, when there is no permit for it yet. */
  wait: (() => void) | undefined;
}

/** A worker's calls that wait for permits of a limiter: first come, first served, many permits a round trip. */
export class RateLimiter {
  readonly #waiting = new Set<Waiter>();
  #isServing = false;
  /** The permits have run out: whoever asks now has to wait. */
  #isDry = false;
  /** Aborts when nobody waits any more. */
  #needed = new AbortController();

  constructor(
    private readonly options: {
      /** The rate at the moment. */
      readonly rate: () => Rate;
      /** See `SharedStore.takePermits`; it may wait for a queue that is away. */
      readonly take: (request: PermitRequest) => Promise<Permits>;
    },
  ) {}

  get waiting(): number {
    return this.#waiting.size;
  }

  /**
   * Waits for a permit.
   * @param onWait done when it cannot be had at once, and awaited as well as the permit
   * @returns false when the signal cut it short
   * @throws what `take` or `onWait` throws
   */
  async take(signal: AbortSignal, onWait?: () => Promise<void>): Promise<boolean> {
    if (signal.aborted) return false;
    let leave: () => void = () => undefined;
    let waited: Promise<void> | undefined;
    try {
      return await new Promise<boolean>((resolve, reject) => {
        const wait = () => {
          waiter.wait = undefined;
          waited = onWait?.();
          waited?.catch(leave);
        };
        const waiter: Waiter = { resolve, reject, wait };
        leave = () => this.#leave(waiter);
        signal.addEventListener('abort', leave, { once: true });
        this.#waiting.add(waiter);
        if (this.#isDry) wait();
        if (!this.#isServing) void this.#serve();
      });
    } finally {
      signal.removeEventListener('abort', leave);
      await waited;
    }
  }

  #leave(waiter: Waiter): void {
    this.#waiting.delete(waiter);
    waiter.resolve(false);
    if (this.#waiting.size === 0) this.#needed.abort();
  }

  async #serve(): Promise<void> {
    this.#isServing = true;
    try {
      // Images of the same turn of the event loop share the first permits.
      await Promise.resolve();
      while (this.#waiting.size > 0) {
        this.#needed = new AbortController();
        await this.#serveSome(this.#needed.signal);
      }
    } catch (error) {
      for (const waiter of this.#waiting) waiter.reject(error);
      this.#waiting.clear();
    }
    this.#isServing = false;
    this.#isDry = false;
  }

  async #serveSome(unneeded: AbortSignal): Promise<void> {
    const { rate, take } = this.options;
    const count = Math.min(this.#waiting.size, MOST_AT_ONCE);
    const permits = await take(permitsAt(rate(), count));
    const answeredAt = performance.now();
    this.#isDry = permits.dueInMs.length < count;
    if (this.#isDry) for (const { wait } of [...this.#waiting].slice(permits.dueInMs.length)) wait?.();
    const waitUntil = (dueInMs: number) => {
      const leftMs = answeredAt + dueInMs - performance.now();
      return leftMs <= 0 || sleep(leftMs, unneeded);
    };
    for (const dueInMs of permits.dueInMs) {
      if (!(await waitUntil(dueInMs))) return;
      const [first] = this.#waiting;
      if (first === undefined) return;
      this.#waiting.delete(first);
      first.resolve(true);
    }
    if (permits.dueInMs.length === count) return;
    // Whoever asks first gets the next one: at random, so that no worker is the first each time.
    await waitUntil(permits.nextInMs - AHEAD_MS * (0.5 + 0.5 * Math.random()));
  }
}

/**
 * Makes a whole queue wait: no worker takes a job of it, and no permits for submits are given. A longer hold that is
 * under way is never shortened, whoever asks.
 *
 * BullMQ's own wait is the last one that was asked for, also when it is shorter. So the hold is put into the store first,
 * where it only grows, and looked up again after BullMQ has it: the last caller has seen the longest.
 */
export async function holdQueue(
  queue: { readonly name: string; rateLimit(ms: number): Promise<void> },
  store: Pick<SharedStore, 'holdPermits'>,
  ms: number,
): Promise<void> {
  const name = limiterName('submit', queue.name);
  let heldMs = Math.ceil(await store.holdPermits(name, Math.max(1, ms)));
  for (;;) {
    await queue.rateLimit(heldMs);
    const leftMs = Math.ceil(await store.holdPermits(name, 0));
    if (leftMs <= heldMs) return;
    heldMs = leftMs;
  }
}
