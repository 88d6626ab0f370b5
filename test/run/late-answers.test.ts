import { expect, test } from 'vitest';
import { imageHash } from '../../src/producer/image-url.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { RUNS } from '../../src/shared/published.js';
import { listSetAside, noteSetAside } from '../../src/shared/run-leases.js';
import { readRunFile } from '../../src/writer/run-file.js';
import { describeOnRedis } from '../helpers/queues.js';
import { RunFixture } from '../helpers/run-fixture.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';

describeOnRedis('the end of a run', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);

  test('is not undone by a look at it whose answers come later: it is not published as running, nor is its run file written', async () => {
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
    expect(await RUNS.find(connection.store, receipt.run)).toMatchObject({
      ended: { exitCode: 0 },
    });
    expect(await readRunFile(fixture.workspace.at('out.csv.run'))).toMatchObject({ open: false });
  });

  test('leaves no note of an image that was put off and has ended since: a server would execute the run again', async () => {
    const manifest = await fixture.workspace.write('m.csv', manifestOf(3));
    fixture.simulator.setOptions({ latencyMs: 300, latencySpread: 0 });
    const run = 'putoffputoff';
    const noteLate = ({ store }: QueueConnection) => {
      const image = imageHash('http://images.test/1.jpg');
      const paid = waitUntil('all are paid', () => fixture.simulator.stats().paid === 3);
      const noted = paid.then(() => noteSetAside(store, run, image));
      return Promise.resolve(() => noted);
    };
    // Longer than the run: it does not look at its notes while it goes on.
    const timing = { tickMs: 60_000 };
    await fixture.run({ manifest, run, timing, companions: [noteLate] });
    const connection = await fixture.queue.connect();
    expect(await listSetAside(connection.store, run)).toEqual([]);
  });
});
