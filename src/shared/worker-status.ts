import { z } from 'zod';
import { livingMembers, readMembers } from './group-members.js';
import type { SharedStore } from './queue/store.js';

/**
 * working: takes images. down: the API does not answer; one image at a time probes it.
 * token, quota: takes no more images, since the API refuses the token, or says that the quota is spent.
 */
const workerStatusSchema = z.object({
  host: z.string(),
  pid: z.number(),
  state: z.enum(['working', 'down', 'token', 'quota']),
  /** One line for people; empty while it works. */
  reason: z.string(),
  /** Since when it has been in this state, epoch milliseconds. */
  since: z.number(),
  /** The share of the configured rate that the API lets through, in (0, 1]. */
  share: z.number(),
});

/** What a worker tells of itself to everybody at the same queue. */
export type WorkerStatus = z.infer<typeof workerStatusSchema>;

function workersGroup(queueName: string): string {
  return `workers:${queueName}`;
}

/** How long a worker counts as alive after its last word. */
const PRESENCE_TTL_MS = 10_000;

/** Announces a worker; to be repeated well within ten seconds. */
export async function announceWorker(
  store: SharedStore,
  queueName: string,
  id: string,
  status: WorkerStatus,
): Promise<void> {
  await store.announce(workersGroup(queueName), id, JSON.stringify(status), PRESENCE_TTL_MS);
}

/** Takes a worker off the list when it ends in order. */
export async function withdrawWorker(store: SharedStore, queueName: string, id: string): Promise<void> {
  await store.withdraw(workersGroup(queueName), id);
}

/** The living workers of a queue. Entries that another version wrote and this one cannot read are left out. */
export async function listWorkers(store: SharedStore, queueName: string): Promise<WorkerStatus[]> {
  return readMembers(store, workersGroup(queueName), workerStatusSchema);
}

/**
 * Ids of the workers that may be at work: those that have told so lately, but for processes of this machine that
 * are known to be dead. An entry that cannot be read counts as alive.
 */
export async function livingWorkerIds(store: SharedStore, queueName: string): Promise<Set<string>> {
  return new Set((await livingMembers(store, workersGroup(queueName), workerStatusSchema)).keys());
}
