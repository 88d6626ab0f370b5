import type { Redis } from 'ioredis';
import { z } from 'zod';
import { KEY_PREFIX } from '../job-machinery.js';
import type { SharedStore } from '../store.js';
import {
  ADD_TO_FIELDS,
  ANNOUNCE,
  HOLD_SLOTS,
  LIST_MEMBERS,
  RELEASE_LEASE,
  RESERVE_SLOT,
  type Script,
  SET_FIELDS,
  TAKE_LEASE,
  runScript,
} from './scripts.js';

/** No queue has an empty name, so these keys meet none of BullMQ's. */
type Kind = 'slots' | 'fields' | 'lease' | 'members';

const millisecondsSchema = z.coerce.number().nonnegative();
const pairsSchema = z.array(z.string());

/** The shared values in Redis. */
export class RedisStore implements SharedStore {
  constructor(private readonly client: Redis) {}

  async reserveSlot(name: string, intervalMs: number, count = 1): Promise<number> {
    return millisecondsSchema.parse(await this.#run(RESERVE_SLOT, 'slots', name, intervalMs * count));
  }

  async holdSlots(name: string, ms: number): Promise<number> {
    return millisecondsSchema.parse(await this.#run(HOLD_SLOTS, 'slots', name, ms));
  }

  getFields(name: string): Promise<Record<string, string>> {
    return this.client.hgetall(this.#key('fields', name));
  }

  async setFields(name: string, fields: Record<string, string | null>): Promise<void> {
    const entries = Object.entries(fields);
    const set = entries.flatMap(([field, value]) => (value === null ? [] : [field, value]));
    const removed = entries.flatMap(([field, value]) => (value === null ? [field] : []));
    await this.#run(SET_FIELDS, 'fields', name, set.length / 2, ...set, ...removed);
  }

  async addToFields(name: string, deltas: Readonly<Record<string, number>>): Promise<void> {
    const pairs = Object.entries(deltas).flatMap(([field, delta]) => [field, decimal(delta)]);
    if (pairs.length > 0) await this.#run(ADD_TO_FIELDS, 'fields', name, ...pairs);
  }

  async lease(name: string, owner: string, ttlMs: number): Promise<boolean> {
    return (await this.#run(TAKE_LEASE, 'lease', name, owner, Math.ceil(ttlMs))) === 1;
  }

  async leaseOwner(name: string): Promise<string | undefined> {
    return (await this.client.get(this.#key('lease', name))) ?? undefined;
  }

  async release(name: string, owner: string): Promise<void> {
    await this.#run(RELEASE_LEASE, 'lease', name, owner);
  }

  async announce(group: string, member: string, text: string, ttlMs: number): Promise<void> {
    await this.#run(ANNOUNCE, 'members', group, member, text, Math.ceil(ttlMs));
  }

  async withdraw(group: string, member: string): Promise<void> {
    await this.client.hdel(this.#key('members', group), member);
  }

  async members(group: string): Promise<Map<string, string>> {
    const pairs = pairsSchema.parse(await this.#run(LIST_MEMBERS, 'members', group));
    return new Map(
      pairs.flatMap((member, i) => (i % 2 === 0 ? [[member, pairs[i + 1] ?? ''] as const] : [])),
    );
  }

  #key(kind: Kind, name: string): string {
    return `${KEY_PREFIX}::${kind}:${name}`;
  }

  #run(script: Script, kind: Kind, name: string, ...args: readonly (string | number)[]): Promise<unknown> {
    return runScript(this.client, script, this.#key(kind, name), ...args);
  }
}

/** Redis takes no numbers with an exponent. */
function decimal(value: number): string {
  return Number.isInteger(value) ? value.toFixed(0) : value.toFixed(6);
}
