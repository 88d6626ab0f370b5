import { basename, dirname, resolve } from 'node:path';
import type { UndoStack } from '../shared/undo.js';
import { DescribedRows } from '../writer/output-index.js';
import { EarlierFailures } from '../writer/failures.js';
import { EarlierOutputs } from '../writer/earlier-outputs.js';
import type { OutputOptions } from '../writer/csv-output.js';
import type { RunFile } from '../writer/run-file.js';
import type { PreparedRun } from './prepare.js';
import type { RunOptions } from './run-options.js';

/**
 * Reads the earlier files that count with an output: those that are given, and those that the run file remembers, since
 * rows were left to them already.
 * @returns undefined when there are none
 * @throws {UsageError} see `EarlierOutputs.read`
 */
export async function openEarlierOutputs(
  given: readonly string[] | undefined,
  runFile: Pick<RunFile, 'earlierOutputs'> | undefined,
  options: OutputOptions,
): Promise<EarlierOutputs | undefined> {
  const folder = dirname(options.path);
  const remembered = (runFile?.earlierOutputs ?? []).map((path) => resolve(folder, path));
  const paths = new Set([...(given ?? []).map((path) => resolve(path)), ...remembered]);
  return paths.size === 0 ? undefined : await EarlierOutputs.read([...paths], options.path, options);
}

/** The earlier files as the run file remembers them: those beside the output by name, so that they can move together. */
export function rememberEarlier(earlier: EarlierOutputs | undefined, output: string): string[] | undefined {
  return earlier?.files.map(({ path }) => (dirname(path) === dirname(output) ? basename(path) : path));
}

/**
 * Opens the failures of the earlier files. Who only collects takes nothing up again, so they are none of its business.
 * @throws {UsageError} see `EarlierFailures.open`
 */
export async function openEarlierFailures(
  { earlier, outputOptions }: Pick<PreparedRun, 'earlier' | 'outputOptions'>,
  { collectOnly }: Pick<RunOptions, 'collectOnly'>,
  undo: UndoStack,
): Promise<EarlierFailures | undefined> {
  if (earlier === undefined || collectOnly === true) return undefined;
  const onFile = new DescribedRows(earlier.index, undefined);
  return await EarlierFailures.open(earlier.files, outputOptions, undo, (row) => onFile.has(row));
}
