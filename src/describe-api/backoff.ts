const BASE_MS = 1000;
const FACTOR = 2;
const LONGEST_MS = 60_000;

/**
 * How long to wait after a failed try: exponential, 1 s doubled each time up to 60 s, of which between half
 * and all is taken, so that many workers do not come back at once.
 * @param attempt the try that failed, from 1
 * @param random in [0, 1)
 */
export function backoffMs(attempt: number, random: number): number {
  const full = Math.min(LONGEST_MS, BASE_MS * FACTOR ** (Math.max(1, attempt) - 1));
  return Math.round(full / 2 + (full / 2) * random);
}
