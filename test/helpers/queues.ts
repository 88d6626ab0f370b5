import { randomUUID } from 'node:crypto';
import { cpSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe } from 'vitest';
import { type OpenQueueOptions, type QueueConnection, openQueue } from '../../src/shared/queue/connection.js';
import { type QueueTarget, parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { type TestRedis, redisAvailable, startRedis } from './redis.js';

/** A queue that only one test has. */
export interface QueueFixture {
  readonly kind: QueueTarget['kind'];
  /** For `--queue`. */
  readonly url: string;
  readonly target: QueueTarget;
  /** Opens a connection that ends with the suite, if it was not closed before. */
  readonly connect: (options?: OpenQueueOptions) => Promise<QueueConnection>;
  /** Closes the connections and removes the queue; happens by itself when the suite ends. */
  readonly cleanup: () => Promise<void>;
}

/** Makes a fresh, empty queue. */
export type OpenFixture = () => Promise<QueueFixture>;

/**
 * Registers a suite for each kind of queue. Redis is one server of the test file's own, each queue in a
 * database of its own; embedded queues are directories of their own. What is opened ends with the suite.
 */
export function describeOnBothQueues(
  title: string,
  define: (open: OpenFixture, kind: QueueTarget['kind']) => void,
): void {
  describeOnRedis(`${title} (Redis)`, (open) => define(open, 'redis'));
  describe(`${title} (embedded)`, () => {
    define(fixturesOf(embeddedFixture), 'embedded');
  });
}

/** Registers a suite about what only Redis can do, as above. */
export function describeOnRedis(title: string, define: (open: OpenFixture) => void): void {
  describe.skipIf(!redisAvailable)(title, () => {
    let redis: TestRedis | undefined;
    let database = 0;
    beforeAll(async () => {
      redis = await startRedis();
    });
    afterAll(() => redis?.stop());
    define(fixturesOf(() => {
      if (redis === undefined) throw new Error('Redis is there from the beginning of the suite only');
      return Promise.resolve(fixture(`${redis.url}/${database++}`, () => Promise.resolve()));
    }));
  });
}

/**
 * Registers a suite of rules that hold whatever the queue is: on Redis, where a run costs a fifth of the processor
 * time, or on embedded queues where there is no Redis.
 */
export function describeOnAnyQueue(title: string, define: (open: OpenFixture) => void): void {
  if (redisAvailable) describeOnRedis(title, define);
  else describe(title, () => define(fixturesOf(embeddedFixture)));
}

/** An embedded queue in a directory of its own; `cleanup` removes it. */
export async function embeddedFixture(): Promise<QueueFixture> {
  const directory = await mkdtemp(join(tmpdir(), 'bulk-describe-queue-'));
  // A thousand files, which `cp` copies for four times the processor time.
  cpSync(await embeddedTemplate(), join(directory, 'pgdata'), { recursive: true });
  return fixture(`embedded:${directory}`, () => rm(directory, { recursive: true, force: true }));
}

function fixturesOf(create: OpenFixture): OpenFixture {
  const made: QueueFixture[] = [];
  afterAll(async () => {
    for (const each of made.reverse()) await each.cleanup();
  });
  return async () => {
    const one = await create();
    made.push(one);
    return one;
  };
}

function fixture(url: string, remove: () => Promise<void>): QueueFixture {
  const target = parseQueueUrl(url, {});
  const connections: QueueConnection[] = [];
  return {
    kind: target.kind,
    url,
    target,
    async connect(options) {
      const connection = await openQueue(target, options);
      connections.push(connection);
      return connection;
    },
    async cleanup() {
      for (const connection of connections.reverse()) await connection.close();
      await remove();
    },
  };
}

let template: Promise<string> | undefined;

/** An empty embedded queue to copy. Kept between runs, per version. */
function embeddedTemplate(): Promise<string> {
  template ??= makeTemplate();
  return template;
}

async function makeTemplate(): Promise<string> {
  const cache = resolve('node_modules', '.cache', 'bulk-describe-test');
  const versions = [await versionOf('@electric-sql/pglite'), await versionOf('bullmq')];
  const path = join(cache, `embedded-${versions.join('-')}`);
  const isThere = async () => (await stat(path).catch(() => undefined)) !== undefined;
  if (await isThere()) return path;
  await mkdir(cache, { recursive: true });
  const directory = join(cache, randomUUID());
  try {
    const connection = await openQueue(parseQueueUrl(`embedded:${directory}`, {}));
    await connection.close();
    // Another test file may have been faster; its template is as good.
    await rename(join(directory, 'pgdata'), path).catch(async (error: unknown) => {
      if (!(await isThere())) throw error;
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  return path;
}

async function versionOf(packageName: string): Promise<string> {
  const manifest = await readFile(resolve('node_modules', packageName, 'package.json'), 'utf8');
  return /"version": "([^"]+)"/.exec(manifest)?.[1] ?? 'unknown';
}
