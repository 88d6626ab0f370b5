import { describe, expect, test } from 'vitest';
import { readRunFile } from '../../src/writer/run-file.js';
import { describeOnAnyQueue } from '../helpers/queues.js';
import { RunFixture } from '../helpers/run-fixture.js';
import { manifestOf } from '../helpers/workspace.js';
import { SeriesMeter, addToSeries } from '../../src/run/run-series.js';

const EMPTY = { from: 0, widthMs: 1000, described: [], failed: [] };

describe('a run over its time', () => {
  test('counts what has come in the bucket of its moment, and nothing where nothing came', () => {
    const once = addToSeries(EMPTY, { described: 3, failed: 1 }, 500);
    const later = addToSeries(once, { described: 2, failed: 0 }, 2500);
    expect(later).toEqual({ from: 0, widthMs: 1000, described: [3, 0, 2], failed: [1, 0, 0] });
  });

  test('keeps what was spent up to each bucket', () => {
    const once = addToSeries(EMPTY, { described: 1, failed: 0, cost: 2 }, 0);
    const later = addToSeries(once, { described: 1, failed: 0, cost: 3 }, 3000);
    expect(later.cost).toEqual([2, 2, 2, 3]);
    expect(addToSeries(later, { described: 0, failed: 0 }, 4000).cost).toEqual([2, 2, 2, 3, 3]);
  });

  test('makes one of each two buckets when there are too many, and loses nothing', () => {
    let series: Parameters<typeof addToSeries>[0] = EMPTY;
    for (let second = 0; second < 1001; second++) {
      series = addToSeries(series, { described: 2, failed: 1, cost: second }, second * 1000);
    }
    const sum = (values: readonly number[]) => values.reduce((all, value) => all + value, 0);
    expect(series.widthMs).toBe(16_000);
    expect(series.described.length).toBeLessThanOrEqual(120);
    expect([sum(series.described), sum(series.failed)]).toEqual([2002, 1001]);
    expect(series.described.slice(0, 2)).toEqual([32, 32]);
    expect(series.cost?.slice(0, 2)).toEqual([15, 31]);
  });

  test('takes a clock that goes back, a gap of days, and a failure that was described after all', () => {
    const ahead = addToSeries(EMPTY, { described: 1, failed: 1 }, 5000);
    expect(addToSeries(ahead, { described: 1, failed: -3 }, 1000)).toMatchObject({
      described: [0, 0, 0, 0, 0, 2],
      failed: [0, 0, 0, 0, 0, 0],
    });
    const days = addToSeries(ahead, { described: 7, failed: 0 }, 3 * 86_400_000);
    expect(days.described.length).toBeLessThanOrEqual(120);
    expect(days.described.at(-1)).toBe(7);
  });

  test('goes on where an earlier start of the run has left it', () => {
    const first = new SeriesMeter(undefined, 0);
    first.read({ described: 1, failed: 0 }, 1000);
    const published = first.read({ described: 4, failed: 0 }, 2000);
    const second = new SeriesMeter(published, 60_000);
    expect(second.read({ described: 2, failed: 1 }, 61_000)).toMatchObject({
      from: 0,
      described: [4, ...Array<number>(11).fill(0), 2],
      failed: [0, ...Array<number>(11).fill(0), 1],
    });
  });
});

describeOnAnyQueue('a run that is resumed', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);

  test('keeps all of its starts as one series', async () => {
    const manifest = await fixture.workspace.write('m.csv', manifestOf(5));
    const prices = { perImage: 0.5 };
    await fixture.run({ manifest, prices, limit: 2 });
    const { receipt } = await fixture.run({ manifest, prices });
    expect(receipt.described).toBe(3);
    const { series } = (await readRunFile(`${receipt.output}.run`)) ?? {};
    expect(series?.described.reduce((sum, images) => sum + images, 0)).toBe(5);
    expect(series?.cost?.at(-1)).toBe(2.5);
  });
});
