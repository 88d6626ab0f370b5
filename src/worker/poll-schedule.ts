import { z } from 'zod';
import { parseJson } from '../shared/parse-json.js';
import type { SharedStore } from '../shared/queue/store.js';

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

const REMEMBER_EVERY_MS = 10_000;
const latenciesSchema = z.array(z.number().positive()).max(1000);

/**
 * A poll schedule that outlives its worker: how long an account's describes have been taking is kept beside its queue, so
 * that the next worker does not poll a whole night's first images in the dark.
 */
export class RememberedSchedule {
  #rememberedAt = performance.now();

  private constructor(
    private readonly store: SharedStore,
    private readonly record: string,
    readonly schedule: PollSchedule,
    private remembered: readonly number[],
  ) {}

  static async open(store: SharedStore, queueName: string): Promise<RememberedSchedule> {
    const record = `latencies:${queueName}`;
    const { ms = '' } = await store.getFields(record);
    const learned = latenciesSchema.safeParse(parseJson(ms)).data ?? [];
    return new RememberedSchedule(store, record, createPollSchedule(learned), learned);
  }

  /** To be called each second or so. */
  async remember(): Promise<void> {
    if (performance.now() - this.#rememberedAt < REMEMBER_EVERY_MS) return;
    this.#rememberedAt = performance.now();
    await this.save();
  }

  /** Remembers what was learned until now; called once more when the worker stops. */
  async save(): Promise<void> {
    const learned = this.schedule.learned();
    if (learned.length === 0 || learned === this.remembered) return;
    await this.store.setFields(this.record, { ms: JSON.stringify(learned) });
    this.remembered = learned;
  }
}
