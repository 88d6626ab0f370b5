import { sleep } from '../shared/sleep.js';
import { rarePollDelayMs } from './delivery-timing.js';
import type { PollSchedule } from './poll-schedule.js';
import type { Callback, Webhooks } from './webhook-tools.js';

/** Deliveries that lead to a poll of one message at most, and how long they go unheard after one that was wrong. */
const MOST_WAKES = 3;
const DEAF_MS = 1000;
const DEAF_GROWTH = 4;

export interface PollTurnTools {
  readonly schedule: PollSchedule;
  readonly webhooks?: Webhooks | undefined;
  now(): number;
}

/**
 * When it is one message's turn to be polled: by the clock, or with webhooks when its delivery has come; by the clock
 * only rarely then, unless deliveries do not come.
 *
 * A delivery proves nothing, it may be forged or doubled. Each leads to one poll at most; after one that led to
 * nothing the next is heard a second later, then four, and after the third no more: the clock is left.
 */
export class PollTurns {
  readonly #callback: Callback | undefined;
  readonly #endOfId: (() => void) | undefined;
  #wakes = 0;
  #deafUntil = -Infinity;
  #isWoken = false;
  #isRare = false;

  constructor(
    private readonly tools: PollTurnTools,
    callback: Callback | undefined,
    messageId: string,
  ) {
    this.#callback = callback;
    if (callback !== undefined) this.#endOfId = tools.webhooks?.alsoFor(callback.watch, messageId);
  }

  /** @returns milliseconds until the next poll by the clock */
  dueMs(waitedMs: number, failures: number): number {
    const { schedule, webhooks } = this.tools;
    this.#isRare = webhooks?.timing.areComing === true && failures === 0;
    if (!this.#isRare) return schedule.nextDelayMs(waitedMs, failures);
    return rarePollDelayMs(waitedMs, webhooks?.timing.slowMs);
  }

  /** Waits until it is due, or a delivery has come; false when the signal aborted first. */
  async come(dueMs: number, stopping: AbortSignal): Promise<boolean> {
    this.#isWoken = false;
    const watch = this.#callback?.watch;
    if (watch === undefined || this.#wakes >= MOST_WAKES) return sleep(dueMs, stopping);
    const dueAt = this.tools.now() + dueMs;
    const deafMs = Math.min(dueMs, this.#deafUntil - this.tools.now());
    if (deafMs > 0 && !(await sleep(deafMs, stopping))) return false;
    const leftMs = dueAt - this.tools.now();
    if (leftMs > 0) await sleep(leftMs, AbortSignal.any([stopping, watch.came]));
    if (stopping.aborted) return false;
    if (!watch.take()) return true;
    this.#isWoken = true;
    this.#deafUntil = this.tools.now() + DEAF_MS * DEAF_GROWTH ** this.#wakes;
    this.#wakes++;
    return true;
  }

  /**
   * The poll has found the message completed.
   * @param sinceSubmit false when nobody knows how long the submit is ago
   */
  completed(waitedMs: number, gapMs: number, sinceSubmit: boolean): void {
    const { schedule, webhooks } = this.tools;
    if (this.#isWoken) webhooks?.timing.came(sinceSubmit ? waitedMs : undefined);
    else if (sinceSubmit) webhooks?.timing.missed();
    if (sinceSubmit && (this.#isWoken || !this.#isRare))
      schedule.completed(waitedMs, this.#isWoken ? 0 : gapMs);
  }

  end(): void {
    this.#endOfId?.();
  }
}
