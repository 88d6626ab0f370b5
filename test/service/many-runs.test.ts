import { queryObjects } from 'node:v8';
import { Queue } from 'bullmq';
import { expect, test } from 'vitest';
import { RunControl } from '../../src/run/run-control.js';
import { RUNS_QUEUE, RUN_JOB, type RunRequest } from '../../src/service/run-request.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { ServerFixture } from '../helpers/server-fixture.js';

const RUNS = 60;

describeOnRedis('a server and a worker that have seen many runs', (openQueue) => {
  const servers = ServerFixture.forSuite(openQueue);
  const { fixture } = servers;

  test('keep neither a connection nor a queue open for each of them', { timeout: 150_000 }, async () => {
    await servers.startWorker();
    const { outcomes } = await servers.startServer();
    const watcher = await servers.connect();
    const runs = watcher.queue<RunRequest, unknown>(RUNS_QUEUE);
    await fixture.workspace.write('m.csv', manifestOf(1));
    const run = async (from: number, to: number) => {
      for (let i = from; i < to; i++) await runs.add(RUN_JOB, { manifest: 'm.csv', output: `${i}.csv` });
      await waitUntil('they are over', () => outcomes().length === to, 100_000);
      await waitUntil('and told', async () => (await runs.getActiveCount()) === 0);
    };
    /** Objects that are alive, and connections that Redis has. */
    const count = async () => ({
      queues: queryObjects(Queue, { format: 'count' }),
      controls: queryObjects(RunControl, { format: 'count' }),
      clients: (await runs.getBackend().getClientList()).join('\n').trim().split('\n').length,
    });
    await run(0, 2);
    const before = await count();
    await run(2, RUNS);
    const { queues, controls, clients } = await count();
    // A worker keeps the results queues that it was asked for last.
    expect(queues - before.queues).toBeLessThan(RUNS / 2 + 5);
    expect(controls).toBeLessThanOrEqual(before.controls);
    expect(clients).toBeLessThanOrEqual(before.clients);
  });
});
