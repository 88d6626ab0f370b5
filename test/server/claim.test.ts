import { expect, test } from 'vitest';
import { enqueueRun } from '../../src/service/enqueue-run.js';
import { RUNS_QUEUE, type RunOutcome } from '../../src/service/run-request.js';
import { SERVERS } from '../../src/shared/published.js';
import { reclaimJob } from '../../src/shared/queue/job-moves.js';
import { FAST } from '../helpers/run-fixture.js';
import { ServerFixture, type TestServer } from '../helpers/server-fixture.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';

/** Requests whose lock is over while their server goes on: it was frozen, or the queue away. */
describeOnRedis('a request whose lock is lost', (openQueue) => {
  const servers = ServerFixture.forSuite(openQueue);
  const { fixture } = servers;
  const ROWS = 30;

  /** Begins a run in a server, and gives its job to whoever takes it next. */
  async function loseLock(first: TestServer, before: () => Promise<unknown> = () => Promise.resolve()) {
    fixture.simulator.setOptions({ latencyMs: 300 });
    await fixture.workspace.write('m.csv', manifestOf(ROWS));
    const connection = await servers.connect();
    const signal = AbortSignal.timeout(60_000);
    const begun = await enqueueRun(connection, { manifest: 'm.csv', output: 'out.csv' }, { signal });
    if (begun.kind !== 'begun') throw new Error(begun.kind);
    await waitUntil('its server has published it', async () => {
      const known = await SERVERS.list(connection.store);
      return known.some(({ runs }) => runs.some(({ job }) => job === begun.run));
    });
    await before();
    const job = await connection.queue<unknown, RunOutcome>(RUNS_QUEUE).getJob(begun.run);
    if (job === undefined) throw new Error('there is no job');
    await reclaimJob(job);
    await waitUntil('it is taken once more', async () => {
      const now = await connection.queue(RUNS_QUEUE).getJob(begun.run);
      return (now?.attemptsStarted ?? 0) > 1;
    });
    expect(first.outcomes()).toEqual([]);
    await servers.startWorker({ ...FAST, maxInFlight: 10 });
    return { connection, job };
  }

  async function expectToldOnce(job: { getState(): Promise<string> }) {
    await waitUntil('its job is over', async () => (await job.getState()) === 'completed');
    expect((await fixture.workspace.read('ended.txt')).trim().split('\n')).toHaveLength(1);
    expect(await fixture.ids('out.csv')).toHaveLength(ROWS);
    expect(fixture.simulator.stats().paid).toBe(ROWS);
  }

  test('goes on in its server, once, which reports its end once', async () => {
    const first = await servers.startServer({ onDone: 'cat >> ended.txt' });
    const { connection, job } = await loseLock(first);
    const known = await SERVERS.list(connection.store);
    expect(known.flatMap(({ runs }) => runs)).toMatchObject([{ job: job.id }]);
    expect(await job.getState()).toBe('active');
    await expectToldOnce(job);
    expect(first.outcomes()).toMatchObject([{ exitCode: 0, receipt: { described: ROWS, resumed: 0 } }]);
  });

  test('is put off by another server, and ends there as it has ended', async () => {
    const onDone = 'cat >> ended.txt';
    const first = await servers.startServer({ onDone, runsAtOnce: 1 });
    let second: TestServer | undefined;
    const { connection, job } = await loseLock(first, async () => {
      second = await servers.startServer({ onDone, busyRetryMs: 100 });
    });
    await expectToldOnce(job);
    expect(first.outcomes()).toHaveLength(1);
    expect(second?.events).toMatchObject([{ type: 'waiting', reason: /has .*out\.csv$/ }]);
    const ended = await connection.queue<unknown, RunOutcome>(RUNS_QUEUE).getJob(job.id ?? '');
    expect(ended?.returnvalue).toMatchObject({ outcome: 'ended', receipt: { described: ROWS } });
  });

  test('is handed back by its server, which ends, to the one that put it off', async () => {
    const first = await servers.startServer({ runsAtOnce: 1, onDone: 'cat >> ended.txt' });
    let second: TestServer | undefined;
    const { job } = await loseLock(first, async () => {
      second = await servers.startServer({ busyRetryMs: 100, onDone: 'cat >> ended.txt' });
    });
    await waitUntil('some are described', async () => (await fixture.ids('out.csv')).length > 3);
    await first.server.stop();
    await expectToldOnce(job);
    expect(second?.outcomes()).toMatchObject([{ exitCode: 0, receipt: { remaining: 0 } }]);
  });
});
