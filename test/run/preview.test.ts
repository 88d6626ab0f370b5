import { describe, expect, test } from 'vitest';
import { mismatchOf, previewOfRetry } from '../../src/run/preview.js';
import type { Preview } from '../../src/run/run-options.js';

const preview: Preview = {
  manifest: 'm.csv',
  output: 'o.csv',
  sampled: false,
  rows: 10,
  images: 9,
  described: 1,
  toCopy: 0,
  failedBefore: 4,
  failedImages: 3,
  localImages: 0,
  badUrls: 0,
  emptyRecords: 0,
  unknownKeys: new Set(),
  unnamedColumns: 0,
  badRecords: 0,
  duplicateKeys: 0,
  unreadable: undefined,
  toSubmit: 5,
  urlColumn: 'image',
  firstUrl: 'http://h.test/1.jpg',
  limits: { rate: { count: 20, perMs: 60_000 }, pollRate: { count: 10, perMs: 1000 }, maxInFlight: 10 },
  submitMs: 15_000,
  signed: [],
  left: 0,
  hasChanged: false,
  polls: 0,
  answers: { ms: 30_000, isMeasured: false, isSlower: false },
  expiring: { images: 0, first: undefined },
  finishBy: undefined,
  cost: undefined,
};

describe('a preview', () => {
  test('of a run that is retried counts the images that failed for good as to be submitted', () => {
    expect(previewOfRetry(preview)).toMatchObject({ toSubmit: 8, failedBefore: 0, failedImages: 0 });
    expect(previewOfRetry(preview, 6)).toMatchObject({ toSubmit: 6 });
  });

  test.each([
    [100, 0, 5, /only 1 of the 100 rows/],
    [0, 100, 5, /none of the 100 rows/],
    [100, 0, 0, undefined],
    [0, 100, 0, undefined],
  ])(
    'of %d rows in the output and %d in earlier files with %d to submit: %s',
    (ownRows, earlierRows, toSubmit, text) => {
      const described = earlierRows > 0 ? 0 : 1;
      const trouble = mismatchOf(
        { ownRows, earlierRows, isScheduled: false },
        { ...preview, described, toSubmit },
      );
      if (text === undefined) expect(trouble).toBeUndefined();
      else expect(trouble).toMatch(text);
    },
  );
});
