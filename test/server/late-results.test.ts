import { expect, test } from 'vitest';
import { imageHash } from '../../src/producer/image-url.js';
import { accountOf } from '../../src/run/api-options.js';
import { RUNS_QUEUE, type RunOutcome, type RunRequest } from '../../src/service/run-request.js';
import type { RunsServerOptions } from '../../src/service/running-request.js';
import { describeQueueName, resultsQueueName } from '../../src/shared/account.js';
import { acquireFileLock } from '../../src/shared/file-lock.js';
import { UNFINISHED_STATES, describeJobId } from '../../src/shared/jobs.js';
import { RUNS } from '../../src/shared/published.js';
import { listSetAside } from '../../src/shared/run-leases.js';
import { runPaths } from '../../src/writer/output-paths.js';
import { FAST } from '../helpers/run-fixture.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { ServerFixture, isOver } from '../helpers/server-fixture.js';

const url = (id: number) => `http://images.test/${id}.jpg`;

describeOnRedis('a server, and runs that have ended', (openQueue) => {
  const servers = ServerFixture.forSuite(openQueue);
  const { fixture } = servers;
  const enqueue = (request: RunRequest) => servers.enqueue(request);
  const queueName = () => describeQueueName(accountOf({ api: fixture.simulator.url }));

  /** A run of four images that have all failed, and what puts one of them back, as the dashboard does. */
  async function failedRun(options: Partial<RunsServerOptions> = {}) {
    await fixture.workspace.write('m.csv', manifestOf(4));
    fixture.simulator.setOptions({ failures: { incomplete: 1 } });
    const { events, outcomes } = await servers.startServer(options);
    await servers.startWorker();
    const asked = { manifest: 'm.csv', output: 'out.csv', attempts: 1, stopFailing: 100 };
    const { run, output } = await enqueue(asked);
    await waitUntil('it is over', () => isOver(events, run));
    fixture.simulator.setOptions({ failures: {} });
    const connection = await servers.connect();
    const retry = async (id: number) => {
      const jobs = connection.queue(queueName());
      await (await jobs.getJob(describeJobId(run, imageHash(url(id)))))?.retry();
    };
    const untilRow = (id: string) =>
      waitUntil('its row is there', async () => (await fixture.ids('out.csv')).includes(id));
    return { connection, events, outcomes, run, output, retry, untilRow };
  }

  test('writes what is retried on the board after the end of a run, and pays for nothing else', async () => {
    const { events, run, retry, untilRow } = await failedRun();
    const { paid } = fixture.simulator.stats();
    await retry(3);
    await untilRow('3');
    await waitUntil('that is over', () => isOver(events, run, 2));
    await fixture.expectRows(['3'], ['1', '2', '4']);
    expect(fixture.simulator.stats().paid).toBe(paid + 1);
  });

  test('writes what is retried while the command still runs that the retry before has called', async () => {
    const { events, run, retry, untilRow } = await failedRun({ onDone: 'sleep 2' });
    await retry(3);
    await waitUntil('that is over', () => isOver(events, run, 2));
    await retry(4);
    await untilRow('4');
    await waitUntil('that is over as well', () => isOver(events, run, 3));
    await fixture.expectRows(['3', '4'], ['1', '2']);
  });

  test('waits with what is retried while another process has the output', async () => {
    const { connection, events, outcomes, run, output, retry, untilRow } = await failedRun();
    const lock = await acquireFileLock(runPaths(output).lock, { what: 'the output' });
    await retry(3);
    // The worker has set it aside, or has not yet heard that the run is over.
    const results = () => connection.countJobs(resultsQueueName(run), UNFINISHED_STATES);
    await waitUntil('something is there to be collected', async () => {
      return (await results()) + (await listSetAside(connection.store, run)).length > 0;
    });
    await fixture.workspace.write('n.csv', manifestOf(3, 'http://other.test'));
    await enqueue({ manifest: 'n.csv' });
    await waitUntil('another run has ended', () =>
      outcomes().some(({ receipt }) => receipt?.described === 3),
    );
    const requests = await connection.queue<RunRequest, RunOutcome>(RUNS_QUEUE).getJobs();
    expect(requests.filter(({ data }) => data.output === output && data.collectOnly === true)).toEqual([]);
    await lock.release();
    await untilRow('3');
    await waitUntil('that is over', () => isOver(events, run, 2));
    expect(outcomes().map(({ outcome }) => outcome)).not.toContain('skipped');
  });

  test('leaves a run that an outage of the API has ended alone until somebody starts it again', async () => {
    fixture.simulator.setOptions({ down: true });
    await fixture.workspace.write('m.csv', manifestOf(30));
    const { events, outcomes } = await servers.startServer({ timing: { tickMs: 50, downLimitMs: 1500 } });
    await servers.startWorker();
    const { run } = await enqueue({ manifest: 'm.csv', output: 'out.csv' });
    await waitUntil('it has ended', () => isOver(events, run));
    expect(outcomes()).toMatchObject([{ exitCode: 4, receipt: { remaining: 30 } }]);
    expect(await (await servers.connect()).countJobs(queueName(), UNFINISHED_STATES)).toBe(0);
    fixture.simulator.setOptions({ down: false });
    await fixture.workspace.write('n.csv', manifestOf(3, 'http://other.test'));
    const other = await enqueue({ manifest: 'n.csv' });
    await waitUntil('another run has ended', () => isOver(events, other.run));
    expect(events.filter((event) => event.type === 'opened').map((opened) => opened.run)).toEqual([
      run,
      other.run,
    ]);
    expect(fixture.simulator.stats().paid).toBe(3);
  });

  test('says of a run that was stopped why it was, also when what it had in flight has come in', async () => {
    // Longer than a busy machine takes to stop the run.
    fixture.simulator.setOptions({ failures: { reject: 0.8 }, latencyMs: 8000, latencySpread: 0 });
    await fixture.workspace.write('m.csv', manifestOf(200));
    const { outcomes } = await servers.startServer();
    const rate = { count: 40, perMs: 1000 };
    await servers.startWorker({ ...FAST, rate });
    const { run } = await enqueue({ manifest: 'm.csv', output: 'out.csv' });
    await waitUntil('it is stopped', () => outcomes().length > 0);
    await waitUntil('what was in flight has come in', () => outcomes().length > 1);
    const [stopped, collected] = outcomes();
    expect([stopped?.exitCode, stopped?.reason]).toEqual([4, expect.stringMatching(/--stop-failing/)]);
    expect(collected).toMatchObject({ exitCode: 4, reason: stopped?.reason, receipt: { submits: 0 } });
    expect(collected?.receipt?.remaining).toBeGreaterThan(0);
    const published = await RUNS.list((await servers.connect()).store);
    expect(published.find((status) => status.run === run)?.ended).toMatchObject({ exitCode: 4 });
  });
});
