import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { readRows } from '../producer/row-reader.js';
import { UsageError, messageOf } from '../shared/errors.js';
import type { ErrorCode } from '../shared/jobs.js';
import { failedRows, type RunCounts } from '../shared/run-counts.js';
import { UndoStack } from '../shared/undo.js';
import { inspectOutput } from '../writer/output-file.js';
import { runPaths } from '../writer/output-paths.js';
import { type Recount, recountOutput } from '../writer/recount.js';
import { readRunFile } from '../writer/run-file.js';
import { type RunFiles, openEarlierOutputs, openRows } from './prepare.js';
import type { RunOptions } from './run-options.js';

/** The closing account of a run; the fields of `--json`. rows = described + resumed + copied + failed + remaining */
export interface Receipt extends Readonly<Omit<RunCounts, 'failedByCode'>> {
  readonly run: string;
  readonly manifest: string;
  readonly output: string;
  readonly failures: string;
  readonly failed: number;
  /** Left for the next time. */
  readonly remaining: number;
  /** Rows of the output that the manifest does not have (any more); outside the balance. */
  readonly extra: number;
  readonly seconds: number;
  /** False when the manifest was not read to its end; `rows` counts what was read then. */
  readonly complete: boolean;
  /** Whether the counts agree with one another and with a recount of the files. */
  readonly balanced: boolean;
}

/** Why a run ended before its manifest did. */
export interface RunStop {
  readonly kind: 'interrupted' | 'cancelled' | 'token' | 'quota' | 'down' | 'failing' | 'fatal';
  /** One line for people. */
  readonly reason: string;
}

const STOP_EXIT_CODES: Readonly<Record<RunStop['kind'], number>> = {
  interrupted: 130,
  cancelled: 130,
  token: 3,
  quota: 3,
  down: 4,
  failing: 4,
  fatal: 1,
};

/** The exit code of a run that has ended, see "Exit codes" in the README. */
export function exitCodeOf(
  receipt: Pick<Receipt, 'balanced'>,
  stop: RunStop | undefined,
  failedByCode: ReadonlyMap<ErrorCode, number>,
  accepted: ReadonlySet<ErrorCode>,
): number {
  if (stop?.kind === 'fatal') return 1;
  if (!receipt.balanced) return 1;
  if (stop !== undefined) return STOP_EXIT_CODES[stop.kind];
  for (const [code, count] of failedByCode) {
    if (count > 0 && !accepted.has(code)) return 2;
  }
  return 0;
}

/** What a run says of itself at its end. */
interface RunAccount {
  readonly run: string;
  readonly counts: RunCounts;
  /** Rows that the output held when the run started. */
  readonly rowsBefore: number;
  /** Of the rows resumed, those that earlier outputs hold. */
  readonly resumedEarlier: number;
  readonly complete: boolean;
  /** Whether it ended before its time, so that rows may be left. */
  readonly isStopped: boolean;
  /** Whether it leaves rows by what it was asked for: `--limit`, or failed rows alone. */
  readonly mayLeave: boolean;
  readonly seconds: number;
}

/**
 * Makes the receipt: counts every row anew from the files, and compares that with what the run believes. A
 * manifest that came through a pipe cannot be read again; there the output's rows alone are counted. Files that cannot
 * be read any more are a difference too, and the receipt says then what the run believes.
 * @returns the receipt, and where the files say something else than the run; nothing when it is balanced
 */
export async function closeAccounts(
  files: RunFiles,
  account: RunAccount,
): Promise<{ readonly receipt: Receipt; readonly differences: readonly string[] }> {
  try {
    const recount = files.manifest.replayable
      ? await recountRows(files, account.counts.rows)
      : await recountPiped(files, account);
    const differences = findDifferences(account, recount);
    return { receipt: receiptOf(files, account, recount, differences.length === 0), differences };
  } catch (error) {
    const differences = [`the files cannot be counted: ${messageOf(error)}`];
    return { receipt: receiptOf(files, account, believedBy(account), false), differences };
  }
}

type Remainder = Pick<Recount, 'failed' | 'missing' | 'extra' | 'twice'>;

function receiptOf(files: RunFiles, account: RunAccount, recount: Remainder, balanced: boolean): Receipt {
  const { counts, complete } = account;
  return {
    run: account.run,
    manifest: files.manifest.path,
    output: files.paths.output,
    failures: files.paths.failures,
    rows: counts.rows,
    described: counts.described,
    resumed: counts.resumed,
    copied: counts.copied,
    failed: recount.failed,
    remaining: recount.missing,
    extra: complete ? recount.extra + recount.twice : 0,
    submits: counts.submits,
    polls: counts.polls,
    reattached: counts.reattached,
    maybePaidTwice: counts.maybePaidTwice,
    rescued: counts.rescued,
    seconds: Math.round(account.seconds * 1000) / 1000,
    complete,
    balanced,
  };
}

function believedBy({ counts }: RunAccount): Remainder {
  const failed = failedRows(counts);
  const missing = counts.rows - counts.described - counts.resumed - counts.copied - failed;
  return { failed, missing, extra: 0, twice: 0 };
}

/**
 * Where the files say something else than the run believes, each with both numbers. Rows that the output held twice
 * before are no fault of this run's: without keys they are what is left when a row leaves the manifest.
 */
function findDifferences(account: RunAccount, recount: Recount): string[] {
  const { counts, rowsBefore } = account;
  const { rows, described, resumed, copied } = counts;
  const failed = failedRows(counts);
  const wanted = described + resumed + copied;
  const inOutput = recount.described - (recount.earlier ?? 0) + recount.extra + recount.twice;
  const expected = rowsBefore + described + copied;
  const mayLeave = account.isStopped || account.mayLeave;
  const differences: string[] = [];
  if (recount.rows !== rows) differences.push(`${rows} rows were read, the manifest has ${recount.rows} now`);
  if (inOutput !== expected) {
    differences.push(
      `the output has ${inOutput} rows, not ${expected} (${rowsBefore} before, ${described + copied} written)`,
    );
  }
  if (recount.described !== wanted) {
    const where = recount.earlier === undefined ? 'the output' : 'the output and earlier ones';
    differences.push(`${recount.described} rows of the manifest are in ${where}, not ${wanted}`);
  }
  // Rows that failed earlier and were not taken up again are failed as well.
  if (mayLeave ? recount.failed < failed : recount.failed !== failed) {
    differences.push(`${recount.failed} rows are failed by the failures file, not ${failed}`);
  }
  if (!mayLeave && recount.missing > 0) {
    differences.push(`${recount.missing} rows are neither described nor failed`);
  }
  return differences;
}

async function recountRows(files: RunFiles, rowsRead: number): Promise<Recount> {
  return recountOutput({
    ...files.outputOptions,
    signal: undefined,
    rows: firstRows(readRows(files.manifest, files.plan), rowsRead),
    failuresPath: files.paths.failures,
    earlier: files.earlier?.index,
  });
}

async function recountPiped(files: RunFiles, account: RunAccount): Promise<Recount> {
  const { counts, rowsBefore, resumedEarlier } = account;
  const found = await inspectOutput({ ...files.outputOptions, signal: undefined });
  const written = (found?.index.rows ?? 0) - rowsBefore;
  const described = counts.resumed + written;
  const failed = failedRows(counts);
  const missing = counts.rows - described - failed;
  const extra = rowsBefore - (counts.resumed - resumedEarlier);
  return { rows: counts.rows, described, failed, missing, extra, twice: 0, earlier: resumedEarlier };
}

/** The manifest may have more rows than this run has read. */
async function* firstRows<Row>(
  batches: AsyncIterable<readonly Row[]>,
  count: number,
): AsyncIterable<readonly Row[]> {
  let left = count;
  if (left === 0) return;
  for await (const rows of batches) {
    yield rows.slice(0, left);
    left -= rows.length;
    if (left <= 0) return;
  }
}

export type VerifyOptions = Pick<
  RunOptions,
  'manifest' | 'input' | 'format' | 'delimiter' | 'urlColumn' | 'keyColumn' | 'baseUrl' | 'earlierOutputs'
> & { readonly output: string };

/**
 * Counts from the files alone what has become of each manifest row. What identifies rows is taken from the
 * run file beside the output where it is not given, and the earlier outputs that count with it always. Reads only.
 * @throws {UsageError} when there is no output, or it is not this manifest's
 */
export async function verifyOutput(options: VerifyOptions): Promise<Recount> {
  const undo = new UndoStack();
  try {
    const paths = runPaths(resolve(options.output));
    if (!existsSync(paths.output)) {
      throw new UsageError(`there is no output ${options.output}: name the file that \`run\` has written`);
    }
    const runFile = await readRunFile(paths.runFile);
    const { manifest, plan, outputOptions } = await openRows(
      {
        ...options,
        urlColumn: options.urlColumn ?? runFile?.urlColumn,
        keyColumn: options.keyColumn ?? runFile?.keyColumn,
        baseUrl: options.baseUrl ?? runFile?.baseUrl,
      },
      paths,
      undo,
    );
    const earlier = await openEarlierOutputs(options.earlierOutputs, runFile, outputOptions);
    return await recountOutput({
      ...outputOptions,
      rows: readRows(manifest, plan),
      failuresPath: paths.failures,
      earlier: earlier?.index,
    });
  } finally {
    await undo.release();
  }
}
