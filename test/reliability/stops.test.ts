import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, onTestFinished, test } from 'vitest';
import { accountOf } from '../../src/run/api-options.js';
import { describeQueueName } from '../../src/shared/account.js';
import { openQueue } from '../../src/shared/queue/connection.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { MAIN, startCli } from '../helpers/cli.js';
import { describeOnBothQueues } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { FAST } from '../helpers/run-fixture.js';
import { SharedQueue, ApiFixture, expectCalls, expectCallsUntilStop } from './api-fixture.js';
import { endOf } from './run-process.js';
import { type ScriptedApi, acts } from './scripted-api.js';

const sharedQueue = SharedQueue.forFile();
const images = (count: number) => Array.from({ length: count }, (_, i) => `http://images.test/${i}.jpg`);

describe.concurrent('a run that cannot go on', () => {
  test('a refused token: exit 3 at once, a handful of calls, nothing lost; with the right token it goes on', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const simulator = await fixture.simulate({ token: 'right' });
    await fixture.workspace.write('m.csv', manifestOf(100));
    const command = (token: string) =>
      startCli(commandOf(fixture, simulator.url, '500/s'), {
        cwd: fixture.workspace.path,
        env: { DESCRIBE_API_TOKEN: token },
      });
    const refused = await endOf(command('wrong'), 3);
    expect(refused.receipt).toMatchObject({
      rows: expect.anything() as unknown,
      described: 0,
      failed: 0,
      maybePaidTwice: 0,
    });
    expect(refused.receipt.submits).toBe(simulator.stats().submits);
    // No more than may be in flight.
    expect(simulator.stats().submits).toBeLessThanOrEqual(8);
    expect(linesAbout(refused.stderr, /token/)).toEqual([
      'stopped: the API refuses the token: 401 Unauthorized: The token is not valid',
    ]);
    const resumed = await endOf(command('right'));
    expect(resumed.receipt).toMatchObject({ described: 100, submits: 100 });
  });

  test('a token that is revoked in the middle: what is in flight is kept, and not paid for again', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const simulator = await fixture.simulate({ token: 'old', latencyMs: 400 });
    const manifest = await fixture.manifest(images(60));
    const running = fixture.run({ manifest, api: simulator.url, token: 'old' });
    await waitUntil('some are in flight', () => simulator.stats().paid >= 10);
    simulator.setOptions({ token: 'new' });
    const stopped = await running;
    expect([stopped.exitCode, stopped.stop?.kind]).toEqual([3, 'token']);
    expectCallsUntilStop(stopped, simulator.stats(), 20);
    expect(simulator.stats().answered401).toBeLessThanOrEqual(20 + 5);
    const resumed = await fixture.run({ manifest, api: simulator.url, token: 'new' });
    expect(resumed.receipt.described + resumed.receipt.resumed).toBe(60);
    expect(simulator.stats().paid).toBe(60);
  });

  test('a spent quota: exit 3, a handful of calls, nothing lost; with new credits it goes on', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const simulator = await fixture.simulate();
    const manifest = await fixture.manifest(images(60));
    const limits = { ...FAST, maxInFlight: 5 };
    const running = fixture.run({ manifest, api: simulator.url, limits });
    await waitUntil('some are paid', () => simulator.stats().paid >= 10);
    simulator.setOptions({ failures: { quota: 1 } });
    const stopped = await running;
    expect([stopped.exitCode, stopped.stop?.kind]).toEqual([3, 'quota']);
    expect(stopped.stop?.reason).toBe(
      'the API says that the quota is spent: 402 Payment Required: Your account has no credits left',
    );
    expect(simulator.stats().failures.quota).toBeLessThanOrEqual(3 + 5);
    expect(stopped.receipt).toMatchObject({ failed: 0, maybePaidTwice: 0 });
    expectCallsUntilStop(stopped, simulator.stats(), 5);
    simulator.setOptions({ failures: {} });
    const resumed = await fixture.run({ manifest, api: simulator.url, limits });
    expect(resumed.receipt).toMatchObject({ remaining: 0, failed: 0 });
    expect(simulator.stats().paid).toBe(60);
  });

  test('a manifest that fails: exit 4 after its 50 outcomes; once it is repaired the same command goes on', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const simulator = await fixture.simulate({ failures: { reject: 1 } });
    const manifest = await fixture.manifest(images(300));
    const limits = { rate: { count: 100, perMs: 1000 }, pollRate: FAST.pollRate, maxInFlight: 5 };
    const stopped = await fixture.run({ manifest, api: simulator.url, limits });
    expect([stopped.exitCode, stopped.stop?.kind]).toEqual([4, 'failing']);
    expect(stopped.stop?.reason).toMatch(
      /^more of the last 50 images failed than --stop-failing allows \(.*Invalid/,
    );
    // Fifty had to be seen, and the last ones are looked at each second.
    expect(simulator.stats().submits).toBeLessThanOrEqual(50 + 2 * 100);
    expectCalls(stopped, simulator.stats());
    expect(simulator.stats().paid).toBe(0);
    simulator.setOptions({ failures: {} });
    const repaired = await fixture.manifest(images(300).map((url) => `${url}?repaired`));
    const resumed = await fixture.run({ manifest: repaired, api: simulator.url, limits: FAST });
    expect(resumed.receipt).toMatchObject({ described: 300, failed: 0, remaining: 0 });
  });

  test('stopped while a submit gets no answer: it waits for its timeout, and counts it as perhaps paid', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    let isMute = true;
    const api = await fixture.scripted({ submit: () => (isMute ? acts.never : undefined) });
    const manifest = await fixture.manifest(images(3));
    const interrupt = new AbortController();
    const running = fixture.run({ manifest, api: api.url, requestTimeoutMs: 1500, signal: interrupt.signal });
    await waitUntil('all are on the wire', () => api.submits === 3);
    interrupt.abort();
    const stopped = await running;
    expect(stopped.receipt).toMatchObject({ remaining: 3, submits: 3 });
    isMute = false;
    const resumed = await fixture.run({ manifest, api: api.url });
    expect(resumed.receipt).toMatchObject({ described: 3, submits: 3, maybePaidTwice: 3 });
  });
});

/** The command line's arguments for a run of `m.csv`. */
function commandOf(fixture: ApiFixture, api: string, rate: string, maxInFlight = 8): string[] {
  const limits = ['--rate', rate, '--poll-rate', '500/s', '--max-in-flight', String(maxInFlight)];
  return [
    'run',
    'm.csv',
    '-o',
    'out.csv',
    '--api',
    api,
    '--queue',
    fixture.queue,
    ...limits,
    '--json',
    '--no-progress',
  ];
}

function linesAbout(text: string, about: RegExp): string[] {
  return text.split('\n').filter((line) => about.test(line));
}

/** An API whose submits take their time, and whose messages are completed when `pace` says so. */
async function slowApi(fixture: ApiFixture, submitMs: number) {
  const pace = { isFast: false };
  const working = acts.answer(200, { progress: 10 });
  const api = await fixture.scripted({
    submit: () => (pace.isFast ? undefined : acts.slowly(submitMs)),
    poll: () => (pace.isFast ? undefined : working),
  });
  return { api, pace };
}

const start = (fixture: ApiFixture, api: ScriptedApi, maxInFlight: number, rate = '10/s') =>
  startCli(commandOf(fixture, api.url, rate, maxInFlight), {
    cwd: fixture.workspace.path,
    env: { DESCRIBE_API_TOKEN: 'any' },
  });

const RULE = 'no new submit, those on the wire are stored, the others leave the queue, exit 130 within 3 s';

/** Interrupts a run that has images waiting, on the wire and in flight; then resumes it. @param again what follows at once */
async function interrupt(fixture: ApiFixture, signal: NodeJS.Signals, again?: NodeJS.Signals): Promise<void> {
  const { api, pace } = await slowApi(fixture, 1000);
  await fixture.workspace.write('m.csv', manifestOf(60));
  const run = start(fixture, api, 40);
  // A new one goes out each 100 ms, and an answer takes a second.
  await waitUntil('some are in flight and some on the wire', () => api.submits >= 15);
  const startedAt = performance.now();
  run.child.kill(signal);
  // A busy machine takes a while to bring the signal, and more go out until then.
  await waitUntil('it has come', () =>
    run.stderr().includes('finishing what is on the wire; once more to quit at once'),
  );
  const submits = api.submits;
  if (again !== undefined) run.child.kill(again);
  const { receipt } = await endOf(run, 130);
  // Three seconds where nothing else is at work; what is in flight would never be done.
  expect(performance.now() - startedAt).toBeLessThan(10_000);
  // One may have been on its way to the API.
  expect(api.submits).toBeLessThanOrEqual(submits + 1);
  expect(receipt).toMatchObject({ described: 0, failed: 0, submits: api.submits, maybePaidTwice: 0 });
  expect(receipt.remaining).toBe(receipt.rows);

  const connection = await openQueue(parseQueueUrl(fixture.queue, {}));
  const jobs = connection.queue(describeQueueName(accountOf({ api: api.url })));
  const counts = await jobs.getJobCounts();
  await connection.close();
  expect(counts).toMatchObject({ waiting: api.paid.size, active: 0, delayed: 0, failed: 0 });

  pace.isFast = true;
  const resumed = await endOf(start(fixture, api, 40, '200/s'));
  expect(resumed.receipt).toMatchObject({ rows: 60, described: 60, reattached: receipt.submits });
  expect([...api.paid.values()]).toEqual(Array.from({ length: 60 }, () => 1));
}

describeOnBothQueues('a run that is interrupted', (openFixture) => {
  test(`Ctrl-C: ${RULE}`, async () => {
    const { url } = await openFixture();
    const { workspace } = await sharedQueue.fixture({ onTestFinished });
    await interrupt(new ApiFixture(workspace, url, { onTestFinished }), 'SIGINT');
  });
});

describe.concurrent('a process that is told to end', () => {
  test(`SIGTERM: ${RULE}`, async (test) => {
    await interrupt(await sharedQueue.fixture(test), 'SIGTERM');
  });

  test(`SIGHUP, which a shell and the system send when a terminal is closed: ${RULE}`, async (test) => {
    await interrupt(await sharedQueue.fixture(test), 'SIGHUP', 'SIGHUP');
  });

  test(`SIGINT, which npx passes on beside the terminal: ${RULE}`, async (test) => {
    await interrupt(await sharedQueue.fixture(test), 'SIGINT', 'SIGINT');
  });

  test('the second signal ends it at once; what was on the wire is counted by the next run', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    let isMute = true;
    const api = await fixture.scripted({ submit: () => (isMute ? acts.never : undefined) });
    await fixture.workspace.write('m.csv', manifestOf(20));
    const run = start(fixture, api, 4, '200/s');
    await waitUntil('four are on the wire', () => api.submits === 4);
    run.child.kill('SIGINT');
    await waitUntil('it says that it waits', () => run.stderr().includes('once more to quit at once'));
    const startedAt = performance.now();
    // What comes at once after the first is the same one.
    await waitUntil('it has ended', () => {
      run.child.kill('SIGINT');
      return run.child.exitCode !== null;
    });
    expect(await run.ended).toMatchObject({ code: 130, signal: null, stdout: '' });
    // At once, on a busy machine; a submit without an answer would hold it for thirty seconds.
    expect(performance.now() - startedAt).toBeLessThan(5000);
    expect(api.submits).toBe(4);
    isMute = false;
    const { receipt } = await endOf(start(fixture, api, 4, '200/s'));
    expect(receipt).toMatchObject({ rows: 20, described: 20, maybePaidTwice: 4 });
  });
});

/** That of util-linux, which runs a command in a terminal; others know no such option. */
const hasScript = spawnSync('script', ['--version'], { stdio: 'ignore' }).status === 0;

describe.concurrent('a process that cannot write to its terminal or log any more', () => {
  /** Starts a run whose exit code is in `code.txt` when it has ended. @param script what it is in, as `"$@"` */
  function startIn(fixture: ApiFixture, api: string, script: string) {
    const command = [process.execPath, MAIN, ...commandOf(fixture, api, '10/s', 40)];
    const env = { PATH: process.env['PATH'], HOME: fixture.workspace.path, DESCRIBE_API_TOKEN: 'any' };
    return spawn('sh', ['-c', script, 'sh', ...command], { cwd: fixture.workspace.path, env, stdio: 'pipe' });
  }
  const codeOf = (fixture: ApiFixture) => fixture.workspace.read('code.txt').catch(() => '');

  const title = 'a terminal that is closed is a first Ctrl-C: nothing is lost or paid twice';
  test.skipIf(!hasScript)(title, async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const { api, pace } = await slowApi(fixture, 1000);
    await fixture.workspace.write('m.csv', manifestOf(60));
    // The inner shell lives on, to say how the run has ended.
    await fixture.workspace.write('inner.sh', 'trap : HUP; "$@"; echo $? > code.txt');
    const terminal = startIn(fixture, api.url, 'exec script -qec "sh inner.sh $*" /dev/null');
    await waitUntil('some are in flight and some on the wire', () => api.submits >= 15);
    terminal.kill('SIGKILL');
    await waitUntil('it has ended', async () => (await codeOf(fixture)) !== '');
    // Node.js 20 aborts at its very end, where it cannot give the terminal its settings back (nodejs/node#58200).
    expect(await codeOf(fixture)).toMatch(/^(130|134)\n$/);
    const { submits } = api;
    pace.isFast = true;
    const { receipt } = await endOf(start(fixture, api, 40, '200/s'));
    expect(receipt).toMatchObject({ described: 60, reattached: submits, maybePaidTwice: 0 });
    expect([...api.paid.values()]).toEqual(Array.from({ length: 60 }, () => 1));
  });

  test.for([
    ['stderr', '2> /dev/full', 0],
    ['stdout, which has the receipt,', '> /dev/full', 1],
  ] as const)('a full disk behind %s ends no run', async ([, redirection, code], test) => {
    const fixture = await sharedQueue.fixture(test);
    const simulator = await fixture.simulate();
    await fixture.workspace.write('m.csv', manifestOf(5));
    const run = startIn(fixture, simulator.url, `"$@" --log-level debug ${redirection}; echo $? > code.txt`);
    let said = '';
    run.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
    await once(run, 'close');
    expect([await codeOf(fixture), simulator.stats().paid]).toEqual([`${code}\n`, 5]);
    expect(await fixture.workspace.records('out.csv')).toHaveLength(5);
    expect(said).toMatch(
      code === 0 ? /^$/ : /^bulk-describe: stdout cannot be written: no space left on the disk \(ENOSPC\)$/m,
    );
  });
});
