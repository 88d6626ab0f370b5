import { UsageError } from '../shared/errors.js';
import type { PreparedRun } from './prepare.js';
import type { Preview, RunOptions } from './run-options.js';

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
      ownRows: prepared.found?.index.rows ?? 0,
      earlierRows: prepared.earlier?.index.rows ?? 0,
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
