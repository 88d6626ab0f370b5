import { z } from 'zod';
import { type Account, accountLabel, describeQueueName } from './account.js';
import { readMembers } from './group-members.js';
import type { SharedStore } from './queue/store.js';

/** An account that somebody has worked or produced for lately. */
const knownAccountSchema = z.object({ label: z.string(), queueName: z.string() });

export type KnownAccount = z.infer<typeof knownAccountSchema>;

const GROUP = 'accounts';
/** So that accounts are known over a weekend in which nothing runs. */
const KNOWN_MS = 7 * 24 * 3_600_000;

/** Lets everybody at the same queue know of an account; to be repeated within a week. */
export async function announceAccount(store: SharedStore, account: Account): Promise<void> {
  const known: KnownAccount = { label: accountLabel(account), queueName: describeQueueName(account) };
  await store.announce(GROUP, known.queueName, JSON.stringify(known), KNOWN_MS);
}

/** The accounts of this queue, by their labels. */
export async function listAccounts(store: SharedStore): Promise<KnownAccount[]> {
  const accounts = await readMembers(store, GROUP, knownAccountSchema);
  return accounts.sort((a, b) => (a.label < b.label ? -1 : 1));
}
