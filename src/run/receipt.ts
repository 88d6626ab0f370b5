import { existsSync } from 'node:fs';
import { isFolder } from '../producer/folder-format.js';
import type { ManifestOptions } from '../producer/manifest.js';
import { readRows } from '../producer/row-reader.js';
import { UsageError, messageOf, shownPath } from '../shared/errors.js';
import { PROMPT_COLUMNS } from '../shared/jobs.js';
import { failedRows } from '../shared/run-counts.js';
import { UndoStack } from '../shared/undo.js';
import { realName, rowsPath, runPaths } from '../writer/output-paths.js';
import { inspectOutput, layoutOf } from '../writer/output-table.js';
import { type Recount, recountOutput } from '../writer/recount.js';
import { readRunFile } from '../writer/run-file.js';
import { costOf } from './budget.js';
import type { OpenRun } from './open-run.js';
import { openEarlierOutputs, findFiles, openRows, withKept } from './prepare.js';
import type { Receipt, RunOptions } from './run-options.js';

/**
 * Makes the receipt: counts every row anew from the files, and compares that with what the run believes. A
 * manifest that came through a pipe cannot be read again; there the output's rows alone are counted. Files that cannot
 * be read any more are a difference too, and the receipt says then what the run believes.
 * @returns the receipt, and where the files say something else than the run; nothing when it is balanced
 */
export async function closeAccounts(
  run: OpenRun,
): Promise<{ readonly receipt: Receipt; readonly differences: readonly string[] }> {
  const { prepared, ledger } = run;
  const complete = ledger.isRead;
  const seconds = Math.round(performance.now() - run.startedAt) / 1000;
  const { failedByCode, rows, described, resumed, copied, ...calls } = ledger.counts;
  const failed = failedRows({ failedByCode });
  const missing = rows - described - resumed - copied - failed;
  let recount: Recount = { rows, described, failed, missing, extra: 0, twice: 0 };
  let differences: string[];
  try {
    recount = prepared.manifest.replayable ? await recountRows(run) : await recountPiped(run);
    differences = findDifferences(run, recount);
  } catch (error) {
    differences = [`the files cannot be counted: ${messageOf(error)}`];
  }
  const receipt = {
    run: run.id,
    manifest: prepared.manifest.path,
    output: prepared.paths.output,
    failures: failuresThere(prepared.paths),
    rows,
    described,
    resumed,
    copied,
    failed: recount.failed,
    remaining: recount.missing,
    extra: complete ? recount.extra + recount.twice : 0,
    twice: complete ? recount.twice : 0,
    ...calls,
    seconds,
    cost: costOf(run.spending.spent, run.options.prices),
    complete,
    balanced: differences.length === 0,
  };
  return { receipt, differences };
}

/** The file that has the failed rows: the partial one, where it could not take its place at the end of the run. */
function failuresThere({ failures, failuresPartial }: OpenRun['prepared']['paths']): string {
  return [failures, failuresPartial].find((path) => existsSync(path)) ?? failures;
}

/**
 * Where the files say something else than the run believes, each with both numbers. Rows that the output held twice
 * before are no fault of this run's: without keys they are what is left when a row leaves the manifest.
 */
function findDifferences({ ledger, rowsBefore, options, control }: OpenRun, recount: Recount): string[] {
  const { rows, described, resumed, copied } = ledger.counts;
  const failed = failedRows(ledger.counts);
  const wanted = described + resumed + copied;
  const inOutput = recount.described - (recount.earlier ?? 0) + recount.extra + recount.twice;
  const expected = rowsBefore + described + copied;
  const mayLeave =
    control.reason !== undefined ||
    options.limit !== undefined ||
    options.collectOnly === true ||
    options.onlyFailed === true;
  const where = recount.earlier === undefined ? 'the output' : 'the output and earlier ones';
  const written = `${rowsBefore} before, ${described + copied} written`;
  // Rows that failed earlier and were not taken up again are failed as well.
  const isFailedOff = mayLeave ? recount.failed < failed : recount.failed !== failed;
  const checks: readonly (readonly [isOff: boolean, difference: string])[] = [
    [recount.rows !== rows, `${rows} rows were read, the manifest has ${recount.rows} now`],
    [inOutput !== expected, `the output has ${inOutput} rows, not ${expected} (${written})`],
    [
      recount.described !== wanted,
      `${recount.described} rows of the manifest are in ${where}, not ${wanted}`,
    ],
    [isFailedOff, `${recount.failed} rows are failed by the failures file, not ${failed}`],
    [!mayLeave && recount.missing > 0, `${recount.missing} rows are neither described nor failed`],
  ];
  return checks.flatMap(([isOff, difference]) => (isOff ? [difference] : []));
}

async function recountRows({ prepared, ledger }: OpenRun): Promise<Recount> {
  return recountOutput({
    ...prepared.outputOptions,
    signal: undefined,
    rows: firstRows(readRows(prepared.manifest, prepared.outputOptions), ledger.counts.rows),
    failuresPath: prepared.paths.failures,
  });
}

async function recountPiped({ prepared, ledger, rowsBefore, onFile }: OpenRun): Promise<Recount> {
  const { rows, resumed } = ledger.counts;
  await inspectOutput({ ...prepared.outputOptions, signal: undefined });
  const described = resumed + onFile.rows - rowsBefore;
  const failed = failedRows(ledger.counts);
  const earlier = onFile.fromEarlier;
  const extra = rowsBefore - (resumed - earlier);
  return { rows, described, failed, missing: rows - described - failed, extra, twice: 0, earlier };
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

export type VerifyOptions = Omit<ManifestOptions, 'path' | 'signal'> &
  Pick<RunOptions, 'manifest' | 'moreManifests' | 'union' | 'urlColumn' | 'keyColumn'> &
  Pick<RunOptions, 'baseUrl' | 'imageRoot' | 'earlierOutputs' | 'accept'> & { readonly output: string };

/** A folder is its images' own; one that is gone has moved together with the manifest. */
async function rememberedRoot(manifest: string, root = ''): Promise<string | undefined> {
  return (await isFolder(root)) && !(await isFolder(manifest)) ? root : undefined;
}

/**
 * Counts from the files alone what has become of each manifest row. What identifies rows is taken from the
 * run file beside the output where it is not given, and the earlier outputs that count with it always. Reads only.
 * @throws {UsageError} when there is no output, or it is not this manifest's
 */
export async function verifyOutput(options: VerifyOptions): Promise<Recount> {
  const undo = new UndoStack();
  try {
    const paths = runPaths(realName(options.output));
    if (!existsSync(rowsPath(paths.output))) {
      throw new UsageError(
        `there is no output ${shownPath(options.output)}: name the file that \`run\` has written`,
      );
    }
    const runFile = await readRunFile(paths.runFile);
    const { manifest, outputOptions: begun } = await openRows(
      {
        ...options,
        urlColumn: options.urlColumn ?? runFile?.urlColumn,
        keyColumn: options.keyColumn ?? runFile?.keyColumn,
        baseUrl: options.baseUrl ?? runFile?.baseUrl,
        imageRoot: options.imageRoot ?? (await rememberedRoot(options.manifest, runFile?.imageRoot)),
        ...layoutOf(runFile ?? {}),
        prompt: runFile?.prompt,
      },
      await findFiles(options, paths),
      paths,
      undo,
      runFile?.answerColumns ?? PROMPT_COLUMNS,
    );
    const path = rowsPath(paths.output);
    const outputOptions = withKept({ ...begun, path }, {}, runFile);
    await openEarlierOutputs(options.earlierOutputs, runFile, outputOptions);
    return await recountOutput({
      ...outputOptions,
      rows: readRows(manifest, outputOptions),
      accept: options.accept,
      failuresPath: paths.failures,
    });
  } finally {
    await undo.release();
  }
}
