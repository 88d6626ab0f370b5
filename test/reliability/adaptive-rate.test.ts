import { describe, expect, test } from 'vitest';
import { receiptLines } from '../../src/cli/summary.js';
import type { Progress } from '../../src/run/run-options.js';
import type { Rate } from '../../src/shared/limits.js';
import {
  FULL_RATE,
  type LearnedRate,
  afterRateLimit,
  afterSubmit,
  shareAt,
} from '../../src/shared/account-limits.js';
import { seededRandom } from '../../src/simulator/messages.js';
import { holdQueue } from '../../src/shared/queue/limiter.js';
import { describeOnBothQueues } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { runToReceipt } from '../helpers/run-fixture.js';
import { Workspace } from '../helpers/workspace.js';
import { SharedQueue, expectCalls } from './api-fixture.js';
import { type Act, acts, startScriptedApi } from './scripted-api.js';

const T0 = 1_800_000_000_000;
const seed = Date.now() % 1_000_000;

/** A storm: 429s at random, with or without `Retry-After`, submits going through between. */
function randomStorm(random: () => number): { learned: LearnedRate; lastAt: number } {
  let learned = FULL_RATE;
  let nowMs = T0;
  for (let refusals = 1 + Math.floor(random() * 200); refusals > 0; refusals--) {
    nowMs += Math.floor(random() * 4000);
    const retryAfterMs = random() < 0.5 ? undefined : Math.floor(random() * 5000);
    ({ learned } = afterRateLimit(learned, nowMs, retryAfterMs));
    if (random() < 0.3) learned = afterSubmit(learned);
  }
  return { learned, lastAt: Math.max(nowMs, learned.heldUntil) };
}

describe('the learned rate, after any storm', () => {
  const storms = Array.from({ length: 300 }, (_, storm) => randomStorm(seededRandom(seed + storm)));

  test('is between a tenth and all of the configured rate, and falls at once', () => {
    for (const { learned, lastAt } of storms) {
      expect(shareAt(learned, learned.fellAt), `seed ${seed}`).toBeLessThanOrEqual(0.5);
      for (const ms of [0, 1, 5000, 60_000, 10 ** 9]) {
        expect(shareAt(learned, lastAt + ms), `seed ${seed}`).toBeGreaterThanOrEqual(0.1);
        expect(shareAt(learned, lastAt + ms), `seed ${seed}`).toBeLessThanOrEqual(1);
      }
    }
  });

  test('never falls by time alone, and rises by no more than a twentieth at a time', () => {
    for (const { learned, lastAt } of storms) {
      const shares = Array.from({ length: 120 }, (_, count) => shareAt(learned, lastAt + count * 500));
      const rises = shares.map((share, index) => share - (shares[index - 1] ?? share));
      expect(Math.min(...rises), `seed ${seed}`).toBeGreaterThanOrEqual(0);
      expect(Math.max(...rises), `seed ${seed}`).toBeLessThan(0.0501);
    }
  });

  test('is back at 95 % of the configured rate within 60 s', () => {
    for (const { learned, lastAt } of storms) {
      expect(shareAt(learned, lastAt + 60_000), `seed ${seed}`).toBeGreaterThanOrEqual(0.95);
    }
  });

  test('without Retry-After the pauses grow, also when the first submit after each of them is refused', () => {
    let learned = FULL_RATE;
    let nowMs = T0;
    const pauses = Array.from({ length: 8 }, () => {
      const fall = afterRateLimit(learned, nowMs, undefined);
      learned = fall.learned;
      nowMs += fall.pauseMs + 5;
      return fall.pauseMs;
    });
    expect(pauses).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
  });
});

const sharedQueue = SharedQueue.forFile();

describe.concurrent('a storm of 429s in a run', () => {
  test('the achieved rate falls, everything is described, and the receipt says what was learned', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const simulator = await fixture.simulate({ retryAfter: 'none' });
    const rate: Rate = { count: 8, perMs: 1000 };
    const manifest = await fixture.manifest(Array.from({ length: 40 }, (_, i) => `http://h.test/${i}.jpg`));
    const shares: number[] = [];
    const running = fixture.run({
      manifest,
      api: simulator.url,
      attempts: 1,
      limits: { rate, pollRate: { count: 500, perMs: 1000 }, maxInFlight: 30 },
      onEvent: (event) => {
        if (event.type === 'progress') shares.push((event.progress satisfies Progress).share);
      },
    });
    const paid = () => simulator.stats().paid;
    await waitUntil('it is at full speed', () => paid() >= 5);
    const full = await paceOf(paid, 1500);
    simulator.setOptions({ rateLimit: { count: 1, perMs: 60_000 } });
    await waitUntil('it was refused', () => simulator.stats().answered429 > 0);
    simulator.setOptions({ rateLimit: null });
    const before = paid();
    await waitUntil('the pause is over', () => paid() > before);
    const slowed = await paceOf(paid, 1500);
    const run = await running;
    expect(slowed).toBeLessThan(0.7 * full);
    expect(shares[0]).toBe(1);
    expect(Math.min(...shares)).toBeLessThanOrEqual(0.5);
    expect(run.exitCode).toBe(0);
    expect(run.receipt).toMatchObject({ described: 40, maybePaidTwice: 0 });
    expectCalls(run, simulator.stats());
    expect(run.receipt.submits).toBe(40 + simulator.stats().answered429);
    expect(run.learnedShare).toBeLessThan(1);
    expect(receiptLines(run, 'again').join('\n')).toMatch(
      /^rate {6}slowed by the API to \d\d % of 8\/s when the run ended$/m,
    );
  });

  test('says nothing of the rate when it is the configured one', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const simulator = await fixture.simulate();
    const manifest = await fixture.manifest(['http://h.test/1.jpg']);
    const run = await fixture.run({ manifest, api: simulator.url });
    expect(run.learnedShare).toBe(1);
    expect(receiptLines(run, 'again').join('\n')).not.toMatch(/^rate/m);
  });

  test('an account that allows less than was configured is gone along with, at about its rate', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const simulator = await fixture.simulate({ rateLimit: { count: 10, perMs: 1000 } });
    const manifest = await fixture.manifest(Array.from({ length: 40 }, (_, i) => `http://h.test/${i}.jpg`));
    const limits = {
      rate: { count: 20, perMs: 1000 },
      pollRate: { count: 500, perMs: 1000 },
      maxInFlight: 10,
    };
    const startedAt = performance.now();
    const run = await fixture.run({ manifest, api: simulator.url, attempts: 1, limits });
    expect(run.receipt).toMatchObject({ described: 40, failed: 0 });
    expectCalls(run, simulator.stats());
    expect(simulator.stats().answered429).toBeLessThan(15);
    expect(performance.now() - startedAt).toBeLessThan(25_000);
  });
});

/** Submits that go through in `ms`, per second. */
async function paceOf(paid: () => number, ms: number): Promise<number> {
  const [startedAt, before] = [performance.now(), paid()];
  await waitUntil('some time has passed', () => performance.now() - startedAt >= ms);
  return ((paid() - before) / (performance.now() - startedAt)) * 1000;
}

describeOnBothQueues('holding a queue', (openQueue, kind) => {
  test('a running longer wait is never shortened, whoever asks, in whatever order', async () => {
    const fixture = await openQueue();
    const own = await fixture.connect();
    // The embedded queue has one process; its workers share the connection.
    const other = kind === 'redis' ? await fixture.connect() : own;
    const random = seededRandom(seed);
    for (let round = 0; round < 8; round++) {
      const name = `held-${round}`;
      const holds = Array.from({ length: 6 }, () => 1000 + Math.floor(random() * 60_000));
      const startedAt = performance.now();
      await Promise.all(
        holds.map((ms, worker) => {
          const connection = worker % 2 === 0 ? own : other;
          return holdQueue(connection.queue(name), connection.store, ms);
        }),
      );
      const leftMs = await own.queue(name).getRateLimitTtl();
      const least = Math.max(...holds) - (performance.now() - startedAt);
      expect(leftMs, `seed ${seed}, round ${round}`).toBeGreaterThanOrEqual(Math.floor(least) - 5);
      expect(leftMs, `seed ${seed}, round ${round}`).toBeLessThanOrEqual(Math.max(...holds) + 5);
    }
  });

  test('a shorter wait that comes later changes nothing, a longer one counts at once', async () => {
    const { queue, store } = await connectionOf();
    await holdQueue(queue, store, 30_000);
    await holdQueue(queue, store, 50);
    expect(await queue.getRateLimitTtl()).toBeGreaterThan(25_000);
    await holdQueue(queue, store, 90_000);
    expect(await queue.getRateLimitTtl()).toBeGreaterThan(80_000);
  });

  test('a wait of nothing is no error', async () => {
    const { queue, store } = await connectionOf();
    await holdQueue(queue, store, 0);
    await waitUntil('it is over', async () => (await queue.getRateLimitTtl()) <= 0);
  });

  test('the wait that an API asks for holds over a restart', async ({ onTestFinished }) => {
    const workspace = await Workspace.create();
    onTestFinished(() => workspace.remove());
    const refused: number[] = [];
    const refusal: Act = (call) => {
      refused.push(performance.now());
      acts.answer(429, { message: 'too many' }, { 'retry-after': '8' })(call);
    };
    const api = await startScriptedApi({ submit: () => (refused.length === 0 ? refusal : undefined) });
    onTestFinished(() => api.close());
    const { url } = await openQueue();
    const interrupt = new AbortController();
    const about = {
      manifest: await workspace.write('m.csv', 'image\nhttp://h.test/1.jpg\n'),
      output: workspace.at('out.csv'),
      api: api.url,
      queue: url,
    };
    const first = runToReceipt({ ...about, signal: interrupt.signal });
    await waitUntil('it was refused', () => refused.length > 0);
    interrupt.abort();
    await first;
    expect((await runToReceipt(about)).receipt).toMatchObject({ described: 1 });
    const [refusedAt = 0] = refused;
    const [, againAt = 0] = api.submitTimes;
    expect(againAt - refusedAt).toBeGreaterThanOrEqual(7990);
  });

  async function connectionOf() {
    const connection = await (await openQueue()).connect();
    return { queue: connection.queue('held'), store: connection.store };
  }
});
