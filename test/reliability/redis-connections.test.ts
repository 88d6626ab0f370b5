import { Redis } from 'ioredis';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { openQueue } from '../../src/shared/queue/connection.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { retryUntilUp } from '../../src/shared/queue/outage.js';
import { redisAvailable, startRedis } from '../helpers/redis.js';
import { soon } from '../helpers/wait-until.js';

async function setUp() {
  const server = await startRedis();
  onTestFinished(() => server.stop());
  const connection = await openQueue(parseQueueUrl(server.url, {}));
  onTestFinished(() => connection.close());
  const told: string[] = [];
  connection.outage.on((state, reason) => told.push(`${state}: ${reason}`));
  const queue = connection.queue<{ n: number }, number>('outage');
  const done: number[] = [];
  const startWorker = () =>
    connection.worker<{ n: number }, number>(
      queue.name,
      (job) => {
        done.push(job.data.n);
        return Promise.resolve(job.data.n);
      },
      { concurrency: 5 },
    );
  return { server, connection, queue, told, done, startWorker };
}

describe.skipIf(!redisAvailable)('while Redis is away', () => {
  test('commands wait and go on when it returns, and it is told once each way', async () => {
    const { server, queue, told, done, startWorker } = await setUp();
    startWorker();
    await queue.add('x', { n: 1 });
    await vi.waitFor(() => expect(done).toEqual([1]), soon);
    await server.kill9();
    const adding = Promise.all([2, 3, 4].map((n) => queue.add('x', { n })));
    await vi.waitFor(() => expect(told).toHaveLength(1), soon);
    await server.restart();
    await adding;
    await vi.waitFor(() => expect(done.sort()).toEqual([1, 2, 3, 4]), soon);
    await vi.waitFor(() => expect(told).toHaveLength(2), soon);
    expect(told[0]).toMatch(/^down: Redis at redis:\/\/127\.0\.0\.1:\d+ does not answer/);
    expect(told[1]).toMatch(/^up: /);
  });

  test('a worker can be started, and works when it returns', async () => {
    const { server, queue, done, startWorker } = await setUp();
    await server.kill9();
    const drained = vi.fn();
    startWorker().on('drained', drained);
    await server.restart();
    for (const n of [1, 2]) {
      await queue.add('x', { n });
      await vi.waitFor(() => expect(done).toContain(n), soon);
      // From now on it waits to be told of jobs, and does not look by itself.
      await vi.waitFor(() => expect(drained).toHaveBeenCalled(), soon);
    }
  });

  test(
    'a server that keeps its connections and says nothing is away as well',
    { timeout: 60_000 },
    async () => {
      const { server, queue, told } = await setUp();
      server.freeze();
      onTestFinished(() => server.thaw());
      const adding = queue.add('x', { n: 1 });
      await vi.waitFor(() => expect(told).toEqual([expect.stringMatching(/^down: .*does not answer/)]), {
        timeout: 40_000,
      });
      server.thaw();
      await adding;
      await vi.waitFor(() => expect(told[1]).toMatch(/^up: /), soon);
    },
  );

  test('the signal ends the waiting', async () => {
    const { server, connection, queue, told } = await setUp();
    await server.kill9();
    const stop = new AbortController();
    const adding = retryUntilUp(connection, () => queue.add('x', { n: 1 }), stop.signal);
    await vi.waitFor(() => expect(told).toHaveLength(1), soon);
    const reason = new Error('interrupted');
    stop.abort(reason);
    await expect(adding).rejects.toBe(reason);
    const addAnother = vi.fn(() => queue.add('x', { n: 2 }));
    await expect(retryUntilUp(connection, addAnother, stop.signal)).rejects.toBe(reason);
    expect(addAnother).not.toHaveBeenCalled();
  });

  test('an idle worker can be closed', async () => {
    const { server, startWorker, told } = await setUp();
    const worker = startWorker();
    await worker.waitUntilReady();
    await server.kill9();
    await vi.waitFor(() => expect(told).toHaveLength(1), soon);
    const began = performance.now();
    await worker.close();
    expect(performance.now() - began).toBeLessThan(10_000);
  });

  test('closing everything takes a few seconds at most, and what waited fails', async () => {
    const { server, connection, queue, told } = await setUp();
    const started = vi.fn();
    const worker = connection.worker<{ n: number }, number>(
      queue.name,
      async (job) => {
        started();
        await server.kill9();
        return job.data.n;
      },
      {},
    );
    await queue.add('x', { n: 1 });
    await vi.waitFor(() => expect(told).toHaveLength(1), soon);
    const adding = retryUntilUp(connection, () => queue.add('x', { n: 2 }));
    const failed = expect(adding).rejects.toThrow('Connection is closed');
    const began = performance.now();
    await connection.close();
    expect(performance.now() - began).toBeLessThan(20_000);
    await failed;
    await worker.close();
    expect(started).toHaveBeenCalledOnce();
  });
});

describe.skipIf(!redisAvailable)('while Redis is out of memory', () => {
  test('operations are tried again until there is room, and it is told once each way', async () => {
    const { server, connection, queue, told, done, startWorker } = await setUp();
    const admin = new Redis(server.url);
    onTestFinished(() => admin.disconnect());
    await admin.config('SET', 'maxmemory', '1');
    const attempts = vi.fn(() => queue.add('x', { n: 1 }));
    const adding = retryUntilUp(connection, attempts);
    const addingBulk = retryUntilUp(connection, () => queue.addBulk([{ name: 'x', data: { n: 2 } }]));
    const reserving = retryUntilUp(connection, () =>
      connection.store.takePermits('s', { intervalMs: 1, catchUpMs: 0, count: 1 }),
    );
    await vi.waitFor(() => expect(told).toHaveLength(1), soon);
    await vi.waitFor(() => expect(attempts.mock.calls.length).toBeGreaterThan(2), soon);
    await admin.config('SET', 'maxmemory', '0');
    await Promise.all([adding, addingBulk, reserving]);
    await vi.waitFor(() => expect(told).toHaveLength(2), soon);
    expect(told).toEqual([
      expect.stringMatching(/^down: Redis at .* is out of memory/),
      expect.stringMatching(/^up: /),
    ]);
    startWorker();
    await vi.waitFor(() => expect(done.sort()).toEqual([1, 2]), soon);
  });

  test('a worker that cannot fetch says so through the connection, and goes on', async () => {
    const { server, queue, told, done, startWorker } = await setUp();
    const admin = new Redis(server.url);
    onTestFinished(() => admin.disconnect());
    await queue.add('x', { n: 1 });
    await admin.config('SET', 'maxmemory', '1');
    startWorker();
    await vi.waitFor(() => expect(told).toHaveLength(1), soon);
    expect(done).toEqual([]);
    await admin.config('SET', 'maxmemory', '0');
    await vi.waitFor(() => expect(done).toEqual([1]), soon);
    await vi.waitFor(() => expect(told).toHaveLength(2), soon);
  });

  test('an error that does not pass is thrown at once', async () => {
    const { connection, queue } = await setUp();
    const job = await queue.add('x', { n: 1 });
    await job.remove();
    const update = vi.fn(() => job.updateData({ n: 2 }));
    await expect(retryUntilUp(connection, update)).rejects.toThrow(/^Missing key for job/);
    expect(update).toHaveBeenCalledOnce();
  });

  test('what was active can be finished', async () => {
    const { server, connection, queue } = await setUp();
    const admin = new Redis(server.url);
    onTestFinished(() => admin.disconnect());
    const job = await queue.add('x', { n: 1 });
    connection.worker<{ n: number }, number>(
      queue.name,
      async () => {
        await admin.config('SET', 'maxmemory', '1');
        return 1;
      },
      {},
    );
    await vi.waitFor(async () => expect(await job.getState()).toBe('completed'), soon);
  });
});
