import { existsSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { columnAt } from '../producer/columns.js';
import { parseBaseUrl } from '../producer/image-url.js';
import { parsePromptTemplate } from '../producer/prompt-template.js';
import type { RowPlan } from '../producer/row-reader.js';
import { UsageError, shownPath } from '../shared/errors.js';
import { MESSAGE_COLUMNS, PROMPT_COLUMNS } from '../shared/jobs.js';
import { openPlainFile } from '../writer/durable-file.js';
import {
  type FailureOptions,
  type FailureRecord,
  failureColumnsIn,
  forEachFailure,
} from '../writer/failures.js';
import { PROMPTS } from '../writer/jsonl-table.js';
import { type RunPaths, realName, rowsPath, runPaths } from '../writer/output-paths.js';
import { layoutOf, newOutputTable, outputAt } from '../writer/output-table.js';
import { type RunFile, readRunFile } from '../writer/run-file.js';
import type { Table } from '../writer/table.js';

/** An output that is open for reading; a run may be writing to it. */
export interface ReadOutput {
  readonly paths: RunPaths;
  /** The file that has its rows. */
  readonly path: string;
  readonly handle: FileHandle;
  readonly table: Table;
  readonly isEmpty: boolean;
  readonly runFile: RunFile | undefined;
  readonly answerColumns: readonly string[];
}

/**
 * Opens an output to read its rows, and waits for nobody.
 * @throws {UsageError} when there is none, or it is none of this program's
 */
export async function openToRead(given: string): Promise<ReadOutput> {
  const paths = runPaths(realName(given));
  const path = rowsPath(paths.output);
  const handle = await openPlainFile(path, 'r', 'the output');
  if (handle === undefined)
    throw new UsageError(`there is no output ${shownPath(given)}: name the file that \`run\` has written`);
  try {
    const runFile = await readRunFile(paths.runFile);
    const { delimiter = ',', escapeFormulas, promptsAs, answerColumns = PROMPT_COLUMNS } = runFile ?? {};
    const lines = promptsAs === 'rows' ? answerColumns : [];
    // Where the prompts are no list, one that is called so is the manifest's.
    const isList = promptsAs !== 'rows' && answerColumns.includes(PROMPT_COLUMNS[0]);
    const begun = newOutputTable({
      ...{ path, columns: isList ? [] : [PROMPTS], answerColumns: lines },
      ...{ delimiter, escapeFormulas, promptsAs },
    });
    const isOurs = (columns: readonly string[]) => MESSAGE_COLUMNS.every((name) => columns.includes(name));
    const found = await begun.open(handle, isOurs);
    // The first row of JSON Lines says what its columns are, and a kill may have left some of it.
    const isBegun = found === undefined || (found.columns.length === 0 && runFile !== undefined);
    const table = isBegun ? begun : found;
    const isEmpty = isBegun || table.isEmpty((await handle.stat()).size);
    if (!isEmpty && !isOurs(table.columns))
      throw new UsageError(
        `${outputAt(path)} is no output of bulk-describe: it has no columns ${MESSAGE_COLUMNS.join(' and ')}`,
      );
    return { paths, path, handle, table, isEmpty, runFile, answerColumns };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** How the rows of an output are read, by its run file. */
function rememberedPlan(
  { urlColumn, keyColumn, baseUrl, imageRoot, folder: areNames, prompt }: RunFile,
  columns: readonly string[],
): RowPlan {
  return {
    urlColumn: columnAt('--url-column', columns, urlColumn),
    keyColumn: keyColumn === undefined ? undefined : columnAt('--key-column', columns, keyColumn),
    areNames,
    baseUrl: baseUrl === undefined ? undefined : parseBaseUrl(baseUrl),
    imageRoot: imageRoot === undefined ? undefined : { path: imageRoot, real: imageRoot },
    prompt: prompt === undefined ? undefined : parsePromptTemplate(prompt, columns),
  };
}

/** Where the images of an output are, by its run file. @throws {UsageError} when there is none */
export function planOf({ path, paths, runFile, table }: ReadOutput, columns = table.columns): RowPlan {
  if (runFile === undefined)
    throw new UsageError(
      `${paths.runFile} is missing, which says where the images of ${path} are: put it beside it again`,
    );
  return rememberedPlan(runFile, columns);
}

/** How the failures of an output are read, by its run file and the failures file alone. @throws {UsageError} when there is none */
export async function rememberedFailures(
  paths: RunPaths,
  runFile: RunFile,
  path = paths.failures,
): Promise<FailureOptions> {
  const { columns, delimiter } = await failureColumnsIn(path, runFile.delimiter);
  return {
    ...{ path: paths.failures, columns, delimiter, ...layoutOf(runFile) },
    ...rememberedPlan(runFile, columns),
    answerColumns: runFile.answerColumns ?? PROMPT_COLUMNS,
  };
}

/** What is failed by the files of an output now. */
export interface ReadFailures {
  /** Of the manifest. */
  readonly columns: readonly string[];
  /** The newest ones. */
  readonly failures: readonly FailureRecord[];
  readonly byCode: Readonly<Record<string, number>>;
}

/**
 * Reads the failures of an output, also while a run writes them.
 * @param most so many are kept, the newest
 * @throws {UsageError} when the file is none of ours, or damaged
 */
export async function readFailuresOf(
  { paths, runFile }: Pick<ReadOutput, 'paths' | 'runFile'>,
  most: number,
  signal?: AbortSignal,
): Promise<ReadFailures> {
  const path = [paths.failures, paths.failuresPartial].find((file) => existsSync(file));
  if (path === undefined || runFile === undefined) return { columns: [], failures: [], byCode: {} };
  const options = { ...(await rememberedFailures(paths, runFile, path)), signal };
  const failures: FailureRecord[] = [];
  const byCode: Record<string, number> = {};
  await forEachFailure(options, (found) => {
    for (const { outcome } of found) byCode[outcome.code] = (byCode[outcome.code] ?? 0) + 1;
    failures.push(...found);
    if (failures.length > 2 * most) failures.splice(0, failures.length - most);
  });
  return { columns: options.columns, failures: failures.slice(-most), byCode };
}
