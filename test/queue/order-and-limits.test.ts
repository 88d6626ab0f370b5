import { RateLimitError, WaitingError } from 'bullmq';
import { beforeAll, expect, onTestFinished, test, vi } from 'vitest';
import type { JobQueue, JobWorkerOptions, QueueConnection } from '../../src/shared/queue/connection.js';
import { describeOnBothQueues } from '../helpers/queues.js';
import { soon } from '../helpers/wait-until.js';

type Queue = JobQueue<object, string>;
describeOnBothQueues('order and limits', (open, kind) => {
  let connection: QueueConnection;
  let count = 0;
  beforeAll(async () => {
    connection = await (await open()).connect();
  });

  const freshQueue = (): Queue => connection.queue<object, string>(`order-${count++}`);

  async function addAll(queue: Queue, names: string[], priority?: (name: string) => number): Promise<void> {
    for (const name of names) await queue.add(name, {}, { jobId: `id.${name}`, priority: priority?.(name) });
  }

  function work(
    queue: Queue,
    process: (name: string, token: string) => Promise<void>,
    options: JobWorkerOptions,
  ) {
    const worker = connection.worker<object, string>(
      queue.name,
      async (job, token) => {
        await process(job.name, token ?? '');
        return '';
      },
      options,
    );
    onTestFinished(() => worker.close());
    return worker;
  }

  /** Notes in which order jobs start, one at a time. */
  function noteStarts(queue: Queue, options: JobWorkerOptions = {}) {
    const started: { name: string; atMs: number }[] = [];
    const note = (name: string) => {
      started.push({ name, atMs: performance.now() });
      return Promise.resolve();
    };
    work(queue, note, options);
    return { started, names: () => started.map(({ name }) => name).join(' ') };
  }

  test('takes jobs without a priority before those with one, and low numbers before high ones', async () => {
    const queue = freshQueue();
    const priorities: Record<string, number> = { c: 3, a: 1, b: 2 };
    await addAll(queue, ['c', 'b', 'a', 'none'], (name) => priorities[name] ?? 0);
    const { names } = noteStarts(queue);
    await vi.waitFor(() => expect(names()).toBe('none a b c'), soon);
  });

  test('lists the ids of each state', async () => {
    const queue = freshQueue();
    let end: (() => void) | undefined;
    await addAll(queue, ['fails', 'works', 'stays', 'waits']);
    await queue.add('late', {}, { jobId: 'id.late', delay: 60_000 });
    await queue.add('low', {}, { jobId: 'id.low', priority: 5 });
    work(
      queue,
      async (name) => {
        if (name === 'fails') throw new Error('told to');
        if (name === 'stays') await new Promise<void>((resolve) => (end = resolve));
      },
      {},
    );
    await vi.waitFor(
      async () => expect(await queue.getRanges(['active'], 0, -1)).toEqual(['id.stays']),
      soon,
    );
    expect(await queue.getRanges(['waiting'], 0, -1)).toEqual(['id.waits']);
    expect(await queue.getRanges(['prioritized'], 0, -1)).toEqual(['id.low']);
    expect(await queue.getRanges(['delayed'], 0, -1)).toEqual(['id.late']);
    expect(await queue.getRanges(['failed'], 0, -1)).toEqual(['id.fails']);
    expect(await queue.getRanges(['completed'], 0, -1)).toEqual(['id.works']);
    const unfinished = await queue.getRanges(['waiting', 'active', 'delayed', 'prioritized'], 0, -1);
    expect(unfinished.sort()).toEqual(['id.late', 'id.low', 'id.stays', 'id.waits']);
    end?.();
  });

  test('never has more jobs active than the global concurrency, over several workers', async () => {
    const queue = freshQueue();
    await queue.setGlobalConcurrency(3);
    const names = Array.from({ length: 30 }, (_, i) => `j${i}`);
    await addAll(queue, names);
    const ends: (() => void)[] = [];
    let active = 0;
    let most = 0;
    let done = 0;
    const process = async () => {
      most = Math.max(most, ++active);
      await new Promise<void>((resolve) => ends.push(resolve));
      active--;
      done++;
    };
    work(queue, process, { concurrency: 3 });
    work(queue, process, { concurrency: 3 });
    while (done < names.length) {
      const full = Math.min(3, names.length - done);
      await vi.waitFor(() => expect(active).toBe(full), soon);
      for (const end of ends.splice(0)) end();
      await vi.waitFor(() => expect(ends).toHaveLength(Math.min(3, names.length - done)), soon);
    }
    expect(most).toBe(3);
  });

  test('takes a raised global concurrency up without a restart', async () => {
    const queue = freshQueue();
    await queue.setGlobalConcurrency(1);
    await addAll(queue, ['a', 'b', 'c', 'd']);
    const ends: (() => void)[] = [];
    const worker = work(queue, () => new Promise<void>((resolve) => ends.push(resolve)), { concurrency: 1 });
    await vi.waitFor(() => expect(ends).toHaveLength(1), soon);
    await queue.setGlobalConcurrency(3);
    worker.concurrency = 3;
    ends[0]?.();
    await vi.waitFor(() => expect(ends).toHaveLength(4), soon);
    expect(await queue.getActiveCount()).toBe(3);
    for (const end of ends) end();
  });

  test('lets a changed global rate limit apply from the next window on', async () => {
    const queue = freshQueue();
    await queue.setGlobalRateLimit(1, 1000);
    await addAll(
      queue,
      Array.from({ length: 12 }, (_, i) => `j${i}`),
    );
    const { started } = noteStarts(queue, { concurrency: 5 });
    await vi.waitFor(() => expect(started).toHaveLength(3), soon);
    await queue.setGlobalRateLimit(1, 60);
    await vi.waitFor(() => expect(started).toHaveLength(12), soon);
    // Each start may be late on a busy machine, and the next one in time: what holds is the pace over several.
    const paceOf = (from: number, to: number) =>
      ((started[to]?.atMs ?? NaN) - (started[from]?.atMs ?? NaN)) / (to - from);
    expect(paceOf(0, 2)).toBeGreaterThan(500);
    expect(paceOf(3, 11)).toBeLessThan(500);
    expect(paceOf(3, 11)).toBeGreaterThan(40);
  });

  test('pauses for all workers on a rate limit error, and the job comes back without using an attempt', async () => {
    const queue = freshQueue();
    await queue.setGlobalRateLimit(10, 100);
    await addAll(queue, ['a', 'b', 'c']);
    let limited = false;
    const started: { name: string; atMs: number }[] = [];
    work(
      queue,
      async (name) => {
        started.push({ name, atMs: performance.now() });
        if (limited) return;
        limited = true;
        await queue.rateLimit(400);
        throw new RateLimitError();
      },
      {},
    );
    await vi.waitFor(() => expect(started).toHaveLength(4), soon);
    expect((started[1]?.atMs ?? 0) - (started[0]?.atMs ?? 0)).toBeGreaterThan(380);
    const order = started.map(({ name }) => name).join(' ');
    expect(order).toBe(kind === 'redis' ? 'a a b c' : 'a b c a');
    expect((await queue.getJob('id.a'))?.attemptsMade).toBe(1);
  });

  test('does not pause on a rate limit when the queue has no global one', async () => {
    const queue = freshQueue();
    await addAll(queue, ['a', 'b']);
    await queue.rateLimit(60_000);
    const { names } = noteStarts(queue);
    await vi.waitFor(() => expect(names()).toBe('a b'), soon);
  });

  test('a handed-back job without a priority goes to the head on Redis and to the tail on the embedded queue', async () => {
    const queue = freshQueue();
    await addAll(queue, ['a', 'b', 'c']);
    expect(await handBackFirst(queue)).toBe(kind === 'redis' ? 'a a b c' : 'a b c a');
  });

  test('a handed-back job with a priority goes to the head of its priority', async () => {
    const queue = freshQueue();
    await addAll(queue, ['a', 'b', 'c'], () => 2);
    expect(await handBackFirst(queue)).toBe('a a b c');
  });

  /** Hands the first job back once. @returns the order of starts */
  async function handBackFirst(queue: Queue): Promise<string> {
    const names: string[] = [];
    const worker = connection.worker<object, string>(
      queue.name,
      async (job, token) => {
        names.push(job.name);
        if (names.length > 1) return '';
        await job.moveToWait(token);
        throw new WaitingError();
      },
      {},
    );
    await vi.waitFor(() => expect(names).toHaveLength(4), soon);
    await worker.close();
    return names.join(' ');
  }
});
