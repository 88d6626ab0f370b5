import { type RowPlan, namingColumns } from '../producer/row-reader.js';
import { UsageError } from '../shared/errors.js';
import { isUntouched, openPlainFile, removeFile, replaceFile, statIfThere } from './durable-file.js';
import {
  type OutputOptions,
  type TableOptions,
  newOutputTable,
  openOutputTable,
  outputAt,
} from './output-table.js';
import { workingPath } from './output-paths.js';
import { writeParquet } from './parquet-table.js';
import { readPieces } from './table.js';

/**
 * Unpacks a Parquet output into its working file, which a run appends to; the output stays as it is until the run packs
 * that again. Nothing is done where the working file is there already: it is what counts then.
 * @param options with the working file's path
 * @returns removes the working file again, unless it has been changed since
 * @throws {UsageError} as `openOutputTable`
 */
export async function unpackOutput(options: OutputOptions, output: string): Promise<() => Promise<void>> {
  const working = options.path;
  if (working === output) return () => Promise.resolve();
  const found = await statIfThere(working);
  if (found !== undefined && (await holdsLine(working))) return () => Promise.resolve();
  await using handle = await openPlainFile(output, 'r', 'the output');
  if (handle === undefined) return () => Promise.resolve();
  const table = await openOutputTable(handle, { ...options, path: output });
  if (table === undefined || (found !== undefined && table.isEmpty(0))) return () => Promise.resolve();
  // It is begun with all rows of the output: another program has written this one.
  if (found !== undefined)
    throw new UsageError(
      `the working file ${working} holds no row, and ${output} does: remove ${working} to go on with what is in the output`,
    );
  await replaceFile(working, async (temp) => {
    await table.forEach(handle, {
      ...{ columns: table.columns, what: outputAt(output), signal: options.signal },
      visit: (rows) => temp.writeFile(table.format(rows)),
    });
  });
  const unpacked = await statIfThere(working);
  return async () => {
    const now = await statIfThere(working);
    if (unpacked && now && isUntouched(unpacked, now)) await removeFile(working);
  };
}

async function holdsLine(path: string): Promise<boolean> {
  await using handle = await openPlainFile(path, 'r', 'the output');
  if (handle === undefined) return false;
  const { size } = await handle.stat();
  for await (const piece of readPieces(handle, 0, size)) if (piece.includes('\n')) return true;
  return false;
}

/**
 * Writes what a run has in its working file as Parquet, in the place of the output, and removes the working file. Nothing
 * is done for other outputs.
 * @throws {FatalError} when it cannot be written: the working file stays, and the next start goes on with it
 */
export async function packOutput(options: TableOptions & RowPlan, output: string): Promise<void> {
  const working = workingPath(output);
  await using handle = working === output ? undefined : await openPlainFile(working, 'r', 'the output');
  if (handle === undefined) return;
  // Those that tell rows apart are to be read back as they were, to the letter.
  const exact = new Set(namingColumns(options).map((column) => options.columns[column] ?? ''));
  const table = newOutputTable(options);
  const sample = table.format([{ cells: table.columns.map(() => '') }]);
  await replaceFile(output, (temp) => writeParquet(handle, sample, exact, temp));
  await removeFile(working);
}
