import { hash } from 'node:crypto';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { messageOf } from '../../errors.js';
import { KEY_PREFIX } from '../connection.js';
import { AHEAD_MS, type PermitRequest, type Permits } from '../limiter.js';
import type { MailboxBounds, MailboxListener, SharedStore } from '../store.js';

/** No queue has an empty name, so these keys meet none of BullMQ's. */
type Kind = 'limiter' | 'fields' | 'lease' | 'members' | 'box';

const millisecondsSchema = z.coerce.number().nonnegative();
const textsSchema = z.array(z.string());

/** A connection that went silent is found out by a question now and then. */
const ASK_EVERY_MS = 15_000;

/** Milliseconds since 1970 by the server's clock, with microseconds. */
const NOW = `
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
`;

/** What is left of a hold, whose value is its length: more than that is left only where the server's clock was set back. */
const HELD_MS = `
local hold = KEYS[1] .. ':hold'
local held = math.max(0, redis.call('PTTL', hold))
if held > tonumber(redis.call('GET', hold) or '0') then held = 0 end
`;

/** In Lua; each is atomic, and one round trip. */
const SCRIPTS = {
  /**
   * KEYS: limiter. ARGV: interval and catch-up in ms, most permits. It does what `LocalLimiter` does.
   * Answers in how many ms each permit is due, and then in how many the next one is.
   */
  takePermits: `${NOW}${HELD_MS}
local interval, catchUp, count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tat = tonumber(redis.call('GET', KEYS[1]) or '0')
-- Further ahead than it can be: the clock was set back, or the rate was lower.
if tat > now + ${AHEAD_MS} + 2 * interval then tat = now end
tat = math.max(tat, now - catchUp)
if held > 0 then tat = math.max(tat, now + held) end
local answer = {}
while #answer < count and tat - now <= ${AHEAD_MS} do
  table.insert(answer, string.format('%.3f', math.max(0, tat - now)))
  tat = tat + interval
end
if #answer > 0 then
  redis.call('SET', KEYS[1], string.format('%.3f', tat), 'PX', math.ceil(math.max(0, tat - now) + catchUp) + 1)
end
table.insert(answer, string.format('%.3f', math.max(0, tat - now)))
return answer
`,

  /** KEYS: limiter. ARGV: ms from now. Answers how long the hold lasts. */
  holdPermits: `${HELD_MS}
local ms = math.ceil(tonumber(ARGV[1]))
if ms > held then
  held = ms
  redis.call('SET', hold, ms, 'PX', ms)
end
return held
`,

  /** KEYS: record. ARGV: how many fields are set, these fields and values, then the fields to remove. */
  setFields: `
local last = tonumber(ARGV[1]) * 2 + 1
for i = 2, last, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
for i = last + 1, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
return 1
`,

  /** KEYS: record. ARGV: fields and what to add to each. One that holds no number starts at 0. Answers what they hold now. */
  addToFields: `
local sums = {}
for i = 1, #ARGV, 2 do
  if not tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '0') then redis.call('HDEL', KEYS[1], ARGV[i]) end
  sums[#sums + 1] = redis.call('HINCRBYFLOAT', KEYS[1], ARGV[i], ARGV[i + 1])
end
return sums
`,

  /** KEYS: record. ARGV: field, value. Answers what the field holds. */
  setFieldOnce: `
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
return redis.call('HGET', KEYS[1], ARGV[1])
`,

  /** KEYS: lease. ARGV: owner, ttl in ms. */
  takeLease: `
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`,

  /** KEYS: lease. ARGV: owner. */
  releaseLease: `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
`,

  /** KEYS: group. ARGV: member, text, ttl in ms. Each value is its end, a bar and the text. */
  announce: `${NOW}
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + tonumber(ARGV[3])) .. '|' .. ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
`,

  /** KEYS: group. ARGV: spare ms. Answers members and texts in turn; forgets those whose time is over. */
  listMembers: `${NOW}
local living = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local bar = string.find(all[i + 1], '|', 1, true)
  local left = tonumber(string.sub(all[i + 1], 1, bar - 1)) - now
  if left <= 0 then
    redis.call('HDEL', KEYS[1], all[i])
  elseif left > tonumber(ARGV[1]) then
    table.insert(living, all[i])
    table.insert(living, string.sub(all[i + 1], bar + 1))
  end
end
return living
`,

  /**
   * KEYS: mailbox. ARGV: name, text, ttl in ms, most messages, channel. Texts are in a hash of the mailbox's name, when each
   * came is in a sorted set beside it.
   */
  putMessage: `${NOW}
local times = KEYS[1] .. ':times'
redis.call('ZADD', times, string.format('%.3f', now), ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local function drop(names)
  for i = 1, #names do
    redis.call('ZREM', times, names[i])
    redis.call('HDEL', KEYS[1], names[i])
  end
end
drop(redis.call('ZRANGEBYSCORE', times, '-inf', string.format('%.3f', now - ARGV[3]), 'LIMIT', 0, 100))
local tooMany = redis.call('ZCARD', times) - tonumber(ARGV[4])
if tooMany > 0 then drop(redis.call('ZRANGE', times, 0, math.min(tooMany, 100) - 1)) end
redis.call('PEXPIRE', times, ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[5], ARGV[1] .. ' ' .. ARGV[2])
return 1
`,

  /** KEYS: a queue of BullMQ's, with its prefix. Removes what is left of one that has no job, in whatever state. */
  forgetQueue: `
local states = {'wait', 'active', 'paused', 'delayed', 'prioritized', 'waiting-children', 'completed', 'failed'}
for _, state in ipairs(states) do
  if redis.call('EXISTS', KEYS[1] .. ':' .. state) == 1 then return 0 end
end
for _, part in ipairs({'events', 'id', 'marker', 'meta', 'pc', 'stalled', 'stalled-check'}) do
  redis.call('DEL', KEYS[1] .. ':' .. part)
end
return 1
`,
};

type Script = keyof typeof SCRIPTS;

const HASHES = new Map(Object.values(SCRIPTS).map((source) => [source, hash('sha1', source)]));

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
    await this.#eval('forgetQueue', `${KEY_PREFIX}:${queueName}`);
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

  #run(script: Script, kind: Kind, name: string, ...args: readonly (string | number)[]): Promise<unknown> {
    return this.#eval(script, this.#key(kind, name), ...args);
  }

  /** By its hash, since some go out with every image; whole where the server does not know it (any more). */
  async #eval(script: Script, key: string, ...args: readonly (string | number)[]): Promise<unknown> {
    const source = SCRIPTS[script];
    try {
      return await this.client.evalsha(HASHES.get(source) ?? '', 1, key, ...args);
    } catch (error) {
      if (!messageOf(error).startsWith('NOSCRIPT')) throw error;
      return this.client.eval(source, 1, key, ...args);
    }
  }
}

/** Redis takes no numbers with an exponent. */
function decimal(value: number): string {
  return Number.isInteger(value) ? value.toFixed(0) : value.toFixed(6);
}
