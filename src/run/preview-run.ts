import { type ManifestCounts, UnfinishedRows, previewManifest } from '../producer/count-manifest.js';
import { DEFAULT_LIMITS, type Limits, intervalMs } from '../shared/limits.js';
import { isPermanent } from '../shared/outcome.js';
import { UndoStack } from '../shared/undo.js';
import { DescribedRows, OutputIndex } from '../writer/output-index.js';
import { EarlierFailures } from '../writer/failures.js';
import type { PreparedRun } from './prepare.js';
import type { Preview, RunOptions } from './run-options.js';

/**
 * Counts what there is to do; priced at the limits that are known without asking the queue.
 * @returns the rows that are left to do too, as far as there are few
 */
export async function previewRun(
  prepared: PreparedRun,
  options: RunOptions,
): Promise<{ readonly preview: Preview; readonly unfinished: UnfinishedRows }> {
  const { manifest, plan, paths } = prepared;
  const unfinished = new UnfinishedRows();
  const counted = await countRows(prepared, options, unfinished);
  const preview = {
    manifest: manifest.path,
    output: paths.output,
    sampled: counted.sampled,
    rows: counted.rows,
    images: counted.images,
    described: counted.resumed,
    toCopy: counted.copied,
    failedBefore: counted.failedBefore,
    failedImages: counted.failedImages,
    badUrls: counted.badUrls,
    badRecords: counted.badRecords,
    duplicateKeys: counted.duplicateKeys,
    unreadable: counted.unreadable,
    toSubmit: Math.min(counted.newImages, options.limit ?? Infinity),
    urlColumn: manifest.columns[plan.urlColumn] ?? '',
    firstUrl: counted.firstUrl ?? '',
  };
  return { preview: pricePreview(preview, { ...DEFAULT_LIMITS, ...options.limits }), unfinished };
}

async function countRows(
  prepared: PreparedRun,
  options: RunOptions,
  unfinished: UnfinishedRows,
): Promise<ManifestCounts> {
  const { manifest, plan, found, earlier } = prepared;
  const own = found?.index ?? new OutputIndex({ keyed: plan.keyColumn !== undefined });
  const onFile = new DescribedRows(own, earlier?.index);
  onFile.startPass();
  const undo = new UndoStack();
  try {
    const failures = options.retryAll === true ? undefined : await readFailures(prepared, options, undo);
    const isFailed = ({ key, image }: { readonly key?: string; readonly image: string }) => {
      const previous = failures?.previous(own.keyed ? key : image);
      return previous?.image === image && isPermanent(previous.outcome.code);
    };
    return await previewManifest(manifest, plan, {
      isKnown: (row) => {
        if (onFile.take(row)) return 'resumed';
        if (onFile.hasImage(row.image)) return 'copied';
        return isFailed(row) ? 'failed' : 'new';
      },
      signal: options.signal,
      unfinished,
    });
  } finally {
    await undo.release();
  }
}

/** How rows failed by the files of the output and of earlier ones, as the run will know it; nothing is changed yet. */
async function readFailures(
  { paths, earlier, outputOptions }: PreparedRun,
  { collectOnly }: RunOptions,
  undo: UndoStack,
): Promise<EarlierFailures> {
  // Who only collects takes nothing of earlier files up again.
  const others = collectOnly === true ? [] : (earlier?.files ?? []);
  const files = [...others, { path: paths.output }];
  return await EarlierFailures.open(files, outputOptions, undo);
}

/** The same preview for a run that takes up what failed for good before too. */
export function previewOfRetry(preview: Preview, limit = Infinity): Preview {
  const toSubmit = Math.min(preview.toSubmit + preview.failedImages, limit);
  return { ...preview, toSubmit, failedBefore: 0, failedImages: 0 };
}

/** The same preview at the account's limits. */
export function pricePreview(preview: Omit<Preview, 'limits' | 'submitMs'>, limits: Limits): Preview {
  return { ...preview, limits, submitMs: preview.toSubmit * intervalMs(limits.rate) };
}
