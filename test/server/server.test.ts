import { rm } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { imageHash } from '../../src/producer/image-url.js';
import { accountOf } from '../../src/run/api-options.js';
import { cancelRun } from '../../src/service/cancel-run.js';
import { retryRun } from '../../src/service/enqueue-run.js';
import {
  KEPT_REQUESTS,
  RUNS_QUEUE,
  RUN_JOB,
  type RunRequest,
  runOutcomeOf,
} from '../../src/service/run-request.js';
import { findKnownRun } from '../../src/service/known-run.js';
import { readServiceStatus } from '../../src/service/views.js';
import { describeQueueName } from '../../src/shared/account.js';
import { readAccountLimits } from '../../src/shared/account-limits.js';
import { SERVERS } from '../../src/shared/published.js';
import { describeJobId } from '../../src/shared/jobs.js';
import { FAST } from '../helpers/run-fixture.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { ServerFixture, isOver } from '../helpers/server-fixture.js';

const url = (id: number) => `http://images.test/${id}.jpg`;

describeOnRedis('a server of requests', (openQueue) => {
  const servers = ServerFixture.forSuite(openQueue);
  const { fixture } = servers;

  const enqueue = (request: RunRequest) => servers.enqueue(request);

  test('executes what is enqueued, several runs at once, and keeps their outcomes', async () => {
    await fixture.workspace.write('a.csv', manifestOf(6));
    await fixture.workspace.write('b.csv', manifestOf(4, 'http://other.test'));
    const { events } = await servers.startServer();
    await servers.startWorker();
    const [a, b] = await Promise.all([
      enqueue({ manifest: 'a.csv' }),
      enqueue({ manifest: 'b.csv', output: 'out.csv', limit: 3 }),
    ]);
    expect(a.output).toMatch(/\/a\.prompts\.csv$/);
    await waitUntil('both are over', () => isOver(events, a.run) && isOver(events, b.run));
    expect(await fixture.ids('a.prompts.csv')).toHaveLength(6);
    expect(await fixture.ids('out.csv')).toHaveLength(3);
    const runs = (await servers.connect()).queue<RunRequest, never>(RUNS_QUEUE);
    await waitUntil('their jobs are completed', async () => (await runs.getCompletedCount()) === 2);
    const jobs = await runs.getJobs(['completed']);
    const receipts = jobs.map((job) => runOutcomeOf(job)?.receipt);
    expect(receipts.map((receipt) => receipt?.described).sort()).toEqual([3, 6]);
    expect(jobs.find((job) => job.data.manifest === 'a.csv')?.progress).toMatchObject({
      state: 'opened',
      run: a.run,
    });
  });

  test.each([
    [{ manifest: 'none.csv' }, /none\.csv cannot be opened/, 1],
    [{ manifest: 'm.csv', urlColumn: 'url' }, /url/, 1],
    [{ manifest: 'm.csv', output: '../out.csv' }, /leads out of the server's folder/, 1],
    [{ manifest: 'm.csv', output: 'none/out.csv' }, /folder of the output none\/out\.csv/, 1],
  ])('refuses %j in its own words', async (request, words, exitCode) => {
    await fixture.workspace.write('m.csv', manifestOf(1));
    const { outcomes } = await servers.startServer();
    await expect(enqueue(request)).rejects.toMatchObject({ message: words, exitCode });
    await waitUntil('it is over', () => outcomes().length === 1);
    expect(outcomes()).toMatchObject([{ outcome: 'refused', exitCode }]);
    expect(await fixture.workspace.files()).toEqual(['m.csv']);
  });

  test('refuses a second run on one output, and skips it for a schedule', async () => {
    await fixture.workspace.write('m.csv', manifestOf(2));
    const { events, outcomes } = await servers.startServer();
    const first = await enqueue({ manifest: 'm.csv', output: 'out.csv' });
    await expect(enqueue({ manifest: 'm.csv', output: 'out.csv' })).rejects.toMatchObject({
      message: /already has the output/,
      exitCode: 5,
    });
    const queue = (await servers.connect()).queue<RunRequest, never>(RUNS_QUEUE);
    await queue.add(RUN_JOB, { manifest: 'm.csv', output: 'out.csv', schedule: 'nightly' });
    await waitUntil('both are over', () => outcomes().length === 2);
    expect(outcomes().map(({ outcome }) => outcome)).toEqual(['refused', 'skipped']);
    await servers.startWorker();
    await waitUntil('the first one ends', () => isOver(events, first.run));
    expect(await fixture.ids('out.csv')).toEqual(['1', '2']);
  });

  test('without a server nothing is enqueued', async () => {
    const connection = await servers.connect();
    await waitUntil(
      'the servers before are gone',
      async () => (await SERVERS.list(connection.store)).length === 0,
    );
    const queue = connection.queue(RUNS_QUEUE);
    const before = await queue.count();
    await expect(enqueue({ manifest: 'm.csv' })).rejects.toThrow(/no server is running .* serve --work/);
    expect(await queue.count()).toBe(before);
  });

  test('hands its runs back when it stops, and another server goes on with them', async () => {
    fixture.simulator.setOptions({ latencyMs: 500 });
    await fixture.workspace.write('m.csv', manifestOf(30));
    const first = await servers.startServer();
    await servers.startWorker({ ...FAST, maxInFlight: 5 });
    const begun = await enqueue({ manifest: 'm.csv', output: 'out.csv' });
    await waitUntil('some are described', async () => (await fixture.ids('out.csv')).length > 3);
    await first.server.stop();
    expect(first.events.map(({ type }) => type)).toEqual(['opened', 'released']);
    const second = await servers.startServer();
    await waitUntil('it ends', () => isOver(second.events, begun.run));
    expect(second.outcomes()).toMatchObject([{ outcome: 'ended', exitCode: 0, receipt: { remaining: 0 } }]);
    expect(await fixture.ids('out.csv')).toHaveLength(30);
    expect(fixture.simulator.stats().paid).toBe(30);
  });

  test('a small run that comes while a big one goes on is not behind the whole of it', async () => {
    await fixture.workspace.write('big.csv', manifestOf(600));
    await fixture.workspace.write('small.csv', manifestOf(10, 'http://small.test'));
    // A run may have a second of the rate waiting here, instead of a minute: at least 50 images.
    const { events, outcomes } = await servers.startServer({ timing: { tickMs: 50, windowMs: 1000 } });
    await servers.startWorker({
      rate: { count: 40, perMs: 1000 },
      pollRate: { count: 500, perMs: 1000 },
      maxInFlight: 10,
    });
    const big = await enqueue({ manifest: 'big.csv' });
    await waitUntil('it goes on', () => fixture.simulator.stats().paid > 20);
    const small = await enqueue({ manifest: 'small.csv' });
    await waitUntil('the small one ends', () => isOver(events, small.run));
    expect((await fixture.ids('big.prompts.csv')).length).toBeLessThan(300);
    await cancelRun(await servers.connect(), big.run, AbortSignal.timeout(60_000));
    await waitUntil('the big one ends', () => isOver(events, big.run));
    expect(outcomes().at(-1)).toMatchObject({ exitCode: 130, receipt: { failed: 0 } });
  });

  test('retries a run with its permanent failures, at once', async () => {
    await fixture.workspace.write('m.csv', manifestOf(3));
    fixture.simulator.setOptions({ failures: { reject: 1 } });
    const { events } = await servers.startServer();
    await servers.startWorker();
    const { run, output } = await enqueue({ manifest: 'm.csv', output: 'out.csv', stopFailing: 100 });
    await waitUntil('it is over', () => isOver(events, run));
    fixture.simulator.setOptions({ failures: {} });
    const connection = await servers.connect();
    const signal = AbortSignal.timeout(60_000);
    const retried = await retryRun(connection, output, { signal });
    expect(retried).toMatchObject({ kind: 'begun', run });
    await waitUntil('it is over again', () => isOver(events, run, 2));
    await fixture.expectRows(['1', '2', '3'], []);
    await expect(cancelRun(connection, run, signal)).rejects.toThrow(
      /has ended with exit code 0: nothing to cancel/,
    );
    await expect(retryRun(connection, 'out.cvs', { signal })).rejects.toThrow(/did you mean out\.csv\?/);
  });

  test('retry takes up what has failed, and neither what was left by a cancel nor new rows', async () => {
    fixture.simulator.setOptions({ latencyMs: 200, failures: { reject: 1 } });
    await fixture.workspace.write('m.csv', manifestOf(2));
    const { events, outcomes } = await servers.startServer();
    await servers.startWorker({ ...FAST, maxInFlight: 2 });
    const { run } = await enqueue({
      manifest: 'm.csv',
      output: 'out.csv',
      keyColumn: 'id',
      stopFailing: 100,
    });
    await waitUntil('it is over', () => isOver(events, run));
    fixture.simulator.setOptions({ failures: {} });
    await fixture.workspace.write('m.csv', manifestOf(40));
    await enqueue({ manifest: 'm.csv', output: 'out.csv', keyColumn: 'id', stopFailing: 100 });
    await waitUntil('some are described', async () => (await fixture.ids('out.csv')).length > 3);
    const connection = await servers.connect();
    const signal = AbortSignal.timeout(60_000);
    await cancelRun(connection, run, signal);
    await waitUntil('it is cancelled', () => isOver(events, run, 2));
    const { paid } = fixture.simulator.stats();
    const described = await fixture.ids('out.csv');
    expect(described.length).toBeLessThan(38);

    await fixture.workspace.write('m.csv', manifestOf(45));
    await retryRun(connection, run, { signal });
    await waitUntil('it is over again', () => isOver(events, run, 3));
    expect(fixture.simulator.stats().paid).toBe(paid + 2);
    await fixture.expectRows(['1', '2', ...described], []);
    expect(outcomes().at(-1)).toMatchObject({
      outcome: 'ended',
      exitCode: 0,
      receipt: { described: 2, failed: 0, remaining: 45 - described.length - 2, balanced: true },
    });

    // The command itself goes on with all of it.
    await enqueue({ manifest: 'm.csv', output: 'out.csv', keyColumn: 'id' });
    await waitUntil('all is done', () => isOver(events, run, 4));
    expect(await fixture.ids('out.csv')).toHaveLength(45);
    expect(fixture.simulator.stats().paid).toBe(45);
  });

  test('what is executed again by nobody who gives limits leaves those of the account alone', async () => {
    await fixture.workspace.write('m.csv', manifestOf(3));
    fixture.simulator.setOptions({ failures: { incomplete: 1 } });
    const first = await servers.startServer();
    const limits = { ...FAST, maxInFlight: 7 };
    const asked = { manifest: 'm.csv', output: 'out.csv', attempts: 1, stopFailing: 100, limits };
    const { run } = await enqueue(asked);
    const connection = await servers.connect();
    const queueName = describeQueueName(accountOf({ api: fixture.simulator.url }));
    const inFlight = async () =>
      (await readAccountLimits(connection.store, queueName, Date.now()))?.configured.maxInFlight;
    expect(await inFlight()).toBe(7);
    // Somebody starts a worker with other limits; then another server takes the run up. In this order: a run with a server
    // and a worker may be over at once.
    await first.server.stop();
    await servers.startWorker({ ...FAST, maxInFlight: 3 });
    const { events } = await servers.startServer();
    await waitUntil('it is over', () => isOver(events, run));
    expect(await inFlight()).toBe(3);

    fixture.simulator.setOptions({ failures: {} });
    await (await connection.queue(queueName).getJob(describeJobId(run, imageHash(url(3)))))?.retry();
    await waitUntil('its row is there', async () => (await fixture.ids('out.csv')).includes('3'));
    await waitUntil('that is over', () => isOver(events, run, 2));
    expect(await inFlight()).toBe(3);

    await retryRun(connection, run, { signal: AbortSignal.timeout(60_000) });
    await waitUntil('that is over as well', () => isOver(events, run, 3));
    await fixture.expectRows(['1', '2', '3'], []);
    expect(await inFlight()).toBe(3);
  });

  test('a run that was handed back and is cancelled pays for nothing more; the next server keeps what is in flight', async () => {
    fixture.simulator.setOptions({ latencyMs: 1000 });
    await fixture.workspace.write('m.csv', manifestOf(60));
    const first = await servers.startServer();
    await servers.startWorker({ ...FAST, maxInFlight: 5 });
    const { run, output } = await enqueue({ manifest: 'm.csv', output: 'out.csv' });
    await waitUntil('some are described', async () => (await fixture.ids('out.csv')).length > 3);
    await first.server.stop();
    const connection = await servers.connect();
    const stateOf = async () =>
      (await readServiceStatus(connection)).runs.find((known) => known.run === run) ?? { state: 'unknown' };
    expect(await stateOf()).toMatchObject({ state: 'waiting' });
    const written = (await fixture.ids('out.csv')).length;

    const cancelled = await cancelRun(connection, output, AbortSignal.timeout(60_000));
    expect(cancelled).toMatchObject({ kind: 'to-be-collected', output });
    expect(await stateOf()).toMatchObject({ state: 'waiting', cancelled: true });
    const second = await servers.startServer();
    await waitUntil('it ends', () => isOver(second.events, run));
    const { paid } = fixture.simulator.stats();
    expect(paid).toBeLessThan(40);
    expect(await fixture.ids('out.csv')).toHaveLength(paid);
    expect(paid).toBeGreaterThan(written);
    const receipt = { remaining: 60 - paid, balanced: true };
    expect(second.outcomes()).toMatchObject([{ outcome: 'ended', exitCode: 130, receipt }]);
    expect(await stateOf()).toMatchObject({ state: 'ended', ended: { exitCode: 130 } });
  });

  test('means the newest run of an output that was removed and enqueued anew', async () => {
    await fixture.workspace.write('m.csv', manifestOf(2));
    fixture.simulator.setOptions({ failures: { reject: 1 } });
    const { events } = await servers.startServer();
    await servers.startWorker();
    const request = { manifest: 'm.csv', output: 'anew.csv', stopFailing: 100 };
    const old = await enqueue(request);
    await waitUntil('it is over', () => isOver(events, old.run));
    for (const name of await fixture.workspace.files()) {
      if (name.startsWith('anew')) await rm(fixture.workspace.at(name));
    }
    const { run } = await enqueue(request);
    expect(run).not.toBe(old.run);
    await waitUntil('the new one is over', () => isOver(events, run));
    const connection = await servers.connect();
    const signal = AbortSignal.timeout(60_000);
    // As one that has no files sees it, and one that has.
    for (const name of ['anew.csv', fixture.workspace.at('anew.csv')]) {
      expect(await findKnownRun(connection, name)).toMatchObject({ run });
    }
    await expect(cancelRun(connection, 'anew.csv', signal)).rejects.toThrow(`the run ${run} `);
    // One of another folder, of which nothing but its request is left.
    const elsewhere = { manifest: 'm.csv', output: '/gone/anew.csv' };
    const kept = { run: 'gone00000000', request: elsewhere, root: '/gone' };
    await KEPT_REQUESTS.publish(connection.store, kept.run, kept);
    expect(await retryRun(connection, 'anew.csv', { signal })).toMatchObject({ kind: 'begun', run });
    await waitUntil('it is over again', () => isOver(events, run, 2));
    expect(await findKnownRun(connection, 'gone00000000')).toMatchObject({ output: '/gone/anew.csv' });
  });

  test('a request that is cancelled before any server has begun it leaves the run before it as it ended', async () => {
    await fixture.workspace.write('m.csv', manifestOf(2));
    const { server, events } = await servers.startServer();
    await servers.startWorker();
    const { run, output } = await enqueue({ manifest: 'm.csv', output: 'out.csv' });
    await waitUntil('it is over', () => isOver(events, run));
    await server.stop();
    const connection = await servers.connect();
    await connection.queue(RUNS_QUEUE).add(RUN_JOB, { manifest: 'm.csv', output });
    const cancelled = await cancelRun(connection, run, AbortSignal.timeout(60_000));
    expect(cancelled).toMatchObject({ kind: 'taken-out' });
    const known = (await readServiceStatus(connection)).runs.find((each) => each.run === run);
    expect(known).toMatchObject({ state: 'ended', ended: { exitCode: 0 } });
    expect(known?.cancelled).toBe(undefined);
  });

  test('takes a request that waits for a server out of the queue', async () => {
    await fixture.workspace.write('m.csv', manifestOf(3));
    await fixture.workspace.write('n.csv', manifestOf(3));
    const { events, outcomes } = await servers.startServer({ runsAtOnce: 1 });
    const first = await enqueue({ manifest: 'm.csv', output: 'out.csv' });
    const waiting = enqueue({ manifest: 'n.csv', output: 'other.csv' });
    const connection = await servers.connect();
    const queue = connection.queue(RUNS_QUEUE);
    await waitUntil('it waits', async () => (await queue.getWaitingCount()) === 1);
    const signal = AbortSignal.timeout(60_000);
    const refused = expect(waiting).rejects.toThrow(/somebody has cancelled it/);
    expect(await cancelRun(connection, 'other.csv', signal)).toMatchObject({ kind: 'taken-out' });
    await refused;
    // Nobody works: what is in the queue is not in flight, and leaves it.
    expect(await cancelRun(connection, first.output, signal)).toMatchObject({ kind: 'winding-down' });
    await waitUntil('the other one ends', () => isOver(events, first.run));
    expect(outcomes()).toMatchObject([{ exitCode: 130, receipt: { remaining: 3, submits: 0 } }]);
    expect(fixture.simulator.stats().submits).toBe(0);
  });
});
