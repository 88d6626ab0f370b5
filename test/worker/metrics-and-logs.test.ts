import { expect, test } from 'vitest';
import { readMetrics } from '../../src/shared/published.js';
import { describeOnAnyQueue } from '../helpers/queues.js';
import { manifestOf } from '../helpers/workspace.js';
import { RunFixture } from '../helpers/run-fixture.js';

describeOnAnyQueue('what a worker leaves behind for people', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);

  test('counts calls, outcomes, latency and poll lag as the API saw them', async () => {
    fixture.simulator.setOptions({ failures: { reject: 0.2 }, latencyMs: 300, latencySpread: 0.5 });
    const manifest = await fixture.workspace.write('m.csv', manifestOf(30));
    const { receipt } = await fixture.run({ manifest, stopFailing: 100 });
    const stats = fixture.simulator.stats();
    const counts = new Map<string, number>();
    await fixture.atBoard(receipt.run, async ({ connection, jobs }) => {
      for (const [name, count] of await readMetrics(connection.store, jobs.name)) counts.set(name, count);
    });
    expect(receipt.failed).toBeGreaterThan(0);
    expect(Object.fromEntries(counts)).toMatchObject({
      'calls:submit': stats.submits,
      'calls:poll': stats.polls,
      'outcomes:described': receipt.described,
      'outcomes:rejected': receipt.failed,
    });
    for (const name of ['latency', 'pollLag']) {
      const buckets = [...counts].filter(([field]) => field.startsWith(`${name}:le:`));
      expect(buckets.reduce((sum, [, count]) => sum + count, 0)).toBe(receipt.described);
      expect(counts.get(`${name}:sum`)).toBeGreaterThan(0);
    }
    // Medians of 300 ms, noticed at most one poll later.
    expect(counts.get('latency:sum')).toBeLessThan(30 * 5);
  });

  test("tells an image's story in its job's log, in four or five lines", async () => {
    fixture.simulator.setOptions({ failures: {} });
    const manifest = await fixture.workspace.write('m.csv', manifestOf(2));
    const { receipt } = await fixture.run({ manifest });
    await fixture.atBoard(receipt.run, async ({ jobs }) => {
      const mine = (await jobs.getJobs(['completed'])).filter((job) => job.data.run === receipt.run);
      expect(mine).toHaveLength(2);
      for (const job of mine) {
        const { logs } = await jobs.getJobLogs(job.id ?? '');
        expect(logs.join('\n').split('\n').map(withoutNumbers)).toEqual([
          expect.stringMatching(/^taken by a worker on /),
          'submitted (attempt … of …): message …',
          expect.stringMatching(/^completed after … polls?$/),
          'published to …',
        ]);
      }
    });
  });
});

function withoutNumbers(line: string): string {
  return line.replace(/^[\d:.]{12} /, '').replace(/sim-\S+|\d+|run \S+/g, '…');
}
