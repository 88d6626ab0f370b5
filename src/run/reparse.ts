import { existsSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import type { AnswerShape } from '../describe-api/answer-shape.js';
import { FOUR_PROMPTS, readKeptAnswer } from '../describe-api/dialects/openai.js';
import { isKeptCut } from '../describe-api/errors.js';
import { UsageError } from '../shared/errors.js';
import { PROMPT_COLUMNS } from '../shared/jobs.js';
import { UndoStack } from '../shared/undo.js';
import { type FailureRecord, FailuresFile, forEachFailure, isFailedStill } from '../writer/failures.js';
import { OutputFile } from '../writer/output-file.js';
import { OutputIndex } from '../writer/output-index.js';
import { type RunPaths, lockOutput, realName, rowsPath, runPaths } from '../writer/output-paths.js';
import type { OutputOptions } from '../writer/output-table.js';
import { type RunFile, readRunFile, writeRunFile } from '../writer/run-file.js';
import { packOutput, unpackOutput } from '../writer/parquet-output.js';
import { type ApiOptions, answerShapeOf } from './api-options.js';
import { withKept } from './prepare.js';
import { rememberedFailures } from './read-output.js';

interface Reparsed {
  /** Rows that were written to the output. */
  readonly described: number;
  /** Kept answers that still do not fit. */
  readonly left: number;
  /** Columns that the output has now, and that are empty in so many earlier rows. */
  readonly added: readonly string[];
  readonly rowsBefore: number;
}

/**
 * Reads the answers that the failures file has kept once more, and pays for nothing: those that fit what is asked for now
 * go to the output, and are no failures any more. The output gets the columns of new fields, and loses none.
 * @throws {UsageError} when there are no such files, or the output has fields that are not asked for now
 * @throws {BusyError} when a run has the output
 */
export async function reparseOutput(
  options: Pick<ApiOptions, 'count' | 'fields' | 'schema'> &
    Pick<OutputOptions, 'listSeparator'> & { readonly output: string },
): Promise<Reparsed> {
  const shape = answerShapeOf(options) ?? FOUR_PROMPTS;
  const paths = runPaths(realName(options.output));
  const undo = new UndoStack();
  try {
    await lockOutput(paths, undo);
    const runFile = await readRunFile(paths.runFile);
    if (runFile === undefined || !existsSync(rowsPath(paths.output)))
      throw new UsageError(`${options.output} is no output with its .run file beside it: name one`);
    const before: readonly string[] = runFile.answerColumns ?? PROMPT_COLUMNS;
    const added = shape.columns.filter((name) => !before.includes(name));
    if (runFile.open && !isDeepStrictEqual(before, shape.columns))
      throw new UsageError(
        `images of ${paths.output} are in flight with the fields ${before.join(', ')}: let the same command end the run first`,
      );
    const outputOptions = await outputOptionsOf(paths, runFile, shape, options.listSeparator);
    undo.defer(await unpackOutput(outputOptions, paths.output));
    const output = await OutputFile.open(outputOptions);
    undo.defer(() => output.close());
    const { index } = outputOptions;
    const { rows: rowsBefore } = index;
    await writeRunFile(paths.runFile, { ...runFile, answerColumns: [...shape.columns] });
    const failures = await FailuresFile.open({ ...outputOptions, path: paths.failures });
    undo.defer(() => failures.close());
    const written = new Set<string>();
    let [described, left, onFile] = [0, 0, 0];
    await forEachFailure({ ...outputOptions, path: paths.failures }, async (found) => {
      const kept = found.filter(({ outcome }) => outcome.answer !== undefined);
      // The others are described already: a reparse before this one was killed.
      const undescribed = kept.filter(({ row }) => !index.take(row));
      const rows = undescribed.flatMap((failure) => readAgain(failure, shape));
      await output.append(rows);
      for (const { row } of rows) written.add(nameOf(row));
      described += rows.length;
      left += undescribed.length - rows.length;
      onFile += kept.length - undescribed.length;
    });
    if (described + onFile > 0) {
      // The index does not know a row without a key whose image cannot be told any more.
      const isWritten = ({ row, outcome }: FailureRecord) =>
        outcome.answer !== undefined && written.has(nameOf(row));
      await failures.replace((failure) => isFailedStill(failure, false, index) && !isWritten(failure));
    }
    if (described + onFile + added.length > 0) await packOutput(outputOptions, paths.output);
    return { described, left, added, rowsBefore };
  } finally {
    await undo.release();
  }
}

/** The row with its kept answer; none where that still does not fit. */
function readAgain({ row, outcome }: FailureRecord, shape: AnswerShape) {
  const { answer = '', messageId = '' } = outcome;
  const prompts = readKeptAnswer(answer, isKeptCut(outcome), shape);
  const describedAt = new Date().toISOString();
  return prompts === undefined
    ? []
    : [{ row, outcome: { status: 'described', prompts, messageId, describedAt } as const }];
}

function nameOf({ cells }: FailureRecord['row']): string {
  return JSON.stringify(cells);
}

/** As a run of it has them, by its run file and the failures file alone. */
async function outputOptionsOf(
  paths: RunPaths,
  runFile: RunFile,
  shape: AnswerShape,
  listSeparator: string | undefined,
): Promise<OutputOptions> {
  const remembered = await rememberedFailures(paths, runFile);
  const outputOptions: OutputOptions = {
    ...remembered,
    path: paths.working,
    answerColumns: shape.columns,
    answerColumnsBefore: remembered.answerColumns,
    newColumns: true,
    listSeparator,
    index: new OutputIndex({ keyed: remembered.keyColumn !== undefined }),
  };
  return withKept(outputOptions, {}, runFile);
}
