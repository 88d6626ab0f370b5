import { describe, expect, test } from 'vitest';
import { ProgressMeter } from '../../src/run/run-watch.js';
import { createRunCounts } from '../../src/shared/run-counts.js';

const live = { inFlight: 0, share: 1 };

describe('progress', () => {
  test('the time that is left is that of the rows to do, wherever described ones are in the manifest', () => {
    const meter = new ProgressMeter({ rows: 1000, described: 900 });
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
      new ProgressMeter({ rows: 10, described: 0 }).read(createRunCounts(), live, 0).etaMs,
    ).toBeUndefined();
  });

  test('the rate is that of the last half a minute', () => {
    const meter = new ProgressMeter({ rows: 1000, described: 0 });
    for (let second = 0; second <= 60; second++) {
      const described = second <= 30 ? second * 10 : 300 + (second - 30) * 2;
      const { perSecond } = meter.read({ ...createRunCounts(), described }, live, second * 1000);
      if (second === 30) expect(perSecond).toBeCloseTo(10);
      if (second === 60) expect(perSecond).toBeCloseTo(2);
    }
  });
});
