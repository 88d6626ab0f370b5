import { Notifier, sleep } from '../shared/waiting.js';
import { rarePollDelayMs } from './webhooks.js';
import type { Callback, Webhooks } from './webhooks.js';

/** When to ask for a message: learned from how long the API has been taking. */
export interface PollSchedule {
  /**
   * @param waitedMs how long the message has been waited for
   * @param failures polls in a row that brought no valid answer
   * @returns milliseconds until the next poll
   */
  nextDelayMs(waitedMs: number, failures: number): number;
  /** Takes note of a completion: at most `seenMs` after its submit, and not before `seenMs - gapMs`. */
  completed(seenMs: number, gapMs: number): void;
  /**
   * What it has learned, for `createPollSchedule`: milliseconds, from the shortest to the longest; the same list as long
   * as nothing was completed, and an empty one while too little is known.
   */
  learned(): readonly number[];
}

/** How many of the newest completions count. */
const SAMPLES = 128;
/** When so many in a row are all faster, or all slower, than half of those before, the older ones are forgotten. */
const TREND = 16;
const SHORTEST_MS = 100;
const FIRST_MS = 200;
const LONGEST_MS = 30_000;
const GROWTH_UNKNOWN = 0.3;
const GROWTH_KNOWN = 0.1;
const GROWTH_TAIL = 0.4;
/** Share of the completions by which the later polls become rare. */
const TAIL = 0.88;
/** Before anything is known nobody waits longer than this for what others are still waiting for. */
const LONGEST_FOLLOWED_MS = 15_000;

/**
 * Before anything is known, polls come at growing intervals, so that their number grows with the logarithm
 * of the latency; those who were submitted later skip what the first ones have polled in vain. Once completions were
 * seen, the first poll waits until half of the newest ones would have been completed, and the later ones are a tenth
 * of the time waited apart, until few are left. So half of the images or more are noticed within a tenth of their
 * latency, with three polls each on average: more polls would be needed to be as early for the fast half as well,
 * which `npm run bench -- polls` compares.
 * @param learned by an earlier one
 */
export function createPollSchedule(learned: readonly number[] = []): PollSchedule {
  let samples = [...learned];
  let sorted: readonly number[] = [...learned].sort((a, b) => a - b);
  let unfinishedMs = 0;
  const share = (of: number) => sorted[Math.floor(sorted.length * of)] ?? 0;
  return {
    nextDelayMs(waitedMs, failures) {
      if (failures > 0) return Math.min(LONGEST_MS, 500 * 2 ** Math.min(failures, 10));
      if (sorted.length === 0) {
        unfinishedMs = Math.max(unfinishedMs, Math.min(LONGEST_FOLLOWED_MS, waitedMs));
        const grownMs = Math.min(LONGEST_MS, Math.max(FIRST_MS, waitedMs * GROWTH_UNKNOWN));
        return Math.max(grownMs, unfinishedMs - waitedMs);
      }
      const likelyMs = share(0.5);
      if (waitedMs < likelyMs) return Math.max(SHORTEST_MS, likelyMs - waitedMs);
      const growth = waitedMs < share(TAIL) ? GROWTH_KNOWN : GROWTH_TAIL;
      return Math.min(LONGEST_MS, Math.max(SHORTEST_MS, waitedMs * growth));
    },
    completed(seenMs, gapMs) {
      const halfMs = share(0.5);
      // One that was completed at its first poll tells little: taken by half, it would make all polls come early.
      samples.push(seenMs - Math.min(gapMs / 2, seenMs / 4));
      if (samples.length > SAMPLES) samples.shift();
      const newest = samples.slice(-TREND);
      const isTrend = Math.max(...newest) < halfMs || Math.min(...newest) > halfMs;
      if (newest.length === TREND && isTrend) samples = newest;
      sorted = [...samples].sort((a, b) => a - b);
    },
    learned: () => (sorted.length < TREND ? [] : sorted),
  };
}

/** Deliveries that lead to a poll of one message at most, and how long they go unheard after one that was wrong. */
const MOST_WAKES = 3;
const DEAF_MS = 1000;
const DEAF_GROWTH = 4;

export interface MessagePollsDeps {
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
export class MessagePolls {
  readonly #callback: Callback | undefined;
  readonly #endOfId: (() => void) | undefined;
  #wakes = 0;
  #deafUntil = -Infinity;
  #isWoken = false;
  #isRare = false;

  constructor(
    private readonly deps: MessagePollsDeps,
    callback: Callback | undefined,
    messageId: string,
  ) {
    this.#callback = callback;
    if (callback !== undefined) this.#endOfId = deps.webhooks?.alsoFor(callback.watch, messageId);
  }

  /** @returns milliseconds until the next poll by the clock */
  dueMs(waitedMs: number, failures: number): number {
    const { schedule, webhooks } = this.deps;
    this.#isRare = webhooks?.timing.areComing === true && failures === 0;
    if (!this.#isRare) return schedule.nextDelayMs(waitedMs, failures);
    return rarePollDelayMs(waitedMs, webhooks?.timing.slowMs);
  }

  /** Waits until it is due, or a delivery has come; false when the signal aborted first. */
  async come(dueMs: number, stopping: AbortSignal): Promise<boolean> {
    this.#isWoken = false;
    const watch = this.#callback?.watch;
    if (watch === undefined || this.#wakes >= MOST_WAKES) return sleep(dueMs, stopping);
    const dueAt = this.deps.now() + dueMs;
    const deafMs = Math.min(dueMs, this.#deafUntil - this.deps.now());
    if (deafMs > 0 && !(await sleep(deafMs, stopping))) return false;
    const leftMs = dueAt - this.deps.now();
    if (leftMs > 0) await sleep(leftMs, AbortSignal.any([stopping, watch.came]));
    if (stopping.aborted) return false;
    if (!watch.take()) return true;
    this.#isWoken = true;
    this.#deafUntil = this.deps.now() + DEAF_MS * DEAF_GROWTH ** this.#wakes;
    this.#wakes++;
    return true;
  }

  /**
   * The poll has found the message completed.
   * @param sinceSubmit false when nobody knows how long the submit is ago
   */
  completed(waitedMs: number, gapMs: number, sinceSubmit: boolean): void {
    const { schedule, webhooks } = this.deps;
    if (this.#isWoken) webhooks?.timing.came(sinceSubmit ? waitedMs : undefined);
    else if (sinceSubmit) webhooks?.timing.missed();
    if (sinceSubmit && (this.#isWoken || !this.#isRare))
      schedule.completed(waitedMs, this.#isWoken ? 0 : gapMs);
  }

  end(): void {
    this.#endOfId?.();
  }
}

const LOOK_EVERY_MS = 1000;

/**
 * Holds fresh submits back until every image that was taken up again with its message has been asked for once:
 * one that is completed by now makes room, and nothing is paid for before what is paid for already was looked at.
 */
export class FirstPolls {
  #pending = 0;
  readonly #changed = new Notifier();

  /** Announces a first poll. @returns its end, to be called once it was made or will not be */
  expect(): () => void {
    let isOver = false;
    this.#pending++;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#pending--;
      this.#changed.notify();
    };
  }

  /** Waits until none is pending; false when the signal aborted first. */
  async made(signal: AbortSignal): Promise<boolean> {
    while (this.#pending > 0 && !signal.aborted) {
      await this.#changed.waitFor(LOOK_EVERY_MS, signal);
    }
    return !signal.aborted;
  }
}
