import { formatDuration } from '../shared/durations.js';
import type { WorkerStatus } from '../shared/worker-status.js';
import type { RunStop } from './receipt.js';

/** After so long without one success an API that is down ends the run. */
const DOWN_LIMIT_MS = 15 * 60_000;

/**
 * Whether the state of an account's workers ends a run: when every one of them has given up, or the API has
 * been down for fifteen minutes for all of them. Without any worker a run waits.
 */
export function judgeWorkers(workers: readonly WorkerStatus[], nowMs: number): RunStop | undefined {
  const [first] = workers;
  if (first === undefined) return undefined;
  const refused = workers.filter(({ state }) => state === 'token' || state === 'quota');
  const [refusal] = refused;
  if (refusal !== undefined && refused.length === workers.length) {
    const kind = refused.some(({ state }) => state === 'quota') ? 'quota' : 'token';
    const what = kind === 'token' ? 'the API refuses the token' : 'the API says that the quota is spent';
    return { kind, reason: `${what}: ${refusal.reason}` };
  }
  const down = workers.filter(({ state }) => state === 'down');
  if (down.length + refused.length < workers.length) return undefined;
  const since = Math.max(...down.map((worker) => worker.since));
  if (nowMs - since < DOWN_LIMIT_MS) return undefined;
  return { kind: 'down', reason: `the API has not answered for ${formatDuration(nowMs - since)}` };
}
