import { readRows } from '../producer/row-reader.js';
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
  readonly complete: boolean;
  /** Whether it ended by itself, so that nothing but `--limit` may have left rows. */
  readonly isStopped: boolean;
  readonly limit: number | undefined;
  readonly seconds: number;
}

/**
 * Makes the receipt: counts every row anew from the files, and compares that with what the run believes. A
 * manifest that came through a pipe cannot be read again; there the output's rows alone are counted.
 */
export async function closeAccounts(prepared: PreparedRun, account: RunAccount): Promise<Receipt> {
  const { counts, complete } = account;
  const recount = prepared.manifest.replayable
    ? await recountRows(prepared, counts.rows)
    : await recountPiped(prepared, account);
  const resumed = recount.described - counts.described - counts.copied;
  return {
    run: account.run,
    manifest: prepared.manifest.path,
    output: prepared.paths.output,
    failures: prepared.paths.failures,
    rows: counts.rows,
    described: counts.described,
    resumed,
    copied: counts.copied,
    failed: recount.failed,
    remaining: recount.missing,
    extra: complete ? recount.extra : 0,
    submits: counts.submits,
    polls: counts.polls,
    reattached: counts.reattached,
    maybePaidTwice: counts.maybePaidTwice,
    seconds: Math.round(account.seconds * 1000) / 1000,
    complete,
    balanced: isBalanced(account, recount, resumed),
  };
}

/** Whether the files say what the run believes. */
export function isBalanced(account: RunAccount, recount: Recount, resumed: number): boolean {
  const { counts } = account;
  const failed = failedRows(counts);
  const mayLeave = account.isStopped || account.limit !== undefined;
  return (
    recount.rows === counts.rows &&
    resumed === counts.resumed &&
    recount.twice === 0 &&
    // Rows that failed earlier and were not taken up again are failed as well.
    (mayLeave ? recount.failed >= failed : recount.failed === failed && recount.missing === 0)
  );
}

async function recountRows(prepared: PreparedRun, rowsRead: number): Promise<Recount> {
  return recountOutput({
    ...prepared.outputOptions,
    signal: undefined,
    rows: firstRows(readRows(prepared.manifest, prepared.plan), rowsRead),
    failuresPath: prepared.paths.failures,
  });
}

async function recountPiped(prepared: PreparedRun, account: RunAccount): Promise<Recount> {
  const { counts, rowsBefore } = account;
  const found = await inspectOutput({ ...prepared.outputOptions, signal: undefined });
  const written = (found?.index.rows ?? 0) - rowsBefore;
  const described = counts.resumed + written;
  const failed = failedRows(counts);
  const missing = counts.rows - described - failed;
  return { rows: counts.rows, described, failed, missing, extra: 0, twice: found?.index.duplicates ?? 0 };
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
