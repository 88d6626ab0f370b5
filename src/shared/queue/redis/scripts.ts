import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import { AHEAD_MS } from '../limiter.js';

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

export type ScriptName = keyof typeof SCRIPTS;

const SHAS = new Map(
  Object.values(SCRIPTS).map((source) => [source, createHash('sha1').update(source).digest('hex')]),
);

/**
 * Runs a Lua script, which is atomic and one round trip: by its hash, or whole where the server does not know it (any
 * more).
 */
export async function runScript(
  client: Redis,
  name: ScriptName,
  key: string,
  ...args: readonly (string | number)[]
): Promise<unknown> {
  const source = SCRIPTS[name];
  try {
    return await client.evalsha(SHAS.get(source) ?? '', 1, key, ...args);
  } catch (error) {
    if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error;
    return client.eval(source, 1, key, ...args);
  }
}
