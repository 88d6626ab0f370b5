import { Redis } from 'ioredis';
import { pino } from 'pino';
import { type TestContext, describe, expect, test } from 'vitest';
import { describeManifest } from '../../src/run/describe-manifest.js';
import type { RunOptions } from '../../src/run/run-options.js';
import { InterruptedEarlyError } from '../../src/shared/errors.js';
import { startSimulator } from '../helpers/simulator.js';
import { readRunFile } from '../../src/writer/run-file.js';
import { redisAvailable, startRedis } from '../helpers/redis.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { allIds, describedIds, endOf, startRun } from './run-process.js';

/** Longer than the lock of an active job lives. */
const LONGER_THAN_LOCKS_MS = 11_000;

/** Tests run at the same time: what each of them has opened ends with it alone. */
async function scene({ onTestFinished }: TestContext, rows: number, latencyMs: number) {
  const workspace = await Workspace.create();
  onTestFinished(() => workspace.remove());
  const redis = await startRedis();
  onTestFinished(() => redis.stop());
  const simulator = await startSimulator({ latencyMs, latencySpread: 0 });
  onTestFinished(() => simulator.close());
  await workspace.write('m.csv', manifestOf(rows));
  const admin = new Redis(redis.url);
  admin.on('error', () => undefined);
  onTestFinished(() => admin.disconnect());
  const start = (options: { rate?: string; maxInFlight?: number } = {}) =>
    startRun({ workspace, api: simulator.url, queue: redis.url, ...options });
  const paid = (count: number) => waitUntil(`${count} are paid for`, () => simulator.stats().paid >= count);
  /** Until so many jobs hold the message that they wait for. */
  const stored = (count: number) =>
    waitUntil(`${count} messages are stored`, async () => {
      const keys = await admin.keys('bulk-describe:describe@*.*');
      const data = await Promise.all(keys.map((key) => admin.hget(key, 'data').catch(() => null)));
      return data.filter((text) => text?.includes('"messageId"')).length >= count;
    });
  return { workspace, redis, admin, simulator, start, paid, stored };
}

const times = (text: string, pattern: RegExp) => text.split('\n').filter((line) => pattern.test(line)).length;

async function passes(ms: number): Promise<void> {
  const end = performance.now() + ms;
  await waitUntil('time passes', () => performance.now() > end);
}

describe.skipIf(!redisAvailable).concurrent('a run whose Redis', () => {
  test('dies and comes back goes on, says so once each way, and pays for nothing twice', async (test) => {
    const { workspace, redis, simulator, start, paid } = await scene(test, 40, 300);
    const run = start({ rate: '20/s' });
    await paid(15);
    await redis.kill9();
    await waitUntil('it says that it waits', () => run.stderr().includes('waiting for the queue'));
    await redis.restart();
    const { receipt, stderr } = await endOf(run);
    expect(receipt).toMatchObject({ rows: 40, described: 40, failed: 0 });
    expect([times(stderr, /waiting for the queue/), times(stderr, /the queue is back/)]).toEqual([1, 1]);
    expect(await describedIds(workspace)).toEqual(allIds(40));
    expect(simulator.stats().paid - 40).toBeLessThanOrEqual(receipt.maybePaidTwice);
    expect(simulator.stats().maxInFlight).toBeLessThanOrEqual(8);
  });

  test('is away for longer than locks live loses nothing, and pays for nothing twice', async (test) => {
    const { workspace, redis, simulator, start, stored } = await scene(test, 6, 3000);
    const run = start();
    await stored(6);
    await redis.kill9();
    await passes(LONGER_THAN_LOCKS_MS);
    await redis.restart();
    const { receipt } = await endOf(run);
    expect(receipt).toMatchObject({ described: 6, failed: 0, maybePaidTwice: 0 });
    expect(await describedIds(workspace)).toEqual(allIds(6));
    expect(simulator.stats().paid).toBe(6);
  });

  test('is full goes on when there is room again', async (test) => {
    const { workspace, admin, simulator, start, paid } = await scene(test, 40, 300);
    const run = start({ rate: '20/s' });
    await paid(15);
    await admin.config('SET', 'maxmemory', '1');
    await waitUntil('it says that it waits', () => run.stderr().includes('waiting for the queue'));
    await passes(1000);
    await admin.config('SET', 'maxmemory', '0');
    const { receipt, stderr } = await endOf(run);
    expect(receipt).toMatchObject({ described: 40, failed: 0 });
    expect(stderr).toMatch(/out of memory/);
    expect([times(stderr, /waiting for the queue/), times(stderr, /the queue is back/)]).toEqual([1, 1]);
    expect(await describedIds(workspace)).toEqual(allIds(40));
    expect(simulator.stats().paid - 40).toBeLessThanOrEqual(receipt.maybePaidTwice);
  });

  test('is flushed ends: what was in flight is described, the rest is lost until the next run; limits hold', async (test) => {
    const { workspace, redis, admin, simulator, paid } = await scene(test, 40, 1000);
    const rate = { count: 10, perMs: 1000 };
    const logged: string[] = [];
    const notices: string[] = [];
    const options: RunOptions = {
      manifest: workspace.at('m.csv'),
      output: workspace.at('out.csv'),
      api: simulator.url,
      token: 'any',
      queue: redis.url,
      limits: { rate, pollRate: { count: 500, perMs: 1000 }, maxInFlight: 6 },
      timing: { reconcileEveryMs: 500 },
      logger: pino({ level: 'warn' }, { write: (line: string) => logged.push(line) }),
      onEvent: (event) => {
        if (event.type === 'notice') notices.push(event.text);
      },
    };
    const running = describeManifest(options);
    await paid(10);
    await admin.flushall();
    const flushed = await running;
    const described = (await describedIds(workspace)).length;
    // What was in the results queue at that moment is gone with everything else; it is counted below.
    expect(described + 6).toBeGreaterThanOrEqual(simulator.stats().paid);
    expect([...flushed.failedByCode]).toEqual([['lost', 40 - described]]);
    expect(flushed.receipt).toMatchObject({ balanced: true, remaining: 0 });
    // One line or two for people, however many jobs are gone.
    expect(notices.filter((text) => text.includes('was Redis emptied'))).not.toEqual([]);
    expect([notices.length <= 2, logged]).toEqual([true, []]);
    const again = await describeManifest({ ...options, limits: undefined });
    expect(again.receipt).toMatchObject({ balanced: true, resumed: described, failed: 0, remaining: 0 });
    expect(await describedIds(workspace)).toEqual(allIds(40));
    expect(simulator.stats().paid - 40).toBeLessThanOrEqual(again.receipt?.maybePaidTwice ?? 0);
    expect(simulator.stats().maxInFlight).toBeLessThanOrEqual(6);
    expect(simulator.stats().maxSubmitsInASecond).toBeLessThanOrEqual(12);
  });

  test('is away when a person interrupts it ends by itself', async (test) => {
    const { redis, start, stored, workspace, simulator } = await scene(test, 6, 4000);
    const run = start();
    await stored(6);
    await redis.kill9();
    await waitUntil('it says that it waits', () => run.stderr().includes('waiting for the queue'));
    const interruptedAt = performance.now();
    run.child.kill('SIGINT');
    const { receipt } = await endOf(run, 130);
    expect(performance.now() - interruptedAt).toBeLessThan(35_000);
    expect(receipt).toMatchObject({ described: 0, remaining: 6 });
    await redis.restart();
    const again = await endOf(start());
    expect(again.receipt).toMatchObject({ described: 6, reattached: 6 });
    expect(await describedIds(workspace)).toEqual(allIds(6));
    expect(simulator.stats().paid).toBe(6);
  });

  test('goes away before it has said what is in flight: a second start ends when it is interrupted, and the next knows of that', async (test) => {
    const { redis, start, stored, workspace, simulator } = await scene(test, 6, 4000);
    const run = start();
    await stored(6);
    run.child.kill('SIGINT');
    await endOf(run, 130);
    const interrupt = new AbortController();
    let killed: Promise<void> | undefined;
    const onEvent: RunOptions['onEvent'] = (event) => {
      if (event.type === 'opened') killed = redis.kill9();
      if (event.type === 'notice' && event.isOutage === true) interrupt.abort();
    };
    const output = workspace.at('out.csv');
    const about = {
      manifest: workspace.at('m.csv'),
      output,
      api: simulator.url,
      token: 'any',
      queue: redis.url,
    };
    const second = describeManifest({ ...about, onEvent, signal: interrupt.signal });
    await expect(second).rejects.toThrow(InterruptedEarlyError);
    expect(await readRunFile(`${output}.run`)).toMatchObject({ open: true });
    await killed;
    await redis.restart();
    expect((await endOf(start())).receipt).toMatchObject({ described: 6, reattached: 6 });
  });

  test('lives on while the process sleeps for longer than locks live: nothing fails or is paid for twice', async (test) => {
    const { workspace, simulator, start, paid } = await scene(test, 10, 14_000);
    const run = start({ maxInFlight: 5 });
    await paid(5);
    simulator.setOptions({ latencyMs: 30 });
    run.child.kill('SIGSTOP');
    await passes(LONGER_THAN_LOCKS_MS);
    run.child.kill('SIGCONT');
    const { receipt } = await endOf(run);
    expect(receipt).toMatchObject({ described: 10, failed: 0 });
    expect(await describedIds(workspace)).toEqual(allIds(10));
    expect(simulator.stats().paid - 10).toBeLessThanOrEqual(receipt.maybePaidTwice);
  });
});
