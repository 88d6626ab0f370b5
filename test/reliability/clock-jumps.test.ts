import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import type { CliProcess } from '../helpers/cli.js';
import { Clock, fakeTimeLibrary, removeLeftClocks } from '../helpers/clock.js';
import { type QueueFixture, describeOnBothQueues } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { allIds, describedIds, endOf, kill9, startRun } from './run-process.js';

const ROWS = 60;
/** A stop for as long as the jump would be a test that does not end. */
const DAY_S = 86_400;

// A laptop that was asleep, a virtual machine that was moved, a time server that came late.
describeOnBothQueues('a clock that jumps', (openQueue) => {
  describe.skipIf(fakeTimeLibrary === undefined)('by a day', () => {
    let workspace: Workspace;
    let simulator: Simulator;
    let queue: QueueFixture;
    let clock: Clock;
    const started: CliProcess[] = [];

    beforeEach(async () => {
      workspace = await Workspace.create();
      simulator = await startSimulator({ latencyMs: 200, latencySpread: 0 });
      queue = await openQueue();
      clock = new Clock(workspace.at('clock'));
      await workspace.write('m.csv', manifestOf(ROWS));
    });
    afterEach(async () => {
      for (const { child } of started) child.kill('SIGKILL');
      await Promise.all(started.splice(0).map(({ ended }) => ended));
      await simulator.close();
      await workspace.remove();
    });

    afterAll(removeLeftClocks);

    const start = () => {
      const about = { workspace, api: simulator.url, queue: queue.url, rate: '20/s' };
      const run = startRun({ ...about, flags: ['--attempts', '20'], env: clock.env });
      started.push(run);
      return run;
    };

    test.each([
      ['back', -DAY_S],
      ['forth', DAY_S],
    ])('%s while a run goes on stops nothing, and nothing is paid twice', async (_, seconds) => {
      // Some of the images wait for a second try, which a moment of the clock decides.
      simulator.setOptions({ failures: { http500: 0.3 } });
      const run = start();
      await waitUntil('20 are paid', () => simulator.stats().paid >= 20);
      clock.jump(seconds);
      // Those that failed before it wait on; a sixth failure in a row would be a minute's wait.
      simulator.setOptions({ failures: {} });
      await endOf(run);
      expect(await describedIds(workspace)).toEqual(allIds(ROWS));
      expect(simulator.stats().paid).toBe(ROWS);
    });

    test.each([
      ['back', DAY_S, 0],
      ['forth', 0, DAY_S],
    ])('%s between two runs stops nothing', async (_, before, after) => {
      clock.jump(before);
      simulator.setOptions({ failures: { http500: 0.3 } });
      const killed = start();
      await waitUntil('20 are paid', () => simulator.stats().paid >= 20);
      await kill9(killed);
      clock.jump(after);
      simulator.setOptions({ failures: {} });
      const { receipt } = await endOf(start());
      expect(await describedIds(workspace)).toEqual(allIds(ROWS));
      expect(simulator.stats().paid).toBeLessThanOrEqual(ROWS + receipt.maybePaidTwice);
    });
  });
});
