import { nameOfColumn } from '../producer/columns.js';
import { countManifest } from '../producer/count-manifest.js';
import { DEFAULT_LIMITS, type Limits, intervalMs } from '../shared/limits.js';
import { UsageError } from '../shared/errors.js';
import { isPermanent } from '../shared/jobs.js';
import { NOTHING_SPENT } from '../shared/run-spending.js';
import { readFailures } from '../writer/failures.js';
import type { PreparedRun } from './prepare.js';
import type { Preview, RunOptions } from './run-options.js';
import { estimatedCost } from './spending.js';

/** Counts what there is to do; priced at the limits that are known without asking the queue. */
export async function previewRun(prepared: PreparedRun, options: RunOptions): Promise<Preview> {
  const { manifest, plan, paths, outputOptions, earlier } = prepared;
  const onFile = outputOptions.index;
  onFile.startPass();
  // Who only collects takes nothing of earlier files up again.
  const others = options.collectOnly === true ? [] : (earlier?.files ?? []);
  const files = [...others, { path: paths.output }];
  const failures = options.retryAll === true ? undefined : await readFailures(files, outputOptions);
  const { resumed, copied, newImages, ...counted } = await countManifest(manifest, plan, {
    isKnown: (row) => {
      if (!onFile.markSeen(row)) return 'repeated';
      if (onFile.take(row)) return 'resumed';
      if (onFile.hasImage(row.image)) return 'copied';
      const previous = failures?.get((onFile.keyed ? row.key : row.image) ?? '');
      return previous?.image === row.image && isPermanent(previous.outcome.code) ? 'failed' : 'new';
    },
    meetDescribed: (image) => onFile.meetImage(image),
    signal: options.signal,
  });
  const preview = {
    firstUrl: '',
    unreadable: undefined,
    ...counted,
    manifest: manifest.path,
    output: paths.output,
    described: resumed,
    toCopy: copied,
    toSubmit: Math.min(newImages, options.limit ?? Infinity),
    unnamedColumns: manifest.unnamedColumns,
    urlColumn: nameOfColumn(manifest.columns, { index: plan.urlColumn, path: plan.urlPath ?? [] }),
  };
  return pricePreview(preview, { ...DEFAULT_LIMITS, ...options.limits }, options, prepared.runFile?.spent);
}

/** The same preview for a run that takes up what failed for good before too. */
export function previewOfRetry(preview: Preview, limit = Infinity): Preview {
  const toSubmit = Math.min(preview.toSubmit + preview.failedImages, limit);
  return { ...preview, toSubmit, failedBefore: 0, failedImages: 0 };
}

/**
 * The same preview at the account's limits.
 * @param spent what earlier starts of the run have spent: images are taken to cost what those did
 */
export function pricePreview(
  preview: Omit<Preview, 'limits' | 'submitMs'>,
  limits: Limits,
  { prices, maxCalls = Infinity }: Pick<RunOptions, 'prices' | 'maxCalls'>,
  spent = NOTHING_SPENT,
): Preview {
  const toSubmit = Math.min(preview.toSubmit, Math.max(0, maxCalls - spent.submits));
  const cost = estimatedCost(toSubmit, spent, prices);
  return { ...preview, toSubmit, limits, submitMs: toSubmit * intervalMs(limits.rate), cost };
}

/**
 * Files that hardly match the manifest would be paid for once more, nearly whole.
 * @throws {UsageError} unless `--pay-again` covers what it would cost
 */
export function refusePayingAgain(prepared: PreparedRun, preview: Preview, options: RunOptions): void {
  // Neither pays for a row that the files do not know.
  if (options.collectOnly === true || options.onlyFailed === true) return;
  if (preview.sampled || (options.payAgain !== undefined && options.payAgain >= preview.toSubmit)) return;
  const trouble = mismatchOf(
    {
      ownRows: prepared.outputOptions.index.rows,
      earlierRows: prepared.outputOptions.index.earlierRows,
      isScheduled: options.schedule !== undefined,
    },
    preview,
  );
  if (trouble === undefined) return;
  throw new UsageError(
    `${trouble} match this manifest (signed URLs? a new host?): ` +
      `name a column that identifies rows with --key-column <name>, or pay for ${preview.toSubmit} images with --pay-again ${preview.toSubmit}`,
  );
}

/**
 * Says which rows hardly match; undefined when enough do. A manifest that shrinks from night to night is no reason: what
 * is left of it matches. Nor need it have much in common with all the nights before, but it has something.
 */
export function mismatchOf(
  held: { readonly ownRows: number; readonly earlierRows: number; readonly isScheduled: boolean },
  preview: Pick<Preview, 'output' | 'rows' | 'described' | 'toSubmit'>,
): string | undefined {
  const { ownRows, earlierRows, isScheduled } = held;
  const { described, toSubmit, rows, output } = preview;
  if (toSubmit === 0) return undefined;
  if (earlierRows > 0) {
    return described > 0
      ? undefined
      : `none of the ${ownRows + earlierRows} rows in ${output} and the earlier files`;
  }
  const comparable = isScheduled ? Math.min(ownRows, rows) : ownRows;
  if (ownRows === 0 || described * 2 >= comparable) return undefined;
  return `only ${described} of the ${ownRows} rows in ${output}`;
}
