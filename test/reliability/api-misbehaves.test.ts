import { describe, expect, test } from 'vitest';
import { startSimulator } from '../helpers/simulator.js';
import type { ErrorCode } from '../../src/shared/jobs.js';
import { waitUntil } from '../helpers/wait-until.js';
import { SharedQueue, expectCalls } from './api-fixture.js';
import { type Act, acts, refuse } from './scripted-api.js';

const sharedQueue = SharedQueue.forFile();

const urlOf = (name: string) => `http://images.test/${name}.jpg`;
const nameOf = (url: string) => /\/([^/]+)\.jpg$/.exec(url)?.[1] ?? '';

const past = 'Thu, 01 Jan 2026 00:00:00 GMT';
const soon = () => new Date(Date.now() + 1500).toUTCString();

describe.concurrent('an API that misbehaves at submits', () => {
  test('every image is described, and each lost answer is counted as perhaps paid', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const notPaid = {
      500: refuse(500),
      '503-after': refuse(503, { 'retry-after': '1' }),
      408: refuse(408),
      409: refuse(409),
      425: refuse(425),
      'refused-503': refuse(503, {}, { success: false, msg: 'try again' }),
      redirect: refuse(302, { location: 'http://127.0.0.1:1/' }),
    };
    const paid = {
      'reset-at-once': acts.resetAtOnce,
      'reset-during': acts.resetDuring,
    };
    // They are asked for once more only.
    const unreadable = {
      'cut-off': acts.cutOff,
      html: acts.html,
      empty: acts.answer(200, ''),
      'wrong-shape': acts.answer(200, { success: true }),
      'no-json': acts.answer(200, '{"success": true, "messageId": NaN}'),
    };
    const tooLate = {
      never: acts.never,
      'half-and-no-more': acts.halfAndNoMore,
      'too-slow': acts.slowly(60_000),
    };
    const ways = new Map(Object.entries({ ...notPaid, ...paid, ...unreadable, ...tooLate }));
    const isOnce = (name: string) => Object.hasOwn(tooLate, name) || Object.hasOwn(unreadable, name);
    const timesOf = (name: string) => (isOnce(name) ? 1 : ways.has(name) ? 2 : 0);
    const api = await fixture.scripted({
      submit: (url, nth) => (nth <= timesOf(nameOf(url)) ? ways.get(nameOf(url)) : undefined),
    });
    const names = [...ways.keys()].flatMap((name) => [`good-${name}`, name]);
    const manifest = await fixture.manifest(names.map(urlOf));
    const run = await fixture.run({ manifest, api: api.url, requestTimeoutMs: 4000, attempts: 4 });
    expect(await fixture.described()).toEqual(names.map(urlOf).sort());
    expectCalls(run, api);
    expect(run.exitCode).toBe(0);
    const paidTimes = Object.fromEntries([...api.paid].map(([url, times]) => [nameOf(url), times]));
    expect(paidTimes).toEqual(
      Object.fromEntries(names.map((name) => [name, Object.hasOwn(notPaid, name) ? 1 : 1 + timesOf(name)])),
    );
    // All but the one that was refused in so many words.
    const lost = names.filter((name) => name !== 'refused-503').map(timesOf);
    expect(run.receipt.maybePaidTwice).toBe(lost.reduce<number>((sum, times) => sum + times, 0));
  });

  test('an answer that comes slowly, but in time, is taken', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const api = await fixture.scripted({ submit: () => acts.slowly(300), poll: () => acts.slowly(300) });
    const manifest = await fixture.manifest(['a', 'b', 'c'].map(urlOf));
    const run = await fixture.run({ manifest, api: api.url, requestTimeoutMs: 2000 });
    expect(run.receipt).toMatchObject({ described: 3, submits: 3, maybePaidTwice: 0 });
  });

  test('an image that fails each time fails alone, after its attempts, with a code that can be accepted', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const bad: Readonly<Record<string, [act: Act, code: ErrorCode, attempts: number]>> = {
      500: [refuse(500), 'http', 3],
      reset: [acts.resetAtOnce, 'network', 3],
      never: [acts.never, 'network', 3],
      html: [acts.html, 'bad-response', 2],
      'cut-off': [acts.cutOff, 'bad-response', 2],
      400: [refuse(400), 'rejected', 1],
      refused: [refuse(200, {}, { success: false, msg: 'Invalid phrase' }), 'rejected', 1],
    };
    const api = await fixture.scripted({ submit: (url) => bad[nameOf(url)]?.[0] });
    const names = Object.keys(bad);
    const manifest = await fixture.manifest(names.flatMap((name) => [urlOf(name), urlOf(`good-${name}`)]));
    const options = { manifest, api: api.url, attempts: 3, requestTimeoutMs: 1500 };
    const run = await fixture.run({ ...options, accept: ['http', 'network', 'bad-response', 'rejected'] });
    expect(await fixture.described()).toEqual(names.map((name) => urlOf(`good-${name}`)).sort());
    const failures = await fixture.workspace.records('out.failed.csv');
    expect(
      Object.fromEntries(failures.map((row) => [row['image'], [row['error_code'], row['attempts']]])),
    ).toEqual(
      Object.fromEntries(names.map((name) => [urlOf(name), [bad[name]?.[1], String(bad[name]?.[2])]])),
    );
    expectCalls(run, api);
    expect(run.exitCode, 'all codes are accepted').toBe(0);
    const again = await fixture.run({ ...options, attempts: 1, accept: ['http', 'network', 'rejected'] });
    expect(again.receipt).toMatchObject({ resumed: 7, failed: 7, submits: 5 });
    expect(again.exitCode, 'one code is not').toBe(2);
  });
});

describe.concurrent('an API that says 429', () => {
  test.for<[string, () => Record<string, string>, number]>([
    ['with seconds', () => ({ 'retry-after': '1' }), 900],
    ['with a date', () => ({ 'retry-after': soon() }), 400],
    ['with a date that is over', () => ({ 'retry-after': past }), 0],
    ['with 0', () => ({ 'retry-after': '0' }), 0],
    ['without a word about when', () => ({}), 900],
    ['with a negative number', () => ({ 'retry-after': '-5' }), 900],
    ['with nonsense', () => ({ 'retry-after': 'later, perhaps' }), 900],
  ])('%s: everybody waits, no attempt is used, all are described', async ([, headers, leastMs], test) => {
    const fixture = await sharedQueue.fixture(test);
    const api = await fixture.scripted({
      submit: (url, nth) => (nth === 1 && url === urlOf('0') ? refuse(429, headers()) : undefined),
    });
    const manifest = await fixture.manifest(Array.from({ length: 8 }, (_, index) => urlOf(String(index))));
    const run = await fixture.run({
      manifest,
      api: api.url,
      attempts: 1,
      limits: { rate: { count: 50, perMs: 1000 }, pollRate: { count: 500, perMs: 1000 }, maxInFlight: 2 },
    });
    expect(run.receipt).toMatchObject({ described: 8, submits: 9, maybePaidTwice: 0 });
    expectCalls(run, api);
    const pauses = api.submitTimes.map((time, nth) => time - (api.submitTimes[nth - 1] ?? time));
    expect(Math.max(...pauses)).toBeGreaterThan(leastMs);
    expect(run.receipt.seconds).toBeLessThan(15);
  });

  test('with 10^9 seconds: a quarter of an hour is waited, and a run that is ended then has lost nothing', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    let isStrict = true;
    const api = await fixture.scripted({
      submit: () => (isStrict ? refuse(429, { 'retry-after': '1000000000' }) : undefined),
    });
    const manifest = await fixture.manifest(['a', 'b', 'c', 'd'].map(urlOf));
    const interrupt = new AbortController();
    const running = fixture.run({ manifest, api: api.url, account: 'patient', signal: interrupt.signal });
    const seen = await settled(() => api.submits, 1000);
    interrupt.abort();
    const run = await running;
    expect(run.exitCode).toBe(130);
    expect(run.receipt).toMatchObject({ rows: 4, remaining: 4, described: 0 });
    expectCalls(run, api);
    expect(seen).toBeLessThanOrEqual(4);
    isStrict = false;
    const other = await fixture.run({ manifest, api: api.url, account: 'another' });
    expect(other.receipt).toMatchObject({ described: 4, submits: 4, maybePaidTwice: 0 });
  });
});

/** The count that stays for so long. */
async function settled(read: () => number, ms: number): Promise<number> {
  let [count, since] = [-1, 0];
  await waitUntil('it stays the same', () => {
    if (read() !== count) [count, since] = [read(), performance.now()];
    return count > 0 && performance.now() - since > ms;
  });
  return count;
}

describe.concurrent('an API that misbehaves at polls', () => {
  test('every message is waited for, and no image is paid for again', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const ways = new Map(
      Object.entries({
        500: refuse(500),
        'not-found-yet': refuse(404),
        '429-after': refuse(429, { 'retry-after': '1' }),
        '429': refuse(429),
        402: refuse(402),
        html: acts.html,
        'cut-off': acts.cutOff,
        'reset-at-once': acts.resetAtOnce,
        'reset-during': acts.resetDuring,
        never: acts.never,
        'wrong-shape': acts.answer(200, { progress: 100 }),
        working: acts.answer(200, { progress: 40 }),
      }),
    );
    const api = await fixture.scripted({
      poll: (url, nth) => (nth <= 2 ? ways.get(nameOf(url)) : undefined),
    });
    const names = [...ways.keys()];
    const manifest = await fixture.manifest(names.map(urlOf));
    const run = await fixture.run({ manifest, api: api.url, attempts: 1, requestTimeoutMs: 1500 });
    expect(await fixture.described()).toEqual(names.map(urlOf).sort());
    expect(run.receipt).toMatchObject({ submits: names.length, maybePaidTwice: 0 });
    expectCalls(run, api);
    expect([...api.paid.values()]).toEqual(names.map(() => 1));
  });

  test('a message that vanishes, and comes back, is described', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const working = acts.answer(200, { progress: 10 });
    const api = await fixture.scripted({
      poll: (_url, nth) => (nth <= 2 ? working : nth <= 4 ? refuse(404) : undefined),
    });
    const manifest = await fixture.manifest([urlOf('gone')]);
    const run = await fixture.run({ manifest, api: api.url });
    expect(run.receipt).toMatchObject({ described: 1, submits: 1, polls: 5 });
    expectCalls(run, api);
  });

  test('a message that is never completed, or never found, fails at its deadline, and is asked for first next time', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    let isSlow = true;
    const api = await fixture.scripted({
      poll: (url) => {
        if (!isSlow) return undefined;
        return url === urlOf('lost') ? refuse(404) : acts.answer(200, { progress: 99 });
      },
    });
    const manifest = await fixture.manifest(['endless', 'lost'].map(urlOf));
    const first = await fixture.run({ manifest, api: api.url, deadlineMs: 1500, attempts: 1 });
    expect([...first.failedByCode]).toEqual([['deadline', 2]]);
    expect(first.exitCode).toBe(2);
    expectCalls(first, api);
    isSlow = false;
    const before = { submits: api.submits, polls: api.polls };
    const again = await fixture.run({ manifest, api: api.url });
    expect(again.receipt).toMatchObject({ described: 2, failed: 0, submits: 0, polls: 2 });
    expect([api.submits - before.submits, api.polls - before.polls]).toEqual([0, 2]);
  });

  test.for<[string, number, number, number]>([
    ['as often as --attempts says', 3, 1, 3],
    ['and ends as soon as one is completed', 5, 0, 3],
  ])('a message that expires is submitted again, %s', async ([, attempts, failed, submits], test) => {
    const fixture = await sharedQueue.fixture(test);
    const expired = acts.answer(200, { progress: 'incomplete' });
    const api = await fixture.scripted({
      poll: (_url, nth) => (nth < attempts && nth < 3 ? expired : failed ? expired : undefined),
    });
    const manifest = await fixture.manifest([urlOf('late')]);
    const run = await fixture.run({ manifest, api: api.url, attempts });
    expect(run.receipt).toMatchObject({ failed, described: 1 - failed, submits, maybePaidTwice: 0 });
    expectCalls(run, api);
  });
});

describe.concurrent('an API that is down for a while', () => {
  const images = (count: number) => Array.from({ length: count }, (_, index) => urlOf(String(index)));

  test('is probed, without using attempts up; when it is back everything is described', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const simulator = await fixture.simulate();
    simulator.setOptions({ down: true });
    const manifest = await fixture.manifest(images(40));
    const running = fixture.run({ manifest, api: simulator.url, attempts: 2 });
    const burst = await settled(() => simulator.stats().submits, 500);
    // The five that showed it, and what was on its way already.
    expect(burst).toBeLessThanOrEqual(5 + 20);
    const startedAt = performance.now();
    await waitUntil('two more probes were made', () => simulator.stats().submits >= burst + 2);
    expect(performance.now() - startedAt).toBeGreaterThan(1900);
    simulator.setOptions({ down: false });
    const run = await running;
    expect(run.receipt).toMatchObject({ described: 40, failed: 0 });
    expectCalls(run, simulator.stats());
    expect(run.exitCode).toBe(0);
  });

  test('goes down in the middle: messages that are paid for are waited for', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const simulator = await fixture.simulate();
    simulator.setOptions({ latencyMs: 1000, latencySpread: 0 });
    const manifest = await fixture.manifest(images(40));
    const running = fixture.run({ manifest, api: simulator.url, attempts: 2 });
    await waitUntil('ten are paid', () => simulator.stats().paid >= 10);
    simulator.setOptions({ down: true });
    await waitUntil('it was noticed', () => simulator.stats().answered503 >= 20);
    simulator.setOptions({ down: false, latencyMs: 20 });
    const run = await running;
    expect(run.receipt).toMatchObject({ described: 40, failed: 0 });
    expectCalls(run, simulator.stats());
    expect(simulator.stats().paid).toBe(40);
  });

  test('ends the run when it lasts: everything remains, nothing is paid, and the same command resumes', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const simulator = await fixture.simulate();
    simulator.setOptions({ down: true });
    const manifest = await fixture.manifest(images(60));
    const options = { manifest, api: simulator.url, timing: { downLimitMs: 1500, tickMs: 200 } };
    const run = await fixture.run(options);
    expect([run.exitCode, run.stop?.kind]).toEqual([4, 'down']);
    expect(run.stop?.reason).toMatch(/^the API has not answered for \d/);
    expect(run.receipt).toMatchObject({ rows: 60, remaining: 60, described: 0, failed: 0 });
    // What nobody would take up is not left in the queue, so it is counted at once.
    expect(run.receipt.maybePaidTwice).toBe(run.receipt.submits);
    expectCalls(run, simulator.stats());
    expect(simulator.stats().paid).toBe(0);
    simulator.setOptions({ down: false });
    const before = simulator.stats().submits;
    const resumed = await fixture.run(options);
    expect(resumed.receipt).toMatchObject({ described: 60, submits: 60, reattached: 0, maybePaidTwice: 0 });
    expect(simulator.stats().submits - before).toBe(60);
    expect(simulator.stats().paid).toBe(60);
  });

  test('a server that is not there at all: nothing counts as a call or as paid, nothing stays in the queue', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const simulator = await fixture.simulate();
    await simulator.close();
    const manifest = await fixture.manifest(images(30));
    const run = await fixture.run({
      manifest,
      api: simulator.url,
      timing: { downLimitMs: 1500, tickMs: 200 },
    });
    expect([run.exitCode, run.stop?.kind]).toEqual([4, 'down']);
    expect(run.receipt).toMatchObject({ remaining: 30, submits: 0, polls: 0, maybePaidTwice: 0 });
    const back = await startSimulator({ port: simulator.port, latencyMs: 20 });
    test.onTestFinished(() => back.close());
    const resumed = await fixture.run({ manifest, api: back.url });
    expect(resumed.receipt).toMatchObject({ described: 30, submits: 30, reattached: 0 });
  });

  test('an API that refuses everything is not down: each image is told so', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const refusal = refuse(400, {}, { success: false, msg: 'Invalid phrase' });
    const api = await fixture.scripted({ submit: (_url, nth) => (nth === 1 ? refuse(500) : refusal) });
    const manifest = await fixture.manifest(images(12));
    const run = await fixture.run({ manifest, api: api.url });
    expect([...run.failedByCode]).toEqual([['rejected', 12]]);
    expectCalls(run, api);
  });

  test('one worker that cannot reach the API does not hold the others back', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const theOther = urlOf('of-the-other');
    const manifestUrls = images(120);
    let inVain = 0;
    const api = await fixture.scripted({
      submit: () => (call) => {
        if (call.request.headers.authorization !== 'Bearer cut-off') {
          acts.answer(200, call.body)(call);
          return;
        }
        inVain++;
        acts.answer(503, 'no route')(call);
      },
      // The worker that works stays until the other run is through: alone the broken one would wait for the API.
      poll: (url) =>
        url === manifestUrls[0] && !api.completed.has(theOther)
          ? acts.answer(200, { progress: 50 })
          : undefined,
    });
    const manifest = await fixture.manifest(manifestUrls);
    const other = await fixture.workspace.write('other.csv', `image\n${theOther}\n`);
    const limits = {
      rate: { count: 40, perMs: 1000 },
      pollRate: { count: 500, perMs: 1000 },
      maxInFlight: 10,
    };
    const shared = { api: api.url, limits, attempts: 50 };
    const runs = await Promise.all([
      fixture.run({ ...shared, manifest, token: 'good' }),
      fixture.run({
        ...shared,
        manifest: other,
        output: fixture.workspace.at('other.out.csv'),
        token: 'cut-off',
      }),
    ]);
    expect(runs.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
    // Once it knows, the broken worker makes a probe now and then; it does not take the images away.
    expect(inVain).toBeLessThan(60);
  });
});
