import { beforeAll, describe, expect, test, vi } from 'vitest';
import {
  AHEAD_MS,
  LocalLimiter,
  type PermitRequest,
  type Permits,
  RateLimiter,
  permitsAt,
} from '../../src/shared/queue/limiter.js';
import type { SharedStore } from '../../src/shared/queue/store.js';
import { type QueueFixture, describeOnBothQueues } from '../helpers/queues.js';
import { soon, waitUntil } from '../helpers/wait-until.js';

const CATCH_UP_MS = 10;
const ONE = { intervalMs: 1, catchUpMs: 0, count: 1 };

describe('the arithmetic of a limiter', () => {
  const T0 = 1_000_000;
  /** A limiter whose next permit is due at `T0`. */
  function used(intervalMs: number): LocalLimiter {
    const limiter = new LocalLimiter();
    take(limiter, T0 - intervalMs + CATCH_UP_MS, intervalMs, 1);
    return limiter;
  }
  const take = (limiter: LocalLimiter, now: number, intervalMs: number, count: number) =>
    limiter.take({ intervalMs, catchUpMs: CATCH_UP_MS, count }, now);

  test.each<[string, LocalLimiter, number, number, number, Permits]>([
    ['gives the first at once', new LocalLimiter(), 0, 100, 1, { dueInMs: [0], nextInMs: 90 }],
    ['gives those that are near', new LocalLimiter(), 0, 20, 9, { dueInMs: [0, 10], nextInMs: 30 }],
    ['gives as many as are asked for', new LocalLimiter(), 0, 1, 2, { dueInMs: [0, 0], nextInMs: 0 }],
    ['gives none that is further away', used(100), -50, 100, 9, { dueInMs: [], nextInMs: 50 }],
    ['has no burst after a rest', used(60_000), 600_000, 60_000, 5, { dueInMs: [0], nextInMs: 59_990 }],
  ])('%s', (_rule, limiter, atMs, intervalMs, count, permits) => {
    expect(take(limiter, T0 + atMs, intervalMs, count)).toEqual(permits);
  });

  test('permits that were asked for a little late are made up for', () => {
    const limiter = new LocalLimiter();
    take(limiter, T0, 4, 3);
    expect(take(limiter, T0 + CATCH_UP_MS, 4, 4).dueInMs).toEqual([0, 0, 0, 4]);
  });

  test('a hold ends permits, grows, and is never shortened', () => {
    const limiter = new LocalLimiter();
    expect(limiter.hold(5000, T0)).toBe(5000);
    expect(limiter.hold(10, T0 + 1000)).toBe(4000);
    expect(take(limiter, T0 + 1000, 10, 5)).toEqual({ dueInMs: [], nextInMs: 4000 });
    expect(limiter.hold(9000, T0 + 1000)).toBe(9000);
    expect(limiter.hold(0, T0 + 20_000)).toBe(0);
    expect(take(limiter, T0 + 20_000, 60_000, 5).dueInMs).toEqual([0]);
  });

  test.each([
    ['20/min', { count: 20, perMs: 60_000 }, 3045, 0.164],
    ['10/s', { count: 10, perMs: 1000 }, 101.5, 4.926],
    ['200/s', { count: 200, perMs: 1000 }, 5.075, 40],
  ])('permits at %s', (_name, rate, intervalMs, catchUpMs) => {
    const request = permitsAt(rate, 7);
    expect(request.count).toBe(7);
    expect(request.intervalMs).toBeCloseTo(intervalMs);
    expect(request.catchUpMs).toBeCloseTo(catchUpMs, 2);
  });

  test('a higher rate counts at once', () => {
    const limiter = new LocalLimiter();
    take(limiter, T0, 60_000, 1);
    expect(take(limiter, T0 + 1, 10, 1).dueInMs).toEqual([0]);
  });
});

describeOnBothQueues('a limiter that processes share', (open, kind) => {
  let fixture: QueueFixture;
  /** The store as two processes have it, which the embedded queue cannot have. */
  let stores: [SharedStore, SharedStore];
  beforeAll(async () => {
    fixture = await open();
    const { store } = await fixture.connect();
    stores = [store, kind === 'redis' ? (await fixture.connect()).store : store];
  });

  test('gives no more permits than the time allows, whoever asks', async () => {
    const request = { intervalMs: 1000 / 3, catchUpMs: CATCH_UP_MS, count: 2 };
    const startedAt = performance.now();
    let given = 0;
    await waitUntil('a few were given', async () => {
      for (const store of stores) given += (await store.takePermits('shared', request)).dueInMs.length;
      return given >= 4;
    });
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(1000 - AHEAD_MS - CATCH_UP_MS - 5);
  });

  test('says when the next permit is due', async () => {
    const [a, b] = stores;
    const first = await a.takePermits('next', { intervalMs: 60_000, catchUpMs: CATCH_UP_MS, count: 3 });
    expect(first.dueInMs).toEqual([0]);
    expect(first.nextInMs).toBeCloseTo(60_000 - CATCH_UP_MS, 0);
    const second = await b.takePermits('next', { intervalMs: 60_000, catchUpMs: CATCH_UP_MS, count: 3 });
    expect(second.dueInMs).toEqual([]);
    expect(second.nextInMs).toBeGreaterThan(40_000);
    expect(second.nextInMs).toBeLessThanOrEqual(first.nextInMs);
  });

  test('holds permits back for all, and never shortens a hold', async () => {
    const [a, b] = stores;
    expect(await a.holdPermits('held', 60_000)).toBeGreaterThan(40_000);
    expect(await b.holdPermits('held', 1000)).toBeGreaterThan(40_000);
    const held = await b.takePermits('held', ONE);
    expect(held.dueInMs).toEqual([]);
    expect(held.nextInMs).toBeGreaterThan(40_000);
    expect(await a.holdPermits('not-held', 0)).toBe(0);
    expect((await a.takePermits('not-held', ONE)).dueInMs).toEqual([0]);
    await a.holdPermits('short', 30);
    const ends = async () => (await b.takePermits('short', ONE)).dueInMs.length;
    await vi.waitFor(async () => expect(await ends()).toBe(1), soon);
  });
});

describe('calls that wait for permits', () => {
  const forever = new AbortController().signal;

  /** An account's limiter, workers that share it, and how many permits each round trip asked for. */
  function account(count: number, perMs = 1000) {
    const local = new LocalLimiter();
    const counts: number[] = [];
    const take = (request: PermitRequest) => {
      counts.push(request.count);
      return Promise.resolve(local.take(request, performance.now()));
    };
    return { local, counts, worker: () => new RateLimiter({ rate: () => ({ count, perMs }), take }) };
  }

  test('get them in the order in which they came, no faster than the rate over all workers', async () => {
    const { worker } = account(100);
    const served: string[] = [];
    const startedAt = performance.now();
    const takes = [worker(), worker()].flatMap((limiter, name) =>
      Array.from({ length: 20 }, async (_, image) => {
        expect(await limiter.take(forever)).toBe(true);
        served.push(`${name}.${image}`);
      }),
    );
    await Promise.all(takes);
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(39 * 10 - 40 - AHEAD_MS);
    for (const name of ['0', '1']) {
      const own = served.filter((image) => image.startsWith(name));
      expect(own).toEqual(Array.from({ length: 20 }, (_, image) => `${name}.${image}`));
    }
  });

  test('are served many at a time, and take none far ahead', async () => {
    const { worker, counts, local } = account(1000);
    const limiter = worker();
    const stopping = new AbortController();
    const takes = Array.from({ length: 500 }, () => limiter.take(stopping.signal));
    expect(limiter.waiting).toBe(500);
    expect(await takes[0]).toBe(true);
    expect(counts).toEqual([500]);
    stopping.abort();
    const had = (await Promise.all(takes)).filter((hasPermit) => hasPermit).length;
    expect(had).toBeLessThanOrEqual(AHEAD_MS + 40 + 2);
    expect(local.take({ ...ONE, count: 0 }, performance.now()).nextInMs).toBeLessThanOrEqual(AHEAD_MS + 2);
    expect(limiter.waiting).toBe(0);
  });

  test('leave their permits to the next ones when they give up', async () => {
    const { worker } = account(2);
    const limiter = worker();
    const givesUp = new AbortController();
    const takes = [
      limiter.take(forever),
      ...[1, 2, 3].map(() => limiter.take(givesUp.signal)),
      limiter.take(forever),
    ];
    expect(await takes[0]).toBe(true);
    givesUp.abort();
    const startedAt = performance.now();
    expect(await Promise.all(takes)).toEqual([true, false, false, false, true]);
    expect(performance.now() - startedAt).toBeLessThan(4 * 500);
  });

  test('wait for nothing once nobody needs a permit, and again afterwards', async () => {
    const { worker } = account(1, 60_000);
    const limiter = worker();
    expect(await limiter.take(forever)).toBe(true);
    const stopping = new AbortController();
    const take = limiter.take(stopping.signal);
    await new Promise((resolve) => setImmediate(resolve));
    stopping.abort();
    expect(await take).toBe(false);
    expect(await limiter.take(stopping.signal)).toBe(false);
  });

  test('are told when permits cannot be taken, and the next ones ask again', async () => {
    let isBroken = true;
    const limiter = new RateLimiter({
      rate: () => ({ count: 1, perMs: 1 }),
      take: () =>
        isBroken ? Promise.reject(new Error('no permits')) : Promise.resolve({ dueInMs: [0], nextInMs: 0 }),
    });
    await expect(Promise.all([limiter.take(forever), limiter.take(forever)])).rejects.toThrow('no permits');
    isBroken = false;
    expect(await limiter.take(forever)).toBe(true);
  });
});
