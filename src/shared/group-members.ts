import { hostname } from 'node:os';
import type { z } from 'zod';
import { parseJson } from './parse-json.js';
import { isAlive } from './process-identity.js';
import type { SharedStore } from './queue/store.js';

/** What the members of a group tell of themselves. What another version wrote and this one cannot read is left out. */
export async function readMembers<T>(store: SharedStore, group: string, schema: z.ZodType<T>): Promise<T[]> {
  const members = await store.members(group);
  return [...members.values()].flatMap((text) => {
    const parsed = schema.safeParse(parseJson(text));
    return parsed.success ? [parsed.data] : [];
  });
}

/**
 * The members that may be at work, by their ids: those that have told so lately, but for processes of this machine that
 * are known to be dead. An entry that cannot be read counts as alive, and tells nothing.
 */
export async function livingMembers<T extends { readonly host: string; readonly pid: number }>(
  store: SharedStore,
  group: string,
  schema: z.ZodType<T>,
): Promise<Map<string, T | undefined>> {
  const living = new Map<string, T | undefined>();
  for (const [id, text] of await store.members(group)) {
    const status = schema.safeParse(parseJson(text)).data;
    const isHere = status?.host === hostname();
    const isDead = isHere && !(await isAlive({ ...status, startTime: null, boot: null }));
    if (!isDead) living.set(id, status);
  }
  return living;
}
