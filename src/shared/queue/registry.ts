import { hostname } from 'node:os';
import type { z } from 'zod';
import { parseJson } from '../parse-json.js';
import { isAlive } from '../process-identity.js';
import type { SharedStore } from './store.js';

/** One kind of value that processes publish for everybody at the same queue. */
export interface Kind<T> {
  /** Its name in the store. */
  readonly group: string;
  readonly schema: z.ZodType<T>;
  /** A value that is not published again within this time is gone. */
  readonly ttlMs: number;
  /** The order in which values are listed. */
  readonly order?: ((a: T, b: T) => number) | undefined;
}

/** Publishes a value, in place of the one that had the same id. */
export async function publish<T>(store: SharedStore, kind: Kind<T>, id: string, value: T): Promise<void> {
  await store.announce(kind.group, id, JSON.stringify(value), kind.ttlMs);
}

/** Removes a value before its time is over. */
export async function withdraw(store: SharedStore, { group }: { group: string }, id: string): Promise<void> {
  await store.withdraw(group, id);
}

/** All values of a kind. One that another version wrote and this one cannot read is left out. */
export async function list<T>(store: SharedStore, { group, schema, order }: Kind<T>): Promise<T[]> {
  const members = await store.members(group);
  const values = [...members.values()].flatMap((text) => {
    const parsed = schema.safeParse(parseJson(text));
    return parsed.success ? [parsed.data] : [];
  });
  return order === undefined ? values : values.sort(order);
}

/** The value of one id; undefined when there is none, or none that this version can read. */
export async function find<T>(store: SharedStore, kind: Kind<T>, id: string): Promise<T | undefined> {
  const text = (await store.members(kind.group)).get(id);
  return text === undefined ? undefined : kind.schema.safeParse(parseJson(text)).data;
}

/**
 * The processes of a kind that may be at work, by their ids: all but those of this machine that are known to be dead. One
 * whose value cannot be read counts as alive.
 */
export async function listLiving<T extends { readonly host: string; readonly pid: number }>(
  store: SharedStore,
  { group, schema }: Kind<T>,
): Promise<Map<string, T | undefined>> {
  const living = new Map<string, T | undefined>();
  for (const [id, text] of await store.members(group)) {
    const value = schema.safeParse(parseJson(text)).data;
    if (value === undefined || !(await isKnownDead(value))) living.set(id, value);
  }
  return living;
}

/** What those of these processes say of themselves whose values this version can read. */
export async function listProcesses<T extends { readonly host: string; readonly pid: number }>(
  store: SharedStore,
  kind: Kind<T>,
): Promise<T[]> {
  return [...(await listLiving(store, kind)).values()].flatMap((value) =>
    value === undefined ? [] : [value],
  );
}

/** The ids of those that have published within so many milliseconds, by the clock of the queue. */
export async function listFresh(
  store: SharedStore,
  { group, ttlMs }: { readonly group: string; readonly ttlMs: number },
  withinMs: number,
): Promise<Set<string>> {
  return new Set((await store.members(group, ttlMs - withinMs)).keys());
}

/** Whether a process is of this machine and has ended. */
export async function isKnownDead({
  host,
  pid,
}: {
  readonly host: string;
  readonly pid: number;
}): Promise<boolean> {
  return host === hostname() && !(await isAlive({ host, pid, startTime: null, boot: null }));
}
