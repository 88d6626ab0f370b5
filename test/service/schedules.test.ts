import { afterEach, expect, test, vi } from 'vitest';
import { renderMetrics } from '../../src/dashboard/metrics.js';
import { localDate } from '../../src/service/schedules.js';
import { enqueueRun } from '../../src/service/enqueue-run.js';
import { RUNS_QUEUE, RUN_JOB, type RunOutcome, type RunRequest } from '../../src/service/run-request.js';
import { addSchedule, getSchedule, listSchedules, removeSchedule } from '../../src/service/schedules.js';
import { readScheduleRecord } from '../../src/service/schedules.js';
import { describeOnRedis } from '../helpers/queues.js';
import { soon, waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { FAST } from '../helpers/run-fixture.js';
import { ServerFixture } from '../helpers/server-fixture.js';

/** So that it does not come by itself. */
const NEW_YEAR = '0 0 1 1 *';
const timeZone = 'Europe/Prague';

describeOnRedis('schedules', (openQueue) => {
  // Runs last, when the servers are gone.
  afterEach(async () => {
    const connection = await fixture.queue.connect();
    await connection.queue(RUNS_QUEUE).obliterate({ force: true });
    await connection.close();
  });
  const servers = ServerFixture.forSuite(openQueue);
  const { fixture } = servers;
  let schedules = 0;
  afterEach(async () => {
    const connection = await servers.connect();
    for (const { name } of await listSchedules(connection)) await removeSchedule(connection, name);
  });

  /** Adds a schedule of its own name. */
  async function add(cron: string, request: Partial<RunRequest> = {}) {
    const connection = await servers.connect();
    const name = `nightly-${++schedules}`;
    const wanted = { manifest: 'm.csv', output: 'out.csv', ...request };
    const added = await addSchedule(connection, { name, cron, timeZone, request: wanted });
    return { name, connection, added, look: () => getSchedule(connection, name) };
  }

  /** Has a schedule's turn now, and waits until it is over. */
  async function runNow(name: string, server: { outcomes: () => RunOutcome[] }): Promise<RunOutcome> {
    const connection = await servers.connect();
    const before = server.outcomes().length;
    const { request } = await getSchedule(connection, name);
    await connection.queue<RunRequest, RunOutcome>(RUNS_QUEUE).add(RUN_JOB, request);
    await waitUntil('the scheduled run is over', () => server.outcomes().length > before);
    const last = server.outcomes().at(-1);
    if (last === undefined) throw new Error('no outcome');
    return last;
  }

  test('begin a new file each date, for which the rows of other dates are done', async () => {
    await fixture.workspace.write('m.csv', manifestOf(2));
    await fixture.run({
      manifest: fixture.workspace.at('m.csv'),
      output: fixture.workspace.at('night-2020-02-29.csv'),
    });
    // Another column, a new image, and a new row that shows an old one.
    await fixture.workspace.write(
      'm.csv',
      'id,image,title\n3,http://images.test/3.jpg,c\n2,http://images.test/2.jpg,b\n1,http://images.test/1.jpg,a\n4,http://images.test/1.jpg,a\n',
    );
    await servers.startWorker();
    const server = await servers.startServer();
    const { name, connection } = await add(NEW_YEAR, { output: 'night-{date}.csv' });
    const before = localDate(Date.now(), timeZone);
    const { receipt } = await runNow(name, server);
    expect(receipt).toMatchObject({
      rows: 4,
      described: 1,
      resumed: 2,
      copied: 1,
      submits: 1,
      balanced: true,
    });
    const file = receipt?.output.split('/').at(-1) ?? '';
    expect([`night-${before}.csv`, `night-${localDate(Date.now(), timeZone)}.csv`]).toContain(file);
    expect((await fixture.ids(file)).sort()).toEqual(['3', '4']);
    // A server tells how a run has ended a little before its job is completed.
    await vi.waitFor(async () => {
      const [job] = await connection.queue<RunRequest, RunOutcome>(RUNS_QUEUE).getJobs(['completed']);
      expect(job?.data).toMatchObject({ output: file, outputPattern: 'night-{date}.csv' });
    }, soon);
    // The same night again.
    expect((await runNow(name, server)).receipt).toMatchObject({
      resumed: 4,
      submits: 0,
      output: receipt?.output,
    });
  });

  test('first bring in what another date has in flight, and do not pay for it again', async () => {
    const manifest = await fixture.workspace.write('m.csv', manifestOf(4));
    const interrupt = new AbortController();
    const night = fixture.runAnyhow({
      manifest,
      output: fixture.workspace.at('night-2020-02-29.csv'),
      signal: interrupt.signal,
      limits: { ...FAST, maxInFlight: 2 },
      onEvent: (event) => {
        if (event.type === 'progress' && event.progress.described > 0) interrupt.abort();
      },
      timing: { tickMs: 5 },
    });
    await waitUntil('something is in flight', () => {
      if (fixture.simulator.stats().paid > 1) interrupt.abort();
      return interrupt.signal.aborted;
    });
    const { receipt: first } = await night;
    const paid = fixture.simulator.stats().paid;
    await servers.startWorker();
    const server = await servers.startServer();
    const { name } = await add(NEW_YEAR, { output: 'night-{date}.csv' });
    const { receipt } = await runNow(name, server);
    expect(first.described).toBeLessThan(paid);
    expect(receipt).toMatchObject({ resumed: paid, described: 4 - paid, submits: 4 - paid });
    expect(await fixture.ids('night-2020-02-29.csv')).toHaveLength(paid);
    expect([...fixture.simulator.stats().paidByUrl.values()]).toEqual([1, 1, 1, 1]);
  });

  test('outlive a restart of the server in the middle of a run, with the date that it began with', async () => {
    await fixture.workspace.write('m.csv', manifestOf(2));
    const first = await servers.startServer();
    const { name, connection, look } = await add(NEW_YEAR, { output: 'night-{date}.csv' });
    const queue = connection.queue<RunRequest, RunOutcome>(RUNS_QUEUE);
    const job = await queue.add(RUN_JOB, (await look()).request);
    await waitUntil('it has begun', () => first.events.some(({ type }) => type === 'opened'));
    await first.server.stop();
    const kept = await queue.getJob(job.id ?? '');
    expect(kept?.data.outputPattern).toBe('night-{date}.csv');
    // As if it had begun yesterday.
    await kept?.updateData({ ...kept.data, output: 'night-2020-02-29.csv' });
    await servers.startWorker();
    const second = await servers.startServer();
    await waitUntil('it is over', () => second.outcomes().length > 0);
    expect(second.outcomes()).toMatchObject([{ outcome: 'ended', exitCode: 0 }]);
    expect(second.outcomes()[0]?.receipt?.output).toMatch(/night-2020-02-29\.csv$/);
    expect((await listSchedules(connection)).map((schedule) => schedule.name)).toEqual([name]);
  });

  test('are executed now on demand, and tell in the server’s words when that cannot be', async () => {
    const server = await servers.startServer();
    const { connection, look } = await add(NEW_YEAR);
    const { request } = await look();
    const runIt = () => enqueueRun(connection, request, { signal: AbortSignal.timeout(60_000) });
    await expect(runIt()).rejects.toThrow(/m\.csv cannot be opened/);
    await waitUntil('it is kept', async () => (await look()).record.lastExit === 1);
    expect((await look()).record.lastText).toMatch(/^refused: .*m\.csv cannot be opened/);
    await fixture.workspace.write('m.csv', manifestOf(1));
    expect((await runIt()).kind).toBe('begun');
    await expect(runIt()).rejects.toThrow(/is still going on/);
    await servers.startWorker();
    await waitUntil('it ends', () => server.outcomes().some(({ outcome }) => outcome === 'ended'));
  });

  test('tell when they last succeeded, also after a failure, and nothing any more when they are removed', async () => {
    await fixture.workspace.write('m.csv', manifestOf(2));
    await servers.startWorker();
    const server = await servers.startServer();
    const { name, connection, look } = await add(NEW_YEAR);
    const metric = async () => {
      const { text } = await renderMetrics(connection);
      const line = new RegExp(
        `^bulk_describe_schedule_last_success_timestamp_seconds\\{schedule="${name}"\\} (.*)$`,
        'm',
      );
      return line.exec(text)?.[1];
    };
    expect(await metric()).toBeUndefined();
    const startedAt = Date.now();
    expect((await runNow(name, server)).exitCode).toBe(0);
    await waitUntil('it is kept', async () => (await look()).record.lastExit === 0);
    const { lastSuccessAt = 0, lastAt } = (await look()).record;
    expect(lastSuccessAt).toBe(lastAt);
    expect(lastSuccessAt).toBeGreaterThanOrEqual(startedAt);
    expect(Number(await metric())).toBe(lastSuccessAt / 1000);

    fixture.simulator.setOptions({ failures: { reject: 1 } });
    await fixture.workspace.write('m.csv', manifestOf(3));
    expect((await runNow(name, server)).exitCode).toBe(2);
    await waitUntil('it is kept', async () => (await look()).record.lastExit === 2);
    expect((await look()).record.lastSuccessAt).toBe(lastSuccessAt);
    expect(Number(await metric())).toBe(lastSuccessAt / 1000);

    // Its last turn ends after its removal.
    fixture.simulator.setOptions({ failures: {}, latencyMs: 1000 });
    await fixture.workspace.write('m.csv', manifestOf(4));
    const last = runNow(name, server);
    await waitUntil('it goes on', () => fixture.simulator.stats().inFlight > 0);
    await removeSchedule(connection, name);
    expect((await last).exitCode).toBe(2);
    const runs = connection.queue(RUNS_QUEUE);
    await waitUntil('all of it is over', async () => (await runs.getActiveCount()) === 0);
    expect(await readScheduleRecord(connection.store, name)).toEqual({});
    expect(await metric()).toBeUndefined();
  });

  test('one that is removed during its scheduled run and added again does not show how that run ended', async () => {
    await fixture.workspace.write('m.csv', manifestOf(2));
    fixture.simulator.setOptions({ latencyMs: 1000 });
    const server = await servers.startServer();
    await servers.startWorker();
    const { name, connection, look } = await add('0 2 * * *');
    const turn = runNow(name, server);
    await waitUntil('it goes on', () => fixture.simulator.stats().inFlight > 0);
    await removeSchedule(connection, name);
    const request = { manifest: 'm.csv', output: 'out.csv' };
    await addSchedule(connection, { name, cron: '0 3 * * *', timeZone, request });
    expect((await turn).exitCode).toBe(0);
    const runs = connection.queue(RUNS_QUEUE);
    await waitUntil('all of it is over', async () => (await runs.getActiveCount()) === 0);
    expect((await look()).record).toEqual({});
    // Its own turns are shown.
    expect((await runNow(name, server)).exitCode).toBe(0);
    await waitUntil('it is kept', async () => (await look()).record.lastExit === 0);
  });

  test('are changed by adding them again, left alone when nothing changes, and gone when removed', async () => {
    const { name, connection, added, look } = await add('0 2 * * *', { limit: 5 });
    expect(added).toMatchObject({ kind: 'added' });
    const same = {
      name,
      cron: ' 0  2 * * * ',
      timeZone,
      request: { manifest: 'm.csv', output: 'out.csv', limit: 5 },
    };
    expect(await addSchedule(connection, same)).toMatchObject({ kind: 'unchanged' });
    const changed = {
      ...same,
      cron: '0 3 * * *',
      request: { ...same.request, limit: undefined, accept: ['lost' as const] },
    };
    expect(await addSchedule(connection, changed)).toMatchObject({
      kind: 'changed',
      changes: ['cron: 0 2 * * * -> 0 3 * * *', 'limit: 5 -> (none)', 'accept: (none) -> ["lost"]'],
    });
    expect(await look()).toMatchObject({
      cron: '0 3 * * *',
      timeZone,
      request: { schedule: name, accept: ['lost'] },
    });
    expect(await listSchedules(connection)).toHaveLength(1);
    await removeSchedule(connection, name);
    expect(await listSchedules(connection)).toEqual([]);
    expect(await connection.queue(RUNS_QUEUE).getDelayedCount()).toBe(0);
    await expect(removeSchedule(connection, name)).rejects.toThrow(
      `there is no schedule ${name}: there are none`,
    );
    await expect(look()).rejects.toThrow(/there is no schedule/);
  });

  test.each([
    [{ name: 'a b' }, /expected up to 64 letters/],
    [{ cron: '61 * * * *' }, /--cron "61 \* \* \* \*"/],
    [{ timeZone: 'Europe/Nowhere' }, /--tz Europe\/Nowhere: expected the name of a time zone/],
    [{ request: { manifest: 'm.csv', output: '{date}/out.csv' } }, /can be there once, in the file's name/],
  ])('are refused with %j, and nothing is kept', async (wrong, message) => {
    const connection = await servers.connect();
    const right = {
      name: 'right',
      cron: '0 2 * * *',
      timeZone,
      request: { manifest: 'm.csv', output: 'out.csv' },
    };
    await expect(addSchedule(connection, { ...right, ...wrong })).rejects.toThrow(message);
    expect(await listSchedules(connection)).toEqual([]);
  });

  test('alone have a date in their output', async () => {
    await fixture.workspace.write('m.csv', manifestOf(1));
    const server = await servers.startServer();
    const request = { manifest: 'm.csv', output: 'out-{date}.csv' };
    const options = { signal: AbortSignal.timeout(60_000) };
    await expect(enqueueRun(await servers.connect(), request, options)).rejects.toThrow(
      /only a schedule's output has a date/,
    );
    await waitUntil('it is over', () => server.outcomes().length > 0);
  });
});
