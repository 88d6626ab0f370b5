import { isSetUpTrouble } from '../describe-api/answers.js';
import { formatDuration } from '../shared/durations.js';
import type { WorkerStatus } from '../shared/published.js';
import type { RunStop } from './receipt.js';

/**
 * Whether the state of an account's workers ends a run: when every one of them has given up, or the API has
 * been down for long for all of them. Without any worker a run waits.
 * @param startedAt when the run began: a worker that had nothing to do has not probed since the last run
 */
export function judgeWorkers(
  workers: readonly WorkerStatus[],
  nowMs: number,
  { downLimitMs, startedAt }: { readonly downLimitMs: number; readonly startedAt: number },
): RunStop | undefined {
  const [first] = workers;
  if (first === undefined) return undefined;
  const refused = workers.filter(({ state }) => state === 'token' || state === 'quota');
  const [refusal] = refused;
  if (refusal !== undefined && refused.length === workers.length) {
    const kind = refused.some(({ state }) => state === 'quota') ? 'quota' : 'token';
    return { kind, reason: `${refusalText(kind, refusal.reason)}: ${refusal.reason}` };
  }
  const down = workers.filter(({ state }) => state === 'down');
  if (down.length + refused.length < workers.length) return undefined;
  const since = Math.max(startedAt, ...down.map((worker) => worker.since));
  if (nowMs - since < downLimitMs) return undefined;
  return { kind: 'down', reason: `the API has not answered for ${formatDuration(nowMs - since)}` };
}

function refusalText(kind: 'token' | 'quota', reason: string): string {
  if (isSetUpTrouble(reason)) return 'the API describes nothing';
  return kind === 'token' ? 'the API refuses the token' : 'the API says that the quota is spent';
}
