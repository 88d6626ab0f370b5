import { readRows } from '../producer/row-reader.js';
import { messageOf } from '../shared/errors.js';
import { failedRows, type RunCounts } from '../shared/run-counts.js';
import { inspectOutput } from '../writer/output-file.js';
import { type Recount, recountOutput } from '../writer/recount.js';
import type { PreparedRun } from './prepare.js';
import type { Receipt } from './receipt.js';

/** What a run says of itself at its end. */
export interface RunAccount {
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

/** A receipt, and where the files say something else than the run; nothing when it is balanced. */
export interface ClosedAccounts {
  readonly receipt: Receipt;
  readonly differences: readonly string[];
}

/**
 * Makes the receipt: counts every row anew from the files, and compares that with what the run believes. A
 * manifest that came through a pipe cannot be read again; there the output's rows alone are counted. Files that cannot
 * be read any more are a difference too, and the receipt says then what the run believes.
 */
export async function closeAccounts(prepared: PreparedRun, account: RunAccount): Promise<ClosedAccounts> {
  try {
    const recount = prepared.manifest.replayable
      ? await recountRows(prepared, account.counts.rows)
      : await recountPiped(prepared, account);
    const differences = findDifferences(account, recount);
    return { receipt: receiptOf(prepared, account, recount, differences.length === 0), differences };
  } catch (error) {
    const differences = [`the files cannot be counted: ${messageOf(error)}`];
    return { receipt: receiptOf(prepared, account, believedBy(account), false), differences };
  }
}

function receiptOf(
  prepared: PreparedRun,
  account: RunAccount,
  recount: Pick<Recount, 'failed' | 'missing' | 'extra' | 'twice'>,
  balanced: boolean,
): Receipt {
  const { counts, complete } = account;
  return {
    run: account.run,
    manifest: prepared.manifest.path,
    output: prepared.paths.output,
    failures: prepared.paths.failures,
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

function believedBy({ counts }: RunAccount): Pick<Recount, 'failed' | 'missing' | 'extra' | 'twice'> {
  const failed = failedRows(counts);
  const missing = counts.rows - counts.described - counts.resumed - counts.copied - failed;
  return { failed, missing, extra: 0, twice: 0 };
}

/**
 * Where the files say something else than the run believes, each with both numbers. Rows that the output held twice
 * before are no fault of this run's: without keys they are what is left when a row leaves the manifest.
 */
export function findDifferences(account: RunAccount, recount: Recount): string[] {
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

async function recountRows(prepared: PreparedRun, rowsRead: number): Promise<Recount> {
  return recountOutput({
    ...prepared.outputOptions,
    signal: undefined,
    rows: firstRows(readRows(prepared.manifest, prepared.plan), rowsRead),
    failuresPath: prepared.paths.failures,
    earlier: prepared.earlier?.index,
  });
}

async function recountPiped(prepared: PreparedRun, account: RunAccount): Promise<Recount> {
  const { counts, rowsBefore, resumedEarlier } = account;
  const found = await inspectOutput({ ...prepared.outputOptions, signal: undefined });
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
