import { isCountedInPart } from '../producer/count-manifest.js';
import { type Row, readRows } from '../producer/row-reader.js';
import { FatalError, UsageError } from '../shared/errors.js';
import { shortHash } from '../shared/short-hash.js';
import type { PreparedRun } from './prepare.js';
import type { RunOptions } from './run-options.js';

/**
 * Chooses the images of `--sample` among all of the manifest: those whose hashes are the smallest. So they are always
 * the same, whatever has become of them, and those of a smaller sample are among them. Where a column identifies the rows,
 * its values are hashed, since their URLs may change.
 * @returns whether a row is in the sample; undefined without one
 * @throws {UsageError} for a manifest of which only the first records are known
 */
export async function chooseSample(
  { manifest, plan, outputOptions: { index } }: Pick<PreparedRun, 'manifest' | 'plan' | 'outputOptions'>,
  { sample, signal }: Pick<RunOptions, 'sample' | 'signal'>,
): Promise<((row: Pick<Row, 'key' | 'image'>) => boolean) | undefined> {
  if (sample === undefined) return undefined;
  if (isCountedInPart(manifest)) {
    throw new UsageError(
      `--sample ${sample}: it is chosen among all images, and ${manifest.name} ${manifest.replayable ? 'has over 1 GB, of which only the first records are counted: take a part of it, or --limit' : 'can be read only once: save it as a file first, or use --limit'}`,
    );
  }
  const rankOf = ({ key = '', image = '' }: Pick<Row, 'key' | 'image'>) =>
    index.keyed ? shortHash(key) : image;
  let smallest = new Set<string>();
  let largest: string | undefined;
  const keepSmallest = () => {
    smallest = new Set([...smallest].sort(byCode).slice(0, sample));
    if (smallest.size === sample) largest = [...smallest].at(-1);
  };
  try {
    for await (const rows of readRows(manifest, plan, signal)) {
      for (const row of rows) {
        const rank = rankOf(row);
        if (row.image !== undefined && (largest === undefined || rank < largest)) smallest.add(rank);
      }
      if (smallest.size >= 2 * sample) keepSmallest();
    }
  } catch (error) {
    // Counted and run are the rows before the place that cannot be read past.
    if (!(error instanceof FatalError)) throw error;
  }
  keepSmallest();
  const chosen = smallest;
  return (row) => chosen.has(rankOf(row));
}

function byCode(a: string, b: string): number {
  return a < b ? -1 : 1;
}
