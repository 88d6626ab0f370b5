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

/** A connection that went silent is found out by a question now and then. */
const ASK_EVERY_MS = 15_000;

export class RedisStore implements SharedStore {
  /** By channel. */
  readonly #listeners = new Map<string, Set<MailboxListener>>();
  /** One more connection, which is made when the first mailbox is listened to, and lasts as long as the client. */
  #subscriber: Redis | undefined;

  constructor(private readonly client: Redis) {}

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

  async addToFields(name: string, deltas: Readonly<Record<string, number>>): Promise<Record<string, number>> {
    const fields = Object.keys(deltas);
    if (fields.length === 0) return {};
    const pairs = Object.entries(deltas).flatMap(([field, delta]) => [field, decimal(delta)]);
    const sums = textsSchema.parse(await this.#run('addToFields', 'fields', name, ...pairs));
    return Object.fromEntries(fields.map((field, i) => [field, Number(sums[i])]));
  }

  async forgetQueue(queueName: string): Promise<void> {
    await runScript(this.client, 'forgetQueue', `${KEY_PREFIX}:${queueName}`);
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

  async members(group: string, spareMs = 0): Promise<Map<string, string>> {
    const pairs = textsSchema.parse(await this.#run('listMembers', 'members', group, spareMs));
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

  async listen(mailbox: string, listener: MailboxListener): Promise<() => void> {
    const channel = this.#channel(mailbox);
    const listeners = this.#listeners.get(channel) ?? new Set<MailboxListener>();
    this.#listeners.set(channel, listeners.add(listener));
    this.#subscriber ??= this.#connectSubscriber();
    await this.#subscriber.subscribe(channel);
    return () => listeners.delete(listener);
  }

  #connectSubscriber(): Redis {
    const connection = this.client.duplicate({ autoResubscribe: false });
    connection.on('message', (channel: string, message: string) => {
      const space = message.indexOf(' ');
      for (const listener of this.#listeners.get(channel) ?? []) {
        listener.came(message.slice(0, space), message.slice(space + 1));
      }
    });
    const onSubscribed = () => {
      for (const listeners of this.#listeners.values()) {
        for (const listener of listeners) listener.missedSome();
      }
    };
    connection.on('ready', () => {
      // When it breaks once more, the next `ready` tries again.
      connection.subscribe(...this.#listeners.keys()).then(onSubscribed, () => undefined);
    });
    const asking = setInterval(() => {
      // A question that is not answered breaks the connection, which is then made anew.
      if (connection.status === 'ready') connection.ping().catch(() => undefined);
    }, ASK_EVERY_MS).unref();
    connection.once('end', () => clearInterval(asking));
    return connection;
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
