/**
 * The learned rate: which share of the configured rate the API lets through at the moment.
 *
 * A 429 halves it at once; time alone brings it back, in small steps. Since the way back is a function of
 * time, nothing has to be written on it: all workers compute the same share from the one record of the
 * last fall.
 */
export interface LearnedRate {
  /** Share of the configured rate right after the last fall, in (0, 1]. */
  readonly share: number;
  /** When that was, and until when the queue was told to wait (epoch milliseconds). */
  readonly fellAt: number;
  readonly heldUntil: number;
  /** 429s since the last success that came without a `Retry-After`: the growing pause. */
  readonly streak: number;
}

export const FULL_RATE: LearnedRate = { share: 1, fellAt: 0, heldUntil: 0, streak: 0 };

const LOWEST_SHARE = 0.1;
const FALL_FACTOR = 0.5;
const STEP_SHARE = 0.05;
const STEP_MS = 2000;
/** Refusals that come this soon after a fall, or while the queue waits, were on their way when it happened. */
const SAME_STORM_MS = 1000;
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;

/** The share at `nowMs`: back to 1 within 38 s of the end of the pause, from wherever it fell to. */
export function shareAt(learned: LearnedRate, nowMs: number): number {
  const from = Math.max(learned.fellAt, learned.heldUntil);
  const steps = Math.max(0, Math.floor((nowMs - from) / STEP_MS));
  return Math.min(1, learned.share + steps * STEP_SHARE);
}

/**
 * What a 429 makes of the learned rate.
 * @param retryAfterMs the API's own word, when it gave one
 * @returns the new record and how long the whole queue waits
 */
export function fallAfter429(
  learned: LearnedRate,
  nowMs: number,
  retryAfterMs: number | undefined,
): { learned: LearnedRate; pauseMs: number } {
  const sameStorm = nowMs < Math.max(learned.fellAt + SAME_STORM_MS, learned.heldUntil) && learned.fellAt > 0;
  const streak = sameStorm ? learned.streak : learned.streak + 1;
  const grown = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (Math.max(1, streak) - 1));
  const pauseMs = retryAfterMs ?? Math.max(grown, sameStorm ? learned.heldUntil - nowMs : 0);
  const heldUntil = Math.max(learned.heldUntil, nowMs + pauseMs);
  if (sameStorm) return { learned: { ...learned, heldUntil }, pauseMs };
  const share = Math.max(LOWEST_SHARE, shareAt(learned, nowMs) * FALL_FACTOR);
  return { learned: { share, fellAt: nowMs, heldUntil, streak }, pauseMs };
}

/** What a success makes of it: the growing pause starts over. */
export function settleAfterSuccess(learned: LearnedRate): LearnedRate {
  return learned.streak === 0 ? learned : { ...learned, streak: 0 };
}
