import { z } from 'zod';
import { readMembers } from './group-members.js';
import type { SharedStore } from './queue/store.js';

/**
 * What a home tells of a run to everybody at the same queue, each second while the run goes on and once when it
 * has ended.
 */
const runStatusSchema = z.object({
  run: z.string(),
  /** The account's label, and the queue of its images. */
  account: z.string(),
  queueName: z.string(),
  manifest: z.string(),
  output: z.string(),
  /** The schedule that started it. */
  schedule: z.string().optional(),
  /** Where the home is. */
  host: z.string(),
  pid: z.number(),
  /** Epoch milliseconds, by the home's clock. */
  startedAt: z.number(),
  seenAt: z.number(),

  /** Rows read so far, and of the whole manifest where they could be counted. */
  rows: z.number(),
  totalRows: z.number().optional(),
  described: z.number(),
  resumed: z.number(),
  copied: z.number(),
  failed: z.number(),
  /** The failed rows by their codes. */
  failedByCode: z.record(z.string(), z.number()).optional(),
  /** Rows described or failed per second, over the last half a minute. */
  perSecond: z.number(),
  /** Milliseconds to the end, when there is a rate to tell it from. */
  etaMs: z.number().optional(),

  /** Why it takes nothing more on, while it waits for what is in flight. */
  stopping: z.string().optional(),
  /** How it ended; undefined while it goes on. */
  ended: z.object({ exitCode: z.number(), remaining: z.number(), reason: z.string().optional() }).optional(),
});

export type RunStatus = z.infer<typeof runStatusSchema>;

const GROUP = 'runs';
/** Ended runs are shown for a day; so are those whose home has died. */
const SHOWN_MS = 24 * 3_600_000;
/** A home that has not told anything for so long is gone. */
const SILENT_MS = 10_000;

/** Tells of a run; the newest word replaces the one before. */
export async function announceRun(store: SharedStore, status: RunStatus): Promise<void> {
  await store.announce(GROUP, status.run, JSON.stringify(status), SHOWN_MS);
}

/** The runs of the last day, the newest first. What another version wrote and this one cannot read is left out. */
export async function listRuns(store: SharedStore): Promise<RunStatus[]> {
  const runs = await readMembers(store, GROUP, runStatusSchema);
  return runs.sort((a, b) => b.startedAt - a.startedAt);
}

/**
 * running: a home is at work on it. ended: see `ended`. silent: its home has died or lost the queue; the same
 * command resumes it.
 */
export function runState(status: RunStatus, nowMs: number): 'running' | 'ended' | 'silent' {
  if (status.ended !== undefined) return 'ended';
  return nowMs - status.seenAt < SILENT_MS ? 'running' : 'silent';
}
