import { listAccounts } from '../shared/known-accounts.js';
import type { SharedStore } from '../shared/queue/store.js';
import type { RunStatus } from '../shared/run-status.js';
import { livingWorkerIds } from '../shared/worker-status.js';

/** All accounts that are known of: their describe queues' names, with the accounts' labels. */
export async function knownQueues(
  store: SharedStore,
  runs: readonly RunStatus[],
): Promise<Map<string, string>> {
  const known = await listAccounts(store);
  const all = [
    ...runs.map((run) => [run.queueName, run.account] as const),
    ...known.map(({ queueName, label }) => [queueName, label] as const),
  ];
  return new Map(all.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Those that have runs, or workers at the moment. */
export async function busyQueues(
  store: SharedStore,
  runs: readonly RunStatus[],
): Promise<Map<string, string>> {
  const withRuns = new Set(runs.map((run) => run.queueName));
  const busy = new Map<string, string>();
  for (const [queueName, label] of await knownQueues(store, runs)) {
    const isBusy = withRuns.has(queueName) || (await livingWorkerIds(store, queueName)).size > 0;
    if (isBusy) busy.set(queueName, label);
  }
  return busy;
}
