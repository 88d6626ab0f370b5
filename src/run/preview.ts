import { stat } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { type Dialect, dialectFor } from '../describe-api/dialects/index.js';
import { nameOfColumn } from '../producer/columns.js';
import type { Manifest } from '../producer/manifest.js';
import { DEFAULT_LIMITS, type Limits, intervalMs } from '../shared/limits.js';
import { UsageError } from '../shared/errors.js';
import { NOTHING_SPENT, type Spent } from '../shared/run-spending.js';
import type { OutputIndex } from '../writer/output-index.js';
import { estimatedCost } from './budget.js';
import { countRows } from './count-rows.js';
import type { PreparedRun } from './prepare.js';
import type { Preview, RunOptions } from './run-options.js';

/** How long an answer is taken to take as long as the account's have not been seen: a describe has 10 to 60 seconds. */
const ASSUMED_ANSWER_MS = { simulator: 1000, others: 30_000 };
/** Of an image whose completion no webhook reports, see docs/performance.md. */
const POLLS_AN_IMAGE = 3;

/** Counts what there is to do; priced at the limits that are known without asking the queue. */
export async function previewRun(prepared: PreparedRun, options: RunOptions): Promise<Preview> {
  const { manifest, paths } = prepared;
  const before = await statesOf(manifest);
  const { newImages, ...counted } = await countRows(prepared, options);
  const preview = {
    ...counted,
    manifest: manifest.path,
    output: paths.output,
    hasChanged: !isDeepStrictEqual(before, await statesOf(manifest)),
    toSubmit: Math.min(newImages, options.limit ?? Infinity),
    unnamedColumns: manifest.unnamedColumns,
    urlColumn: nameOfColumn(manifest.columns, prepared.outputOptions.urlColumn),
  };
  return pricePreview(preview, { ...DEFAULT_LIMITS, ...options.limits }, options, prepared.runFile?.spent);
}

/** What tells a manifest from one that has been changed since. */
function statesOf({ files }: Manifest) {
  return Promise.all(
    files.map(async (file) => {
      const found = await stat(file).catch(() => undefined);
      return [found?.ino, found?.size, found?.mtimeMs];
    }),
  );
}

/** The same preview for a run that takes up what failed for good before too. */
export function previewOfRetry(preview: Preview, limit = Infinity): Preview {
  const toSubmit = Math.min(preview.toSubmit + preview.failedImages, limit);
  return { ...preview, toSubmit, failedBefore: 0, failedImages: 0 };
}

/**
 * The same preview at the account's limits.
 * @param spent what earlier starts of the run have spent: images are taken to cost what those did
 * @param measuredMs how long the account's answers have taken
 */
export function pricePreview(
  preview: Pick<Preview, 'toSubmit'> & Omit<Preview, 'limits' | keyof ReturnType<typeof estimate>>,
  limits: Limits,
  options: RunOptions,
  spent = NOTHING_SPENT,
  measuredMs?: number,
): Preview {
  const { maxCalls = Infinity } = options;
  const toSubmit = Math.min(preview.toSubmit, Math.max(0, maxCalls - spent.submits));
  return { ...preview, limits, ...estimate({ ...preview, toSubmit }, limits, options, spent, measuredMs) };
}

function estimate(
  { toSubmit, signed }: Pick<Preview, 'toSubmit' | 'signed'>,
  limits: Limits,
  options: RunOptions,
  spent: Spent,
  measuredMs: number | undefined,
) {
  const nowMs = Date.now();
  const { prices, finishBy, webhooks } = options;
  const { messageUrl }: Dialect = dialectFor(options);
  const answerMs = measuredMs ?? ASSUMED_ANSWER_MS[options.api === 'simulator' ? 'simulator' : 'others'];
  const everyMs = Math.max(intervalMs(limits.rate), answerMs / limits.maxInFlight);
  const expiring = signed.filter(
    ({ turn, expiresAt }) => turn <= toSubmit && expiresAt < nowMs + turn * everyMs,
  );
  // By now it has its date.
  const finishAt = finishBy === undefined ? undefined : Date.parse(finishBy);
  return {
    toSubmit,
    submitMs: toSubmit * everyMs,
    polls: messageUrl === undefined ? 0 : toSubmit * (webhooks === undefined ? POLLS_AN_IMAGE : 1),
    cost: estimatedCost(toSubmit, spent, prices),
    answers: {
      ms: answerMs,
      isMeasured: measuredMs !== undefined,
      isSlower: everyMs > intervalMs(limits.rate),
    },
    expiring: { images: expiring.length, first: expiring[0] },
    finishBy:
      finishAt === undefined
        ? undefined
        : {
            atMs: finishAt,
            images: Math.min(toSubmit, Math.max(0, Math.floor((finishAt - nowMs) / everyMs))),
          },
  };
}

/**
 * Files that hardly match the manifest would be paid for once more, nearly whole.
 * @throws {UsageError} unless `--pay-again` covers what it would cost
 */
export function refusePayingAgain(prepared: PreparedRun, preview: Preview, options: RunOptions): void {
  // Neither pays for a row that the files do not know.
  if (options.collectOnly === true || options.onlyFailed === true) return;
  if (preview.sampled || (options.payAgain !== undefined && options.payAgain >= preview.toSubmit)) return;
  const isScheduled = options.schedule !== undefined;
  const trouble = mismatchOf(prepared.outputOptions.index, preview, isScheduled);
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
  { rows: ownRows, earlierRows }: Pick<OutputIndex, 'rows' | 'earlierRows'>,
  { described, toSubmit, rows, output }: Pick<Preview, 'output' | 'rows' | 'described' | 'toSubmit'>,
  isScheduled = false,
): string | undefined {
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
