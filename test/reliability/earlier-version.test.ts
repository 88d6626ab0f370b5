import { cp, readFile, readdir, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Redis } from 'ioredis';
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { describeOnRedis, embeddedFixture } from '../helpers/queues.js';
import { Workspace } from '../helpers/workspace.js';
import { allIds, describedIds, endOf, startRun } from './run-process.js';

/** What version 0.1 has written: see the README there. */
const FIXTURES = fileURLToPath(new URL('../fixtures/version-0.1/', import.meta.url));
/** Where its API was, and its Redis, as files and queue names say. */
const ITS_API = /127\.0\.0\.1([:_])41230/g;
const ITS_QUEUE = 'redis://127.0.0.1:41231';

const redisValueSchema = z.object({ key: z.string(), ttlMs: z.number().optional() });
const redisDataSchema = z.array(
  z.discriminatedUnion('type', [
    redisValueSchema.extend({ type: z.literal('string'), value: z.string() }),
    redisValueSchema.extend({ type: z.literal('hash'), value: z.record(z.string(), z.string()) }),
    redisValueSchema.extend({ type: z.literal('list'), value: z.array(z.string()) }),
    // Each member is followed by its score.
    redisValueSchema.extend({ type: z.literal('zset'), value: z.array(z.string()) }),
  ]),
);

let workspace: Workspace;
let simulator: Simulator;

beforeEach(async () => {
  workspace = await Workspace.create();
  simulator = await startSimulator({ latencyMs: 30 });
});
afterEach(async () => {
  await simulator.close();
  await workspace.remove();
});

/** Copies a fixture into the workspace, as if it had been written here, with this API and this queue. */
async function restoreFiles(name: string, queue: string): Promise<void> {
  await cp(join(FIXTURES, name), workspace.path, { recursive: true });
  for (const file of await readdir(workspace.path)) {
    await writeFile(workspace.at(file), asHere(await workspace.read(file), queue));
  }
}

function asHere(text: string, queue: string): string {
  const port = new URL(simulator.url).port;
  return text
    .replaceAll(ITS_API, `127.0.0.1$1${port}`)
    .replaceAll(ITS_QUEUE, queue)
    .replaceAll('{host}', hostname());
}

/** Fills a Redis with what the fixture's `redis.json` holds; locks and leases last as long as they had left. */
async function restoreRedis(queue: string): Promise<void> {
  const entries = redisDataSchema.parse(JSON.parse(await workspace.read('redis.json')));
  const redis = new Redis(queue);
  try {
    for (const entry of entries) {
      await redis.del(entry.key);
      await setValue(redis, entry);
      if (entry.ttlMs !== undefined) await redis.pexpire(entry.key, entry.ttlMs);
    }
  } finally {
    redis.disconnect();
  }
}

function setValue(redis: Redis, entry: z.infer<typeof redisDataSchema>[number]): Promise<unknown> {
  switch (entry.type) {
    case 'string':
      return redis.set(entry.key, entry.value);
    case 'hash':
      return redis.hset(entry.key, entry.value);
    case 'list':
      return redis.rpush(entry.key, ...entry.value);
    case 'zset':
      // Redis takes the score first.
      return redis.zadd(
        entry.key,
        ...entry.value.flatMap((member, at, all) => (at % 2 === 0 ? [all[at + 1] ?? '', member] : [])),
      );
  }
}

/** The numbers of the images that are paid for now, in order. */
function paidNow(): number[] {
  expect(simulator.stats().submits).toBe(simulator.stats().paid);
  return [...simulator.stats().paidByUrl.keys()]
    .map((url) => Number(/\d+/.exec(url)?.[0]))
    .sort((a, b) => a - b);
}

/** Each of these rows is in the output once, the earlier ones as they were; these failures are kept; nothing else is left. */
async function expectFiles(name: string, described: number[], failed: string[]): Promise<void> {
  const before = await readFile(join(FIXTURES, name, 'out.csv'), 'utf8');
  expect((await workspace.read('out.csv')).slice(0, before.length)).toBe(before);
  expect(await describedIds(workspace)).toEqual(described);
  const failures = await workspace.records('out.failed.csv');
  expect(failures.map((row) => `${row['id'] ?? ''} ${row['error_code'] ?? ''}`).sort()).toEqual(
    failed.sort(),
  );
  expect(JSON.parse(await workspace.read('out.csv.run'))).toMatchObject({ version: 1, open: false });
  const written = (await workspace.files()).filter((file) => file.startsWith('out.'));
  expect(written).toEqual(['out.csv', 'out.csv.run', 'out.failed.csv']);
}

const except = (count: number, others: number[]) => allIds(count).filter((id) => !others.includes(id));

describe('a run that version 0.1 has finished', () => {
  test('keeps its rows and failures, and pays again only for what expired', async () => {
    const queue = await embeddedFixture();
    onTestFinished(() => queue.cleanup());
    await restoreFiles('finished', queue.target.label);
    const flags = ['--key-column', 'id'];
    const { receipt } = await endOf(startRun({ workspace, api: simulator.url, queue: queue.url, flags }), 2);
    expect(receipt).toMatchObject({ rows: 18, resumed: 8, failed: 6, remaining: 0, submits: 3 });
    expect(paidNow()).toEqual([1, 3, 9]);
    const broken = ['14 invalid-url', '15 invalid-url', '16 bad-record', '4 duplicate-key'];
    const described = except(17, [5, 11, 14, 15, 16]);
    await expectFiles('finished', described, [...broken, '5 rejected', '11 rejected']);
  });
});

describeOnRedis('a run that version 0.1 has left open', (openQueue) => {
  async function resume(name: string) {
    const { url, target } = await openQueue();
    await restoreFiles(name, target.label);
    await restoreRedis(url);
    return endOf(startRun({ workspace, api: simulator.url, queue: url, maxInFlight: 6 }), 2);
  }

  test('by Ctrl-C: images in flight are waited for, and one that was not submitted is', async () => {
    const { receipt } = await resume('interrupted');
    expect(receipt).toMatchObject({ rows: 20, described: 7, resumed: 11, failed: 2, remaining: 0 });
    expect(receipt).toMatchObject({ reattached: 6, submits: 1, maybePaidTwice: 0 });
    expect(paidNow()).toEqual([20]);
    await expectFiles('interrupted', except(20, [5, 11]), ['5 rejected', '11 rejected']);
  });

  test('by kill -9: results are written, images in flight are waited for, lost submits are counted', async () => {
    const { receipt } = await resume('killed');
    expect(receipt).toMatchObject({ rows: 31, described: 22, resumed: 6, failed: 3, remaining: 0 });
    // Eight results were not written yet, and four images had a message. Two submits (24, 28) were on the
    // wire; two answers of the API were 500 before that.
    expect(receipt).toMatchObject({ reattached: 12, submits: 10, maybePaidTwice: 4 });
    expect(paidNow()).toEqual([1, 8, 9, 17, 20, 21, 24, 28, 30, 31]);
    await expectFiles('killed', except(31, [5, 11, 22]), ['5 rejected', '11 rejected', '22 rejected']);
  });
});
