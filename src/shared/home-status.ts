import { z } from 'zod';
import { livingMembers, readMembers } from './group-members.js';
import type { SharedStore } from './queue/store.js';

/** What a home that executes requests tells of itself to everybody at the same queue. */
const homeStatusSchema = z.object({
  host: z.string(),
  pid: z.number(),
  /** The only folder it reads and writes. */
  root: z.string(),
  /** Epoch milliseconds. */
  since: z.number(),
  /** Runs that it executes at once, at most. */
  runsAtOnce: z.number(),
  runs: z.array(
    z.object({
      run: z.string().optional(),
      output: z.string(),
      /** The job of its request, once its files are open. */
      job: z.string().optional(),
    }),
  ),
});

export type HomeStatus = z.infer<typeof homeStatusSchema>;

const GROUP = 'homes';
/** How long a home counts as alive after its last word. */
const PRESENCE_TTL_MS = 10_000;

/** Announces a home; to be repeated well within ten seconds. */
export async function announceHome(store: SharedStore, id: string, status: HomeStatus): Promise<void> {
  await store.announce(GROUP, id, JSON.stringify(status), PRESENCE_TTL_MS);
}

/** Takes a home off the list when it ends in order. */
export async function withdrawHome(store: SharedStore, id: string): Promise<void> {
  await store.withdraw(GROUP, id);
}

/** The living homes. What another version wrote and this one cannot read is left out. */
export async function listHomes(store: SharedStore): Promise<HomeStatus[]> {
  return readMembers(store, GROUP, homeStatusSchema);
}

/** The living home, but for one, that executes the request of a job. */
export async function homeOfJob(
  store: SharedStore,
  job: string,
  except: string,
): Promise<HomeStatus | undefined> {
  const living = await livingMembers(store, GROUP, homeStatusSchema);
  living.delete(except);
  return [...living.values()].find((home) => home?.runs.some((run) => run.job === job));
}

/**
 * Ids of the homes that may be at work: those that have told so lately, but for processes of this machine that are known
 * to be dead. An entry that cannot be read counts as alive.
 */
export async function livingHomeIds(store: SharedStore): Promise<Set<string>> {
  return new Set((await livingMembers(store, GROUP, homeStatusSchema)).keys());
}
