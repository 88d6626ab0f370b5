import { DelayedError, RateLimitError, WaitingError } from 'bullmq';
import { beforeAll, expect, test, vi } from 'vitest';
import type { JobQueue, QueueConnection } from '../../src/shared/queue/connection.js';
import { describeOnBothQueues } from '../helpers/queues.js';
import { soon } from '../helpers/wait-until.js';

interface Data {
  readonly n: number;
}

/** How a processor that was told how to end ends. */
type Ending = 'complete' | 'fail' | 'moveToWait' | 'moveToDelayed' | 'rateLimit';

describeOnBothQueues('a job', (open, kind) => {
  let connection: QueueConnection;
  let count = 0;
  beforeAll(async () => {
    connection = await (await open()).connect();
  });

  function freshQueue(): JobQueue<Data, string> {
    return connection.queue<Data, string>(`q@example.com_8080@v2@default-${count++}`);
  }

  /** Works on a queue, ending activation by activation as told. Notes the counters of each activation. */
  function follow(queue: JobQueue<Data, string>, endings: Ending[]) {
    const seen: { started: number; made: number }[] = [];
    const left = [...endings];
    const worker = connection.worker<Data, string>(
      queue.name,
      async (job, token) => {
        seen.push({ started: job.attemptsStarted, made: job.attemptsMade });
        switch (left.shift() ?? 'complete') {
          case 'complete':
            return 'done';
          case 'fail':
            throw new Error('told to fail');
          case 'moveToWait':
            await job.moveToWait(token);
            throw new WaitingError();
          case 'moveToDelayed':
            await job.moveToDelayed(Date.now() + 10, token);
            throw new DelayedError();
          case 'rateLimit':
            await queue.rateLimit(50);
            throw new RateLimitError();
        }
      },
      { limiter: { max: 100, duration: 100 } },
    );
    return { seen, worker };
  }

  test('goes through, and its result is kept', async () => {
    const queue = freshQueue();
    const job = await queue.add('x', { n: 1 });
    const worker = connection.worker<Data, string>(
      queue.name,
      (each) => Promise.resolve(`did ${each.data.n}`),
      {},
    );
    await vi.waitFor(async () => expect(await job.getState()).toBe('completed'), soon);
    expect((await queue.getJob(job.id ?? ''))?.returnvalue).toBe('did 1');
    await worker.close();
  });

  test('starts at once when a worker waits for it', async () => {
    const queue = freshQueue();
    const drained = vi.fn();
    const done = () => Promise.resolve('done');
    const worker = connection.worker<Data, string>(queue.name, done, { drainDelay: 60 });
    worker.on('drained', drained);
    for (let round = 1; round <= 3; round++) {
      // The worker has found nothing and is about to wait, or waits.
      await vi.waitFor(() => expect(drained).toHaveBeenCalledTimes(round), soon);
      const added = performance.now();
      const job = await queue.add('x', { n: round });
      await vi.waitFor(async () => expect(await job.getState()).toBe('completed'), soon);
      // It would look again after a minute.
      expect(performance.now() - added).toBeLessThan(20_000);
    }
    await worker.close();
  });

  test('gives its signal to processors with three parameters', async () => {
    const queue = freshQueue();
    await queue.add('x', { n: 1 });
    const signals: unknown[] = [];
    const worker = connection.worker<Data, string>(
      queue.name,
      (_job, _token, signal) => {
        signals.push(signal);
        return Promise.resolve('');
      },
      {},
    );
    await vi.waitFor(() => expect(signals).toHaveLength(1), soon);
    expect(signals[0]).toBeInstanceOf(AbortSignal);
    await worker.close();
  });

  test('keeps an id with dots, and a second add with the id changes nothing', async () => {
    const queue = freshQueue();
    const jobId = 'Zk3_r-1.4fT9ab_-XyZ.x';
    await queue.add('x', { n: 1 }, { jobId });
    await queue.add('x', { n: 2 }, { jobId });
    await queue.addBulk([{ name: 'x', data: { n: 3 }, opts: { jobId } }]);
    expect((await queue.getJob(jobId))?.data).toEqual({ n: 1 });
    expect(await queue.getRanges(['waiting'], 0, -1)).toEqual([jobId]);
  });

  test('can be added again once it was removed', async () => {
    const queue = freshQueue();
    await queue.add('x', { n: 1 }, { jobId: 'run.image' });
    expect(await queue.remove('run.image')).toBe(1);
    await queue.add('x', { n: 2 }, { jobId: 'run.image' });
    expect((await queue.getJob('run.image'))?.data).toEqual({ n: 2 });
  });

  test('is held by one token alone, for as long as its lock is renewed', async () => {
    const queue = freshQueue();
    const job = await queue.add('x', { n: 1 });
    const renewed: unknown[] = [];
    const worker = connection.worker<Data, string>(
      queue.name,
      async (held, token) => {
        for (const each of [token ?? '', 'of-another']) renewed.push(await held.extendLock(each, 10_000));
        return 'done';
      },
      {},
    );
    await vi.waitFor(async () => expect(await job.getState()).toBe('completed'), soon);
    expect(renewed).toEqual([1, 0]);
    await worker.close();
  });

  test('handed back by moveToWait uses no attempt and starts again', async () => {
    const queue = freshQueue();
    const job = await queue.add('x', { n: 1 });
    const { seen, worker } = follow(queue, ['moveToWait', 'moveToWait']);
    await vi.waitFor(async () => expect(await job.getState()).toBe('completed'), soon);
    expect(seen).toEqual([
      { started: 1, made: 0 },
      { started: 2, made: 0 },
      { started: 3, made: 0 },
    ]);
    await worker.close();
  });

  test('counts a start for each activation, however the ones before ended', async () => {
    const queue = freshQueue();
    const job = await queue.add('x', { n: 1 }, { attempts: 3 });
    const { seen, worker } = follow(queue, ['moveToDelayed', 'rateLimit', 'fail', 'moveToWait']);
    await vi.waitFor(async () => expect(await job.getState()).toBe('completed'), soon);
    expect(seen.map(({ started }) => started)).toEqual([1, 2, 3, 4, 5]);
    expect(seen.map(({ made }) => made)).toEqual([0, 0, 0, 1, 1]);
    const ended = await queue.getJob(job.id ?? '');
    expect([ended?.attemptsStarted, ended?.attemptsMade]).toEqual([5, 2]);
    await worker.close();
  });

  test('counts the start that ended with its worker too', { timeout: 60_000 }, async () => {
    const queue = freshQueue();
    const job = await queue.add('x', { n: 1 });
    const neverEnds = vi.fn(() => new Promise<string>(() => undefined));
    const lost = connection.worker<Data, string>(queue.name, neverEnds, {
      lockDuration: 500,
      skipLockRenewal: true,
      skipStalledCheck: true,
    });
    await vi.waitFor(() => expect(neverEnds).toHaveBeenCalledOnce(), soon);
    await lost.close(true);
    const { seen, worker } = follow(queue, []);
    worker.opts.stalledInterval = 200;
    await vi.waitFor(async () => expect(await job.getState()).toBe('completed'), {
      timeout: 30_000,
      interval: 50,
    });
    expect(seen).toEqual([{ started: 2, made: 0 }]);
    await worker.close();
  });

  test('failed and retried keeps its starts, unless the retry resets them', async () => {
    const queue = freshQueue();
    const job = await queue.add('x', { n: 1 });
    const { seen, worker } = follow(queue, ['fail', 'fail', 'complete']);
    await vi.waitFor(async () => expect(await job.getState()).toBe('failed'), soon);
    await (await queue.getJob(job.id ?? ''))?.retry();
    await vi.waitFor(async () => {
      expect(seen).toHaveLength(2);
      expect(await job.getState()).toBe('failed');
    }, soon);
    await (await queue.getJob(job.id ?? ''))?.retry('failed', { resetAttemptsStarted: true });
    await vi.waitFor(async () => expect(await job.getState()).toBe('completed'), soon);
    expect(seen.map(({ started }) => started)).toEqual([1, 2, 1]);
    await worker.close();
  });

  test('retried with all others of its queue keeps its starts on Redis and loses them on the embedded queue', async () => {
    const queue = freshQueue();
    const job = await queue.add('x', { n: 1 });
    const { seen, worker } = follow(queue, ['fail', 'complete']);
    await vi.waitFor(async () => expect(await job.getState()).toBe('failed'), soon);
    await queue.retryJobs();
    await vi.waitFor(async () => expect(await job.getState()).toBe('completed'), soon);
    expect(seen.map(({ started }) => started)).toEqual(kind === 'redis' ? [1, 2] : [1, 1]);
    await worker.close();
  });
});
