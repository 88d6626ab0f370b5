import { describe, expect, test } from 'vitest';
import { ProgressMeter } from '../../src/run/run-watch.js';
import { createRunCounts } from '../../src/shared/run-counts.js';

const live = { inFlight: 0, share: 1 };

describe('progress', () => {
  test('the time that is left is that of the rows to do, wherever described ones are in the manifest', () => {
    const meter = new ProgressMeter({ rows: 1000, toSubmit: 100 });
    meter.read(createRunCounts(), live, 0);
    // Ten rows were met and done, in ten seconds; the 900 come behind the other 90.
    const progress = meter.read({ ...createRunCounts(), rows: 10, described: 10 }, live, 10_000);
    expect(progress).toMatchObject({ totalRows: 1000, settled: 10, perSecond: 1, etaMs: 90_000 });
    const later = meter.read({ ...createRunCounts(), rows: 1000, described: 20, resumed: 900 }, live, 20_000);
    expect(later).toMatchObject({ settled: 920, etaMs: 80_000 });
  });

  test('it is not known without the number of rows, or before anything is done', () => {
    const uncounted = new ProgressMeter(undefined);
    uncounted.read(createRunCounts(), live, 0);
    const progress = uncounted.read({ ...createRunCounts(), described: 10 }, live, 10_000);
    expect(progress).toMatchObject({ totalRows: undefined, perSecond: 1, etaMs: undefined });
    expect(
      new ProgressMeter({ rows: 10, toSubmit: 10 }).read(createRunCounts(), live, 0).etaMs,
    ).toBeUndefined();
  });

  test('the rate is that of the last half a minute', () => {
    const meter = new ProgressMeter({ rows: 1000, toSubmit: 1000 });
    for (let second = 0; second <= 60; second++) {
      const described = second <= 30 ? second * 10 : 300 + (second - 30) * 2;
      const { perSecond } = meter.read({ ...createRunCounts(), described }, live, second * 1000);
      if (second === 30) expect(perSecond).toBeCloseTo(10);
      if (second === 60) expect(perSecond).toBeCloseTo(2);
    }
  });

  test('the rate is that of prompts: copies, and rows that fail by their record, take no time', () => {
    const meter = new ProgressMeter({ rows: 100, toSubmit: 50 });
    meter.read(createRunCounts(), live, 0);
    const failedByCode = new Map([['invalid-url', 30] as const, ['rejected', 5] as const]);
    const counts = { ...createRunCounts(), rows: 65, described: 10, copied: 20, failedByCode };
    expect(meter.read(counts, live, 10_000)).toMatchObject({
      settled: 65,
      totalRows: 100,
      perSecond: 1,
      etaMs: 35_000,
    });
  });

  test('with a limit it is that of the images that are paid for', () => {
    const meter = new ProgressMeter({ rows: 100, toSubmit: 20, isLimited: true });
    meter.read(createRunCounts(), live, 0);
    const counts = { ...createRunCounts(), rows: 60, described: 10, copied: 20, resumed: 30 };
    expect(meter.read(counts, live, 10_000)).toMatchObject({ settled: 10, totalRows: 20, etaMs: 10_000 });
  });
});
