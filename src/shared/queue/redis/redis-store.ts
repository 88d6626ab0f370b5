import type { Redis } from 'ioredis';
import { z } from 'zod';
import { KEY_PREFIX } from '../connection.js';
import type { PermitRequest, Permits } from '../limiter.js';
import type { MailboxBounds, MailboxListener, SharedStore } from '../store.js';
import { runScript, type ScriptName } from './scripts.js';

/** No queue has an empty name, so these keys meet none of BullMQ's. */
type Kind = 'limiter' | 'fields' | 'lease' | 'members' | 'box';

const millisecondsSchema = z.coerce.number().nonnegative();
const textsSchema = z.array(z.string());

/** The shared values in Redis. */
export class RedisStore implements SharedStore {
  readonly #listener: RedisListener;

  constructor(private readonly client: Redis) {
    this.#listener = new RedisListener(client);
  }

  async takePermits(name: string, request: PermitRequest): Promise<Permits> {
    const { intervalMs, catchUpMs, count } = request;
    const answer = await this.#run('takePermits', 'limiter', name, intervalMs, catchUpMs, count);
    const times = z.array(millisecondsSchema).parse(answer);
    return { dueInMs: times.slice(0, -1), nextInMs: times.at(-1) ?? 0 };
  }

  async holdPermits(name: string, ms: number): Promise<number> {
    return millisecondsSchema.parse(await this.#run('holdPermits', 'limiter', name, ms));
  }

  getFields(name: string): Promise<Record<string, string>> {
    return this.client.hgetall(this.#key('fields', name));
  }

  async setFieldOnce(name: string, field: string, value: string): Promise<string> {
    return z.string().parse(await this.#run('setFieldOnce', 'fields', name, field, value));
  }

  async setFields(name: string, fields: Record<string, string | null>): Promise<void> {
    const entries = Object.entries(fields);
    const set = entries.flatMap(([field, value]) => (value === null ? [] : [field, value]));
    const removed = entries.flatMap(([field, value]) => (value === null ? [field] : []));
    await this.#run('setFields', 'fields', name, set.length / 2, ...set, ...removed);
  }

  async addToFields(name: string, deltas: Readonly<Record<string, number>>): Promise<void> {
    const pairs = Object.entries(deltas).flatMap(([field, delta]) => [field, decimal(delta)]);
    if (pairs.length > 0) await this.#run('addToFields', 'fields', name, ...pairs);
  }

  async lease(name: string, owner: string, ttlMs: number): Promise<boolean> {
    return (await this.#run('takeLease', 'lease', name, owner, Math.ceil(ttlMs))) === 1;
  }

  async leaseOwner(name: string): Promise<string | undefined> {
    return (await this.client.get(this.#key('lease', name))) ?? undefined;
  }

  async release(name: string, owner: string): Promise<void> {
    await this.#run('releaseLease', 'lease', name, owner);
  }

  async announce(group: string, member: string, text: string, ttlMs: number): Promise<void> {
    await this.#run('announce', 'members', group, member, text, Math.ceil(ttlMs));
  }

  async withdraw(group: string, member: string): Promise<void> {
    await this.client.hdel(this.#key('members', group), member);
  }

  async members(group: string): Promise<Map<string, string>> {
    const pairs = textsSchema.parse(await this.#run('listMembers', 'members', group));
    return new Map(
      pairs.flatMap((member, i) => (i % 2 === 0 ? [[member, pairs[i + 1] ?? ''] as const] : [])),
    );
  }

  async putMessage(
    mailbox: string,
    name: string,
    text: string,
    { ttlMs, max }: MailboxBounds,
  ): Promise<void> {
    await this.#run('putMessage', 'box', mailbox, name, text, Math.ceil(ttlMs), max, this.#channel(mailbox));
  }

  async messages(mailbox: string, names: readonly string[]): Promise<Map<string, string>> {
    if (names.length === 0) return new Map();
    const texts = await this.client.hmget(this.#key('box', mailbox), ...names);
    return new Map(
      names.flatMap((name, i) => {
        const text = texts[i] ?? undefined;
        return text === undefined ? [] : [[name, text] as const];
      }),
    );
  }

  listen(mailbox: string, listener: MailboxListener): Promise<() => Promise<void>> {
    return this.#listener.listen(this.#channel(mailbox), listener);
  }

  /** Channels belong to the server, and not to one of its databases as keys do. */
  #channel(mailbox: string): string {
    return `${this.#key('box', mailbox)}:${this.client.options.db ?? 0}`;
  }

  #key(kind: Kind, name: string): string {
    return `${KEY_PREFIX}::${kind}:${name}`;
  }

  #run(
    script: ScriptName,
    kind: Kind,
    name: string,
    ...args: readonly (string | number)[]
  ): Promise<unknown> {
    return runScript(this.client, script, this.#key(kind, name), ...args);
  }
}

/** Redis takes no numbers with an exponent. */
function decimal(value: number): string {
  return Number.isInteger(value) ? value.toFixed(0) : value.toFixed(6);
}

/** A connection that went silent is found out by a question now and then. */
const ASK_EVERY_MS = 15_000;

/**
 * What a process hears of the mailboxes, over one more connection, which is made when the first mailbox is listened to.
 * After an outage the channels are subscribed again, and the listeners are told that they may have missed some.
 */
export class RedisListener {
  readonly #listeners = new Map<string, Set<MailboxListener>>();
  #connection: Redis | undefined;
  #asking: NodeJS.Timeout | undefined;

  constructor(private readonly client: Redis) {}

  async listen(channel: string, listener: MailboxListener): Promise<() => Promise<void>> {
    const listeners = this.#listeners.get(channel) ?? new Set<MailboxListener>();
    const isFirst = listeners.size === 0;
    this.#listeners.set(channel, listeners.add(listener));
    this.#connection ??= this.#connect();
    if (isFirst) await this.#connection.subscribe(channel);
    return () => this.#leave(channel, listener);
  }

  async #leave(channel: string, listener: MailboxListener): Promise<void> {
    const listeners = this.#listeners.get(channel);
    listeners?.delete(listener);
    if (listeners?.size !== 0) return;
    this.#listeners.delete(channel);
    const connection = this.#connection;
    if (connection === undefined) return Promise.resolve();
    if (this.#listeners.size > 0) {
      // While the server is away there is nothing to leave: what is subscribed again is what is listened to then.
      if (connection.status === 'ready') await connection.unsubscribe(channel);
      return;
    }
    this.#connection = undefined;
    clearInterval(this.#asking);
    connection.disconnect();
  }

  #connect(): Redis {
    const connection = this.client.duplicate({ autoResubscribe: false });
    let isFirst = true;
    connection.on('message', (channel: string, message: string) => this.#hear(channel, message));
    connection.on('ready', () => {
      // The first time whoever listens subscribes by itself.
      if (!isFirst) void this.#subscribeAgain(connection);
      isFirst = false;
    });
    connection.once('end', () => clearInterval(this.#asking));
    this.#asking = setInterval(() => {
      // A question that is not answered breaks the connection, which is then made anew.
      if (connection.status === 'ready') connection.ping().catch(() => undefined);
    }, ASK_EVERY_MS).unref();
    return connection;
  }

  async #subscribeAgain(connection: Redis): Promise<void> {
    try {
      await connection.subscribe(...this.#listeners.keys());
    } catch {
      // It broke once more: the next `ready` tries again.
      return;
    }
    for (const listeners of this.#listeners.values()) {
      for (const listener of listeners) listener.missedSome();
    }
  }

  #hear(channel: string, message: string): void {
    const space = message.indexOf(' ');
    const name = message.slice(0, space);
    const text = message.slice(space + 1);
    for (const listener of this.#listeners.get(channel) ?? []) listener.came(name, text);
  }
}
