import { inspect } from 'node:util';
import { Redis } from 'ioredis';
import { expect } from 'vitest';

/** Every key of a Redis database with all that it holds. */
export async function everythingIn(url: string): Promise<string> {
  const redis = new Redis(url);
  try {
    const parts: unknown[] = [];
    for await (const keys of redis.scanStream({ count: 1000 })) {
      if (!Array.isArray(keys)) continue;
      for (const key of keys.map(String)) parts.push(key, await valueOf(redis, key));
    }
    expect(parts.length).toBeGreaterThan(0);
    return inspect(parts, { depth: Infinity, maxArrayLength: null, maxStringLength: null });
  } finally {
    redis.disconnect();
  }
}

async function valueOf(redis: Redis, key: string): Promise<unknown> {
  switch (await redis.type(key)) {
    case 'string':
      return redis.get(key);
    case 'hash':
      return redis.hgetall(key);
    case 'list':
      return redis.lrange(key, 0, -1);
    case 'set':
      return redis.smembers(key);
    case 'zset':
      return redis.zrange(key, '0', '-1');
    case 'stream':
      return redis.xrange(key, '-', '+');
    default:
      return undefined;
  }
}
