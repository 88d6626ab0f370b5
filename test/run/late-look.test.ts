import { expect, test } from 'vitest';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { RUNS } from '../../src/shared/published.js';
import * as registry from '../../src/shared/queue/registry.js';
import { readRunFile } from '../../src/writer/run-file.js';
import { describeOnRedis } from '../helpers/queues.js';
import { RunFixture } from '../helpers/run-fixture.js';
import { manifestOf } from '../helpers/workspace.js';

describeOnRedis('a look at a run whose answers come when the run has ended', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);

  test('neither publishes it as running again nor writes its run file', async () => {
    const manifest = await fixture.workspace.write('m.csv', manifestOf(3));
    fixture.simulator.setOptions({ latencyMs: 300, latencySpread: 0 });
    const held = new AbortController();
    let isHeld = false;
    /** Holds the list of workers back, which each look at the run asks for. */
    const holdLooks = ({ store }: QueueConnection) => {
      const members = store.members.bind(store);
      store.members = async (group) => {
        const found = await members(group);
        if (group.startsWith('workers:') && fixture.simulator.stats().paid > 0) {
          isHeld = true;
          await new Promise((resolve) => held.signal.addEventListener('abort', resolve));
        }
        return found;
      };
      return Promise.resolve(async () => {
        held.abort();
        // As many answers as the look has yet to wait for, and some more: they come in the order of the questions.
        for (let answers = 0; answers < 200; answers++) await members('any');
      });
    };
    const { receipt } = await fixture.run({ manifest, timing: { tickMs: 10 }, companions: [holdLooks] });
    expect(isHeld).toBe(true);
    const connection = await fixture.queue.connect();
    expect(await registry.find(connection.store, RUNS, receipt.run)).toMatchObject({
      ended: { exitCode: 0 },
    });
    expect(await readRunFile(fixture.workspace.at('out.csv.run'))).toMatchObject({ open: false });
  });
});
