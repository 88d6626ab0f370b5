import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ManifestCounts, countRows, createCounts } from '../../src/run/count-rows.js';
import { prepareRun } from '../../src/run/prepare.js';
import type { Preview, RunOptions } from '../../src/run/run-options.js';
import { UndoStack } from '../../src/shared/undo.js';

/** A preview of what has nothing remarkable; tests say what is. */
export const PLAIN_PREVIEW: Preview = {
  ...createCounts(),
  manifest: 'm.csv',
  output: 'o.csv',
  unnamedColumns: 0,
  toSubmit: 0,
  urlColumn: 'image',
  firstUrl: 'http://h.test/1.jpg',
  limits: { rate: { count: 20, perMs: 60_000 }, pollRate: { count: 10, perMs: 1000 }, maxInFlight: 10 },
  submitMs: 0,
  hasChanged: false,
  polls: 0,
  answers: { ms: 30_000, isMeasured: false, isSlower: false },
  expiring: { images: 0, first: undefined },
  finishBy: undefined,
  cost: undefined,
};

/** What there is to do for a manifest. @param sizeBytes what the manifest is said to have */
export async function countsOf(
  options: Partial<RunOptions> & Pick<RunOptions, 'manifest'>,
  sizeBytes?: number,
): Promise<ManifestCounts> {
  const undo = new UndoStack();
  try {
    const output = join(tmpdir(), 'bulk-describe-no-such-output.csv');
    const prepared = await prepareRun({ output, ...options, dryRun: true }, undo);
    const { manifest } = prepared;
    return await countRows(
      { ...prepared, manifest: sizeBytes ? { ...manifest, sizeBytes } : manifest },
      options,
    );
  } finally {
    await undo.release();
  }
}
