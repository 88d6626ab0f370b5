import type { Rate } from '../shared/durations.js';
import { intervalMs } from '../shared/limits.js';
import type { SlotPace } from '../shared/queue/store.js';

/**
 * Distances are a hundredth longer than the rate says, or a little more. At its very pace a window of its unit would hold one call more
 * than it says whenever one is a little late and a later one is not, and an API that counts to the millisecond refuses.
 */
export const MARGIN = 1.01;
/** In a window of fewer calls than this, one more is more than a twentieth of them: it is made rarer. */
const FEW = 20;
const MARGIN_OF_FEW = 1.017;
/** Slots are taken so far ahead, so that a process that is kept waiting for its processor misses none. */
export const AHEAD_MS = 50;
/** A process that was kept waiting for no longer than this makes up for its slots. */
const CATCH_UP_MS = 500;
/** Of the longest windows a part is kept alone, with as many calls as its time allows. */
const LARGEST_WINDOW = 500;
/** Submits that are nearer than this are not counted in windows: no process is in time to so little. */
const SMALLEST_INTERVAL_MS = 1;

/** How an account's submits are spread at a rate. */
export function slotPace(rate: Rate): SlotPace {
  const { count: allowed, perMs } = overSecond(rate);
  const interval = intervalMs(rate);
  const count = Math.max(1, Math.min(LARGEST_WINDOW, Math.floor(allowed)));
  const margin = marginOf(allowed);
  // Half of the margin is for the way to the API, which differs.
  const ms = ((count * perMs) / allowed) * (1 + (margin - 1) / 2);
  return {
    intervalMs: interval * margin,
    window: interval < SMALLEST_INTERVAL_MS ? undefined : { count, ms, catchUpMs: CATCH_UP_MS },
    // Where slots are few, each waits until it is known how late the one before it was, and who has just had one does
    // not find the next one free before others can ask for it.
    withinMs: interval < AHEAD_MS ? undefined : Math.min(AHEAD_MS, interval / 2),
  };
}

/** How late a submit may be for its slot without the slots to come being told. */
export function toleratedMs(rate: Rate): number {
  const { count, perMs } = overSecond(rate);
  return (perMs * (marginOf(count) - 1)) / 4;
}

/** A submit that is later than this for its slot takes another one. */
export function mostLateMs(rate: Rate): number {
  return overSecond(rate).perMs / 2;
}

/** The same rate over a second at least: no process is in time to windows of milliseconds. */
function overSecond({ count, perMs }: Rate): Rate {
  const times = Math.max(1, Math.ceil(1000 / perMs));
  return { count: count * times, perMs: perMs * times };
}

function marginOf(count: number): number {
  return count < FEW ? MARGIN_OF_FEW : MARGIN;
}
