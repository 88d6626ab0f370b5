import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import { CATCH_UP_DISTANCE } from '../store.js';

/** A Lua script; atomic, and one round trip once the server knows it. */
export interface Script {
  readonly source: string;
  readonly sha: string;
}

function script(source: string): Script {
  return { source, sha: createHash('sha1').update(source).digest('hex') };
}

/** Milliseconds since 1970 by the server's clock, with microseconds. */
const NOW = `
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
`;

/** The time of a free slot that has passed is kept so long: slots may be made up for. */
const KEPT_MS = 10_000;

/**
 * KEYS: slots. ARGV: their distance, how many, how far ahead at most, then their window: how many it may hold (0 for
 * any number), its length, for how long a slot is made up for. All times in ms.
 *
 * The key holds when the next slot is free, and ends some time after it. In a sorted set beside it are the last slots, by when they
 * were used; only those that a window may hold are kept.
 * Answers when the next one is, where fewer were given, and then the time of each slot and in how many ms it is.
 */
export const TAKE_SLOTS = script(`${NOW}
local interval, wanted, within = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local most, window, catchUp = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local used = KEYS[1] .. ':used'
local free = tonumber(redis.call('GET', KEYS[1]) or '0')
if free < now - catchUp then free = now end
local last
local earlier = {}
local rank = math.max(0, most - wanted)
if most > 0 then
  last = tonumber(redis.call('ZREVRANGE', used, 0, 0, 'WITHSCORES')[2])
  earlier = redis.call('ZREVRANGE', used, rank, most - 1, 'WITHSCORES')
end
local answer, times, next = {'0'}, {}, nil
for i = 1, wanted do
  local slot = math.max(now, free)
  if last then slot = math.max(slot, last + interval * ${CATCH_UP_DISTANCE}) end
  if most > 0 then
    -- The one that has to have left the window: of this call, or of those before, who come by their ranks.
    local first = times[i - most] or tonumber(earlier[2 * (most - i - rank + 1)])
    if first then slot = math.max(slot, first + window) end
  end
  if slot - now > within then
    next = slot
    break
  end
  times[i] = slot
  table.insert(answer, string.format('%.3f', slot))
  table.insert(answer, string.format('%.3f', slot - now))
  if most > 0 then
    last = slot
    redis.call('ZADD', used, string.format('%.3f', slot), string.format('%.3f', slot))
  end
  free = free + interval
end
if next then answer[1] = string.format('%.3f', next - now) end
if #times > 0 then
  redis.call('SET', KEYS[1], string.format('%.3f', free), 'PX', math.ceil(math.max(0, free - now)) + ${KEPT_MS})
  if most > 0 then
    redis.call('ZREMRANGEBYRANK', used, 0, -most - 1)
    redis.call('PEXPIRE', used, math.ceil(math.max(last - now + window, redis.call('PTTL', used))) + 1)
  end
end
return answer
`);

/**
 * KEYS: slots. ARGV: the length of their window, then of each slot its time, and how many ms later it was used; that was
 * not in the future, whatever its worker's clock says. One that is not kept any more may have been used just now.
 */
export const DELAY_SLOTS = script(`${NOW}
local used = KEYS[1] .. ':used'
local window = tonumber(ARGV[1])
for i = 2, #ARGV, 2 do
  local at = math.min(now, tonumber(ARGV[i]) + tonumber(ARGV[i + 1]))
  local known = tonumber(redis.call('ZSCORE', used, ARGV[i]) or '0')
  if at > known and at > now - window then
    redis.call('ZADD', used, string.format('%.3f', at), ARGV[i])
    redis.call('PEXPIRE', used, math.ceil(math.max(at - now + window, redis.call('PTTL', used))) + 1)
  end
end
return 1
`);

/** KEYS: slots. ARGV: ms from now. */
export const HOLD_SLOTS = script(`${NOW}
local free = tonumber(redis.call('GET', KEYS[1]) or '0')
local wanted = now + tonumber(ARGV[1])
if wanted > free then
  free = wanted
  redis.call('SET', KEYS[1], string.format('%.3f', free), 'PX', math.ceil(free - now) + ${KEPT_MS})
end
return string.format('%.3f', math.max(0, free - now))
`);

/** KEYS: record. ARGV: how many fields are set, these fields and values, then the fields to remove. */
export const SET_FIELDS = script(`
local last = tonumber(ARGV[1]) * 2 + 1
for i = 2, last, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
for i = last + 1, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
return 1
`);

/** KEYS: record. ARGV: fields and what to add to each. One that holds no number starts at 0. */
export const ADD_TO_FIELDS = script(`
for i = 1, #ARGV, 2 do
  if not tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '0') then redis.call('HDEL', KEYS[1], ARGV[i]) end
  redis.call('HINCRBYFLOAT', KEYS[1], ARGV[i], ARGV[i + 1])
end
return 1
`);

/** KEYS: record. ARGV: field, value. Answers what the field holds. */
export const SET_FIELD_ONCE = script(`
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
return redis.call('HGET', KEYS[1], ARGV[1])
`);

/** KEYS: lease. ARGV: owner, ttl in ms. */
export const TAKE_LEASE = script(`
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`);

/** KEYS: lease. ARGV: owner. */
export const RELEASE_LEASE = script(`
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
`);

/** KEYS: group. ARGV: member, text, ttl in ms. Each value is its end, a bar and the text. */
export const ANNOUNCE = script(`${NOW}
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + tonumber(ARGV[3])) .. '|' .. ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
`);

/** KEYS: group. Answers members and texts in turn; forgets those whose time is over. */
export const LIST_MEMBERS = script(`${NOW}
local living = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local bar = string.find(all[i + 1], '|', 1, true)
  if tonumber(string.sub(all[i + 1], 1, bar - 1)) > now then
    table.insert(living, all[i])
    table.insert(living, string.sub(all[i + 1], bar + 1))
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return living
`);

/**
 * KEYS: box. ARGV: name, text, ttl in ms, most letters, channel. Texts are in a hash of the box's name, when each
 * came is in a sorted set beside it.
 */
export const PUT_LETTER = script(`${NOW}
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
`);

/** Runs a script by its hash; sends it whole to a server that does not know it (any more). */
export async function runScript(
  client: Redis,
  { source, sha }: Script,
  key: string,
  ...args: readonly (string | number)[]
): Promise<unknown> {
  try {
    return await client.evalsha(sha, 1, key, ...args);
  } catch (error) {
    if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error;
    return client.eval(source, 1, key, ...args);
  }
}
