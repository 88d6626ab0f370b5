import { seededRandom } from '../../src/simulator/messages.js';
import type { PollSchedule } from '../../src/worker/poll-schedule.js';

/** What became of the images of a simulation. */
export interface VirtualResult {
  readonly pollsPerImage: number;
  /** How late completions were noticed, as shares of their latencies. */
  readonly lateShares: readonly number[];
  /** Most polls in any sliding second. */
  readonly mostPollsInASecond: number;
  /** The longest that an image waited between a poll being due and being made, in ms. */
  readonly longestWaitMs: number;
}

export interface VirtualLoad {
  /** So many images come first and are not counted, but for the poll rate: the schedule learns from them. */
  readonly learning?: number;
  readonly images: number;
  readonly inFlight: number;
  /** Submits and polls a second. */
  readonly rate: number;
  readonly pollRate: number;
  readonly medianMs: number;
  readonly spread: number;
  readonly seed: number;
}

interface Waiting {
  readonly submittedAt: number;
  readonly latencyMs: number;
  readonly counts: boolean;
  dueAt: number;
  lastPollAt: number;
}

/** A lognormal latency between 10 and 60 s, drawn again until it is. */
function latencyOf(load: VirtualLoad, random: () => number): number {
  for (;;) {
    const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    const ms = load.medianMs * Math.exp(load.spread * normal);
    if (ms >= 10_000 && ms <= 60_000) return ms;
  }
}

/** Plays a schedule in virtual time: polls take no time, and wait in the order in which they are due. */
export function playSchedule(schedule: PollSchedule, load: VirtualLoad): VirtualResult {
  const random = seededRandom(load.seed);
  const waiting: Waiting[] = [];
  const { learning = 0 } = load;
  const polls: number[] = [];
  let counted = 0;
  let done = 0;
  const lateShares: number[] = [];
  let longestWaitMs = 0;
  let submitted = 0;
  let nextSubmitAt = 0;
  let pollFreeAt = 0;
  while (done < learning + load.images) {
    const first = waiting.reduce<Waiting | undefined>(
      (best, one) => (best && best.dueAt <= one.dueAt ? best : one),
      undefined,
    );
    const pollAt = first === undefined ? Infinity : Math.max(first.dueAt, pollFreeAt);
    if (submitted < learning + load.images && waiting.length < load.inFlight && nextSubmitAt <= pollAt) {
      const now = nextSubmitAt;
      const delay = schedule.nextDelayMs(0, 0);
      waiting.push({
        submittedAt: now,
        latencyMs: latencyOf(load, random),
        dueAt: now + delay,
        lastPollAt: now,
        counts: submitted >= learning,
      });
      submitted++;
      nextSubmitAt = now + 1000 / load.rate;
      continue;
    }
    if (first === undefined) break;
    polls.push(pollAt);
    if (first.counts) counted++;
    pollFreeAt = pollAt + 1000 / load.pollRate;
    // A place that becomes free lets the next submit go out now.
    nextSubmitAt = Math.max(nextSubmitAt, waiting.length === load.inFlight ? pollAt : 0);
    longestWaitMs = Math.max(longestWaitMs, pollAt - first.dueAt);
    const waitedMs = pollAt - first.submittedAt;
    if (waitedMs >= first.latencyMs) {
      schedule.completed(waitedMs, pollAt - first.lastPollAt);
      done++;
      if (first.counts) lateShares.push((waitedMs - first.latencyMs) / first.latencyMs);
      waiting.splice(waiting.indexOf(first), 1);
    } else {
      first.lastPollAt = pollAt;
      first.dueAt = pollAt + schedule.nextDelayMs(waitedMs, 0);
    }
  }
  return {
    pollsPerImage: counted / load.images,
    lateShares,
    mostPollsInASecond: mostWithin(polls, 1000),
    longestWaitMs,
  };
}

/** Most of the sorted times within any `ms` milliseconds, the end not included. */
function mostWithin(times: readonly number[], ms: number): number {
  let most = 0;
  let from = 0;
  for (const [to, time] of times.entries()) {
    while (time - (times[from] ?? time) >= ms - 1e-6) from++;
    most = Math.max(most, to - from + 1);
  }
  return most;
}
