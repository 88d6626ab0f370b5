import { queryObjects } from 'node:v8';
import { Queue } from 'bullmq';
import { afterEach, expect, it } from 'vitest';
import { startAccountWorker } from '../../src/run/account-worker.js';
import { RunControl } from '../../src/run/run-control.js';
import { RootFolder } from '../../src/runs/root-folder.js';
import { RUNS_QUEUE, RUN_JOB, type RunRequest } from '../../src/runs/run-request.js';
import { RunsHome } from '../../src/runs/runs-home.js';
import { silentLogger } from '../../src/shared/log.js';
import { UndoStack } from '../../src/shared/undo.js';
import { Bench, FAST } from '../helpers/bench.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';

const logger = silentLogger();
const RUNS = 60;

describeOnRedis('a home and a worker that have seen many runs', (openQueue) => {
  const bench = Bench.forSuite(openQueue);
  const undo = new UndoStack();
  afterEach(() => undo.release());

  async function connect() {
    const connection = await bench.queue.connect();
    undo.defer(() => connection.close());
    return connection;
  }

  it('keep neither a connection nor a queue open for each of them', { timeout: 150_000 }, async () => {
    let ended = 0;
    const options = { api: bench.simulator.url, token: 'any', limits: FAST };
    const worker = await startAccountWorker(await connect(), options, { logger, onEvent: () => undefined });
    undo.defer(() => worker.stop());
    const home = await RunsHome.start({
      connection: await connect(),
      root: await RootFolder.open(bench.workspace.path),
      queue: bench.queue.url,
      api: { api: bench.simulator.url },
      env: process.env,
      logger,
      timing: { tickMs: 50 },
      lateResultsEveryMs: 200,
      onEvent: ({ type }) => {
        if (type === 'over') ended++;
      },
    });
    undo.defer(() => home.stop());
    const watcher = await connect();
    const runs = watcher.queue<RunRequest, unknown>(RUNS_QUEUE);
    await bench.workspace.write('m.csv', manifestOf(1));
    const run = async (from: number, to: number) => {
      for (let i = from; i < to; i++) await runs.add(RUN_JOB, { manifest: 'm.csv', output: `${i}.csv` });
      await waitUntil('they are over', () => ended === to, 100_000);
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
