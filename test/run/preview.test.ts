import { describe, expect, test } from 'vitest';
import { mismatchOf, previewOfRetry } from '../../src/run/preview.js';
import type { Preview } from '../../src/run/run-options.js';
import { PLAIN_PREVIEW } from '../helpers/preview.js';

const preview: Preview = {
  ...PLAIN_PREVIEW,
  rows: 10,
  images: 9,
  described: 1,
  failedBefore: 4,
  failedImages: 3,
  toSubmit: 5,
  submitMs: 15_000,
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
      const trouble = mismatchOf({ rows: ownRows, earlierRows }, { ...preview, described, toSubmit });
      if (text === undefined) expect(trouble).toBeUndefined();
      else expect(trouble).toMatch(text);
    },
  );
});
