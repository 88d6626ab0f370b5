import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { type RecordingProxy, startRecordingProxy } from './recording-proxy.js';
import { allIds, describedIds, endOf, startRun } from './run-process.js';

describeOnRedis('--expire-after', (openQueue) => {
  let workspace: Workspace;
  let simulator: Simulator;
  let proxy: RecordingProxy;

  beforeEach(async () => {
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 30 });
    // What a run calls three minutes are three tenths of a second here.
    proxy = await startRecordingProxy(simulator.url, (path) =>
      path.replace(/expireMins=3$/, 'expireMins=0.005'),
    );
  });
  afterEach(async () => {
    await proxy.close();
    await simulator.close();
    await workspace.remove();
  });

  test('has the API give messages up, which are submitted again and counted', async () => {
    await workspace.write('m.csv', manifestOf(6));
    simulator.setOptions({ failures: { never: 1 } });
    const queue = await openQueue();
    const flags = ['--expire-after', '3m', '--attempts', '3'];
    const run = startRun({ workspace, api: proxy.url, queue: queue.url, flags });
    await waitUntil('six have been submitted', () => simulator.stats().paid >= 6);
    simulator.setOptions({ failures: {} });
    const { receipt } = await endOf(run);
    const { paid, failures } = simulator.stats();
    expect(failures.never).toBeGreaterThanOrEqual(6);
    expect(paid).toBe(6 + (failures.never ?? 0));
    expect(receipt).toMatchObject({ described: 6, failed: 0, submits: paid, maybePaidTwice: 0 });
    expect(await describedIds(workspace)).toEqual(allIds(6));
  });

  test('fails an image whose messages are all given up, with the number of its submits', async () => {
    await workspace.write('m.csv', manifestOf(2));
    simulator.setOptions({ failures: { never: 1 } });
    const queue = await openQueue();
    const flags = ['--expire-after', '3m', '--attempts', '2'];
    const { receipt } = await endOf(startRun({ workspace, api: proxy.url, queue: queue.url, flags }), 2);
    expect(receipt).toMatchObject({ described: 0, failed: 2, submits: 4 });
    const failures = await workspace.records('out.failed.csv');
    expect(failures.map((row) => [row['error_code'], row['attempts']])).toEqual([
      ['incomplete', '2'],
      ['incomplete', '2'],
    ]);
  });
});
