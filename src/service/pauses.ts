import type { WorkerStatus } from '../shared/published.js';

/** Why nothing is submitted for an account at the moment. */
export interface Pause {
  /** token, quota, down: of all workers. rate: a 429. paused: by a person. no-worker: images wait for one. */
  readonly kind: 'token' | 'quota' | 'down' | 'rate' | 'paused' | 'no-worker';
  /** Epoch milliseconds; undefined where nobody knows. */
  readonly since?: number | undefined;
  /** When it ends by itself, epoch milliseconds. */
  readonly until?: number | undefined;
  /** What the API said; one line, empty where there is nothing to say. */
  readonly reason: string;
}

export interface PauseFacts {
  readonly workers: readonly WorkerStatus[];
  readonly fellAt: number;
  readonly heldUntil: number;
  /** Somebody has paused the queue, such as on the dashboard. */
  readonly isQueuePaused: boolean;
  /** Images that wait or are in flight. */
  readonly images: number;
}

/** What keeps an account from being worked for. A worker that has given up is no pause while another goes on. */
export function pausesOf(facts: PauseFacts, nowMs: number): Pause[] {
  const pauses: Pause[] = [];
  const ofWorkers = pauseOfWorkers(facts.workers);
  if (ofWorkers !== undefined) pauses.push(ofWorkers);
  if (facts.workers.length === 0 && facts.images > 0) pauses.push({ kind: 'no-worker', reason: '' });
  if (facts.heldUntil > nowMs) {
    pauses.push({ kind: 'rate', since: facts.fellAt, until: facts.heldUntil, reason: '' });
  }
  if (facts.isQueuePaused) pauses.push({ kind: 'paused', reason: '' });
  return pauses;
}

/** It began when the last worker stopped. */
function pauseOfWorkers(workers: readonly WorkerStatus[]): Pause | undefined {
  const last = [...workers].sort((a, b) => a.since - b.since).at(-1);
  if (last === undefined || workers.some(({ state }) => state === 'working')) return undefined;
  // One that only waits for the API may still come back.
  const shown = workers.find(({ state }) => state === 'down') ?? last;
  if (shown.state === 'working') return undefined;
  return { kind: shown.state, since: last.since, reason: shown.reason };
}
