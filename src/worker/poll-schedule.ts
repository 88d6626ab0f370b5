import { z } from 'zod';
import { parseJson } from '../shared/parse-json.js';
import type { SharedStore } from '../shared/queue/store.js';

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
const SLOW = 0.9;

const latenciesSchema = z.array(z.number().positive()).max(1000);

/**
 * When to ask for a message: learned from how long the API has been taking.
 *
 * Before anything is known, polls come at growing intervals, so that their number grows with the logarithm
 * of the latency; those who were submitted later skip what the first ones have polled in vain. Once completions were
 * seen, the first poll waits until half of the newest ones would have been completed, and the later ones are a tenth
 * of the time waited apart, until few are left. So half of the images or more are noticed within a tenth of their
 * latency, with three polls each on average: more polls would be needed to be as early for the fast half as well,
 * which `npm run bench -- polls` compares.
 */
export class PollSchedule {
  #samples: readonly number[];
  #sorted: readonly number[];
  #unfinishedMs = 0;

  constructor(private saved: readonly number[] = []) {
    this.#samples = saved;
    this.#sorted = saved;
  }

  /** Opens what is kept beside the account's queue, so that no worker polls its first images in the dark. */
  static async open(store: SharedStore, queueName: string): Promise<PollSchedule> {
    const { ms = '' } = await store.getFields(recordOf(queueName));
    return new PollSchedule(latenciesSchema.safeParse(parseJson(ms)).data);
  }

  /** Keeps what was learned, once that is enough to tell. */
  async save(store: SharedStore, queueName: string): Promise<void> {
    const learned = this.#sorted;
    if (learned.length < TREND || learned === this.saved) return;
    await store.setFields(recordOf(queueName), { ms: JSON.stringify(learned) });
    this.saved = learned;
  }

  /** Milliseconds within which nine in ten describes have been completed; undefined when none was seen. */
  get slowMs(): number | undefined {
    return this.#sorted[Math.floor((this.#sorted.length - 1) * SLOW)];
  }

  /**
   * @param waitedMs how long the message has been waited for
   * @param failures polls in a row that brought no valid answer
   * @returns milliseconds until the next poll
   */
  nextDelayMs(waitedMs: number, failures: number): number {
    if (failures > 0) return Math.min(LONGEST_MS, 500 * 2 ** Math.min(failures, 10));
    if (this.#sorted.length === 0) {
      this.#unfinishedMs = Math.max(this.#unfinishedMs, Math.min(LONGEST_FOLLOWED_MS, waitedMs));
      const grownMs = Math.min(LONGEST_MS, Math.max(FIRST_MS, waitedMs * GROWTH_UNKNOWN));
      return Math.max(grownMs, this.#unfinishedMs - waitedMs);
    }
    const likelyMs = this.#share(0.5);
    if (waitedMs < likelyMs) return Math.max(SHORTEST_MS, likelyMs - waitedMs);
    const growth = waitedMs < this.#share(TAIL) ? GROWTH_KNOWN : GROWTH_TAIL;
    return Math.min(LONGEST_MS, Math.max(SHORTEST_MS, waitedMs * growth));
  }

  /** Takes note of a completion: at most `seenMs` after its submit, and not before `seenMs - gapMs`. */
  completed(seenMs: number, gapMs: number): void {
    const halfMs = this.#share(0.5);
    // One that was completed at its first poll tells little: taken by half, it would make all polls come early.
    const sample = seenMs - Math.min(gapMs / 2, seenMs / 4);
    const samples = [...this.#samples, sample].slice(-SAMPLES);
    const newest = samples.slice(-TREND);
    const isTrend = Math.max(...newest) < halfMs || Math.min(...newest) > halfMs;
    this.#samples = newest.length === TREND && isTrend ? newest : samples;
    this.#sorted = [...this.#samples].sort((a, b) => a - b);
  }

  #share(of: number): number {
    return this.#sorted[Math.floor(this.#sorted.length * of)] ?? 0;
  }
}

function recordOf(queueName: string): string {
  return `latencies:${queueName}`;
}
