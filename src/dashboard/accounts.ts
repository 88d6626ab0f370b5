import { ACCOUNTS, type RunStatus, workersOf } from '../shared/published.js';
import * as registry from '../shared/queue/registry.js';
import type { SharedStore } from '../shared/queue/store.js';

/** All accounts that are known of: their describe queues' names, with the accounts' labels. */
export async function knownQueues(
  store: SharedStore,
  runs: readonly RunStatus[],
): Promise<Map<string, string>> {
  const known = await registry.list(store, ACCOUNTS);
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
    const isBusy =
      withRuns.has(queueName) || (await registry.listLiving(store, workersOf(queueName))).size > 0;
    if (isBusy) busy.set(queueName, label);
  }
  return busy;
}
