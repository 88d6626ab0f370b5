import fc from 'fast-check';
import { pino } from 'pino';
import { expect, test } from 'vitest';
import { cancelRun } from '../../src/service/cancel-run.js';
import { findKnownRun } from '../../src/service/known-run.js';
import { readServiceStatus } from '../../src/service/views.js';
import { retryRun } from '../../src/service/enqueue-run.js';
import { RUNS_QUEUE, RUN_JOB, type RunOutcome } from '../../src/service/run-request.js';
import { findPredecessor } from '../../src/service/execute-request.js';
import { listSchedules } from '../../src/service/schedules.js';
import { newRunId } from '../../src/writer/run-file.js';
import { startMonitor } from '../helpers/monitor.js';
import { ServerFixture } from '../helpers/server-fixture.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';

const HOUR_MS = 3_600_000;

/** What anybody may put into a queue: any JSON at all, and what is nearly a request. */
const anyValue = fc.oneof(fc.jsonValue(), fc.constantFrom(null, '', '\0', 'm.csv', '../m.csv', 1e300, -1));
const nearlyRequest = fc.record(
  {
    manifest: anyValue,
    output: anyValue,
    schedule: fc.oneof(anyValue, fc.constant('nightly')),
    begunAt: anyValue,
    timeZone: fc.oneof(anyValue, fc.constantFrom('Nowhere/Land', 'UTC')),
    outputPattern: anyValue,
    limits: anyValue,
    collectOnly: anyValue,
    limit: fc.constant(0),
  },
  { requiredKeys: [] },
);
const anyData = fc.oneof(fc.jsonValue(), nearlyRequest);

describeOnRedis('what is no request in the runs queue', (openQueue) => {
  const servers = ServerFixture.forSuite(openQueue);
  const { fixture } = servers;
  const signal = () => AbortSignal.timeout(60_000);

  const queueOf = async () => (await servers.connect()).queue<unknown, RunOutcome>(RUNS_QUEUE);

  test.each([[null], [{ manifest: 5 }], ['m.csv'], [[]]])(
    '%j stands in the way of no schedule, retry or cancel',
    async (data) => {
      await fixture.workspace.write('m.csv', manifestOf(2));
      const connection = await servers.connect();
      const queue = await queueOf();
      const rubbish = await queue.add(RUN_JOB, data, { delay: HOUR_MS });
      const { outcomes } = await servers.startServer();
      await servers.startWorker();
      const output = fixture.workspace.at('out.csv');
      await queue.add(RUN_JOB, { manifest: 'm.csv', output: 'out.csv', schedule: 'nightly' });
      const isIdle = async () => (await queue.getActiveCount()) === 0;
      await waitUntil('the scheduled run is over', async () => outcomes().length === 1 && (await isIdle()));
      expect(outcomes()).toMatchObject([{ outcome: 'ended', exitCode: 0 }]);
      expect(await retryRun(connection, output, { signal: signal() })).toMatchObject({ kind: 'begun' });
      await waitUntil('it is over again', async () => outcomes().length === 2 && (await isIdle()));
      await expect(cancelRun(connection, output, signal())).rejects.toThrow(/has ended with exit code 0/);
      await expect(cancelRun(connection, rubbish.id ?? '', signal())).rejects.toThrow(
        `no run ${rubbish.id ?? ''} is known at this queue`,
      );
    },
  );

  test('is refused by its name, and tells the command', async () => {
    const { events, outcomes } = await servers.startServer({ onDone: 'cat >> ended.txt' });
    const job = await (await queueOf()).add(RUN_JOB, null);
    const id = job.id ?? '';
    await waitUntil('it has failed', async () => (await job.getState()) === 'failed');
    expect(outcomes()).toMatchObject([{ outcome: 'refused', exitCode: 1 }]);
    expect(events).toMatchObject([{ type: 'over', name: `job ${id}` }]);
    const told = await fixture.workspace.read('ended.txt');
    expect(told).toContain(`"error":"the request of job ${id} cannot be read (`);
  });

  test.each([
    [{ output: 'o\0.csv' }, /^the request of job \d+ cannot be read \(output: a NUL character/],
    [{ schedule: 'n\0', output: 'out.csv' }, /\(schedule: a NUL character/],
    [
      { limits: { rate: { count: 1e300, perMs: 1e-300 } } },
      /\(limits\.rate: expected a rate that can be kept/,
    ],
    [
      { schedule: 'nightly', timeZone: 'Nowhere/Land' },
      /^--tz Nowhere\/Land: expected the name of a time zone/,
    ],
  ])('refuses %j in one line, and calls the command', async (asked, words) => {
    await fixture.workspace.write('m.csv', manifestOf(1));
    const logged: string[] = [];
    const logger = pino({ level: 'error' }, { write: (line: string) => logged.push(line) });
    const { outcomes } = await servers.startServer({ logger, onDone: 'cat >> ended.txt' });
    const job = await (await queueOf()).add(RUN_JOB, { manifest: 'm.csv', ...asked });
    await waitUntil('it has failed', async () => (await job.getState()) === 'failed');
    expect(outcomes()).toMatchObject([{ outcome: 'refused', exitCode: 1, reason: words }]);
    expect(await fixture.workspace.read('ended.txt')).toContain('"manifest":"m.csv"');
    expect(logged).toEqual([]);
  });

  test('lists the schedules that BullMQ was told to repeat every so often', async () => {
    const queue = await queueOf();
    const template = { name: RUN_JOB, data: { manifest: 'm.csv' } };
    await queue.upsertJobScheduler('often', { every: 2 * HOUR_MS }, template);
    const listed = await listSchedules(await servers.connect());
    expect(listed).toMatchObject([
      { name: 'often', cron: 'every 2.0 hours', request: { manifest: 'm.csv' } },
    ]);
    await queue.obliterate({ force: true });
  });

  test('no reader of the queue fails, whatever it finds', async () => {
    await fixture.workspace.write('m.csv', manifestOf(2));
    const connection = await servers.connect();
    const queue = await queueOf();
    const turn = { manifest: 'm.csv', output: 'out-{date}.csv', schedule: 'nightly' };
    await fc.assert(
      fc.asyncProperty(fc.array(anyData, { minLength: 1, maxLength: 8 }), async (found) => {
        await queue.obliterate({ force: true });
        const good = newRunId();
        await queue.add(RUN_JOB, { manifest: 'm.csv' }, { jobId: good });
        await queue.addBulk(found.map((data) => ({ name: RUN_JOB, data, opts: { delay: HOUR_MS } })));
        await queue.addBulk(found.map((data) => ({ name: RUN_JOB, data })));
        for (const [index, data] of found.entries()) {
          await queue.upsertJobScheduler(`s${index}`, { every: HOUR_MS }, { name: RUN_JOB, data });
        }
        expect(await findKnownRun(connection, good)).toMatchObject({ job: { id: good } });
        expect((await readServiceStatus(connection)).requests.waiting).toBeGreaterThan(found.length);
        await listSchedules(connection);
        const job = await queue.add(RUN_JOB, turn, { jobId: newRunId() });
        await findPredecessor(connection, job, { ...turn, begunAt: Date.now() });
        expect(await cancelRun(connection, good, signal())).toMatchObject({ kind: 'taken-out' });
      }),
      { numRuns: 15, endOnFailure: true },
    );
  });

  test('a server refuses all of it in one line each, and goes on', async () => {
    await fixture.workspace.write('m.csv', manifestOf(2));
    const queue = await queueOf();
    await queue.obliterate({ force: true });
    const logged: string[] = [];
    const logger = pino({ level: 'error' }, { write: (line: string) => logged.push(line) });
    const ping = `${(await startMonitor()).url}/{schedule}`;
    const { outcomes } = await servers.startServer({ logger, onDone: 'cat > last.txt', ping });
    await servers.startWorker();
    await fc.assert(
      fc.asyncProperty(fc.array(anyData, { minLength: 5, maxLength: 10 }), async (found) => {
        const before = outcomes().length;
        await queue.addBulk(found.map((data) => ({ name: RUN_JOB, data })));
        await waitUntil('all are over', () => outcomes().length === before + found.length);
        for (const { outcome, reason = '' } of outcomes().slice(before)) {
          if (outcome === 'refused') expect(reason).toMatch(/^[^\n]+$/);
        }
      }),
      { numRuns: 10, endOnFailure: true, examples: [[[{ manifest: 'm.csv', schedule: '' }]]] },
    );
    expect(logged).toEqual([]);
    await queue.add(RUN_JOB, { manifest: 'm.csv', output: 'good.csv' });
    await waitUntil('a good one ends', () => outcomes().at(-1)?.outcome === 'ended');
  });
});
