import { z } from 'zod';
import { readMembers } from '../shared/group-members.js';
import type { SharedStore } from '../shared/queue/store.js';
import { runRequestSchema, runStopSchema } from './run-request.js';

/** What a home has executed: what it takes to execute it again. */
const keptRequestSchema = z.object({
  run: z.string(),
  /** With the output's path as it was at that time. */
  request: runRequestSchema,
  /** The folder of the home that executed it. */
  root: z.string(),
  /** Epoch milliseconds; undefined while it goes on. */
  endedAt: z.number().optional(),
  /** Why it ended before its time. */
  stop: runStopSchema.optional(),
});

export type KeptRequest = z.infer<typeof keptRequestSchema>;

const GROUP = 'requests';
/** How long a run can be retried without its command being given again. */
const KEPT_MS = 30 * 24 * 3_600_000;

export async function keepRequest(store: SharedStore, kept: KeptRequest): Promise<void> {
  await store.announce(GROUP, kept.run, JSON.stringify(kept), KEPT_MS);
}

/** The requests of the last month. What another version wrote and this one cannot read is left out. */
export async function listKeptRequests(store: SharedStore): Promise<KeptRequest[]> {
  return await readMembers(store, GROUP, keptRequestSchema);
}
