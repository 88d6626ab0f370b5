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
}

const SAMPLES = 64;
const SHORTEST_MS = 100;
const FIRST_MS = 200;
const LONGEST_MS = 30_000;
const GROWTH_UNKNOWN = 0.3;
const GROWTH_KNOWN = 0.1;

/**
 * Before anything is known, polls come at growing intervals, so that their number grows with the logarithm
 * of the latency. Once completions were seen, the first poll waits until one in ten of the newest ones
 * would have been completed, and the later ones are a tenth of the time waited apart.
 */
export function createPollSchedule(): PollSchedule {
  const samples: number[] = [];
  let next = 0;
  let likelyMs: number | undefined;
  return {
    nextDelayMs(waitedMs, failures) {
      if (failures > 0) return Math.min(LONGEST_MS, 500 * 2 ** Math.min(failures, 10));
      if (likelyMs === undefined) {
        return Math.min(LONGEST_MS, Math.max(FIRST_MS, waitedMs * GROWTH_UNKNOWN));
      }
      if (waitedMs < likelyMs) return Math.max(SHORTEST_MS, likelyMs - waitedMs);
      return Math.min(LONGEST_MS, Math.max(SHORTEST_MS, waitedMs * GROWTH_KNOWN));
    },
    completed(seenMs, gapMs) {
      // One that was completed at its first poll tells little: taken by half, it would make all polls come early.
      samples[next] = seenMs - Math.min(gapMs / 2, seenMs / 4);
      next = (next + 1) % SAMPLES;
      const sorted = [...samples].sort((a, b) => a - b);
      likelyMs = sorted[Math.floor(sorted.length / 10)];
    },
  };
}
