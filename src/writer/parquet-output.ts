import type { FileHandle } from 'node:fs/promises';
import { FatalError, UsageError } from '../shared/errors.js';
import { type JsonCell, readJsonObject } from '../shared/json-cells.js';
import { readLines } from '../shared/lines.js';
import { openPlainFile, removeFile, replaceFile, statIfThere } from './durable-file.js';
import {
  type OutputOptions,
  type TableOptions,
  newOutputTable,
  openOutputTable,
  outputAt,
} from './output-table.js';
import { workingPath } from './output-paths.js';
import {
  type ColumnType,
  PACKED_BY,
  type PackedColumn,
  type ParquetValue,
  schemaOf,
  toValue,
  typesOf,
} from './parquet-table.js';
import { MAX_ROW_BYTES, readPieces } from './table.js';

/** A row group is written once it has so many rows, or rows of so many characters. */
const GROUP_ROWS = 10_000;
const GROUP_CHARS = 1 << 25;

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
  const handle = await openPlainFile(output, 'r', 'the output');
  if (handle === undefined) return () => Promise.resolve();
  try {
    const table = await openOutputTable(handle, { ...options, path: output });
    if (table === undefined || (found !== undefined && table.isEmpty(0))) return () => Promise.resolve();
    // It is begun with all rows of the output: another program has written this one.
    if (found !== undefined)
      throw new UsageError(
        `the working file ${working} holds no row, and ${output} does: remove ${working} to go on with what is in the output`,
      );
    const about = { what: outputAt(output), signal: options.signal };
    await replaceFile(working, async (temp) => {
      await table.forEach(handle, table.columns, about, (rows) => temp.writeFile(table.format(rows)));
    });
  } finally {
    await handle.close();
  }
  const unpacked = await statIfThere(working);
  return async () => {
    const now = await statIfThere(working);
    const fields = ['ino', 'size', 'mtimeMs'] as const;
    if (now !== undefined && fields.every((field) => now[field] === unpacked?.[field])) {
      await removeFile(working);
    }
  };
}

async function holdsLine(path: string): Promise<boolean> {
  const handle = await openPlainFile(path, 'r', 'the output');
  if (handle === undefined) return false;
  try {
    const { size } = await handle.stat();
    for await (const piece of readPieces(handle, 0, size)) if (piece.includes('\n')) return true;
    return false;
  } finally {
    await handle.close();
  }
}

type PackOptions = TableOptions & Pick<OutputOptions, 'urlColumn' | 'keyColumn' | 'promptColumns'>;

/**
 * Writes what a run has in its working file as Parquet, in the place of the output, and removes the working file. Nothing
 * is done for other outputs.
 * @throws {FatalError} when it cannot be written: the working file stays, and the next start goes on with it
 */
export async function packOutput(options: PackOptions, output: string): Promise<void> {
  const working = workingPath(output);
  const handle = working === output ? undefined : await openPlainFile(working, 'r', 'the output');
  if (handle === undefined) return;
  try {
    const columns = await findTypes(handle, options);
    await replaceFile(output, (temp) => writeParquet(handle, columns, temp));
  } finally {
    await handle.close();
  }
  await removeFile(working);
}

/** What the columns' cells are. Those that tell rows apart are to be read back as they were, to the letter. */
async function findTypes(handle: FileHandle, options: PackOptions): Promise<PackedColumn[]> {
  const { columns, urlColumn, keyColumn = urlColumn, promptColumns = [] } = options;
  const exact = new Set([urlColumn, keyColumn, ...promptColumns].map((column) => columns[column]));
  const table = newOutputTable(options);
  const [sample = ''] = table.format([{ cells: table.columns.map(() => '') }]).split('\n', 1);
  const names = [...(readJsonObject(sample) ?? [])].map(([name]) => name);
  const left = new Map<string, readonly ColumnType[] | undefined>(names.map((name) => [name, undefined]));
  for await (const { members } of rowsOf(handle)) {
    for (const [name, cell] of members) {
      const types = typesOf(cell, exact.has(name));
      left.set(name, left.get(name)?.filter((type) => types.includes(type)) ?? types);
    }
  }
  return names.map((name) => ({ name, type: left.get(name)?.[0] ?? 'string' }));
}

async function writeParquet(
  handle: FileHandle,
  columns: readonly PackedColumn[],
  temp: FileHandle,
): Promise<void> {
  const { ByteWriter, ParquetWriter } = await import('hyparquet-writer');
  const writer = new ByteWriter();
  const flush = async () => {
    await temp.writeFile(writer.getBytes());
    writer.index = 0;
  };
  const parquet = new ParquetWriter({
    writer: Object.assign(writer, { flush }),
    schema: [{ name: 'schema', num_children: columns.length }, ...columns.flatMap(schemaOf)],
    statisticsTruncateLength: 64,
    createdBy: PACKED_BY,
    kvMetadata: [{ key: PACKED_BY, value: JSON.stringify(columns) }],
  });
  let data: ParquetValue[][] = columns.map(() => []);
  let chars = 0;
  const writeGroup = async () => {
    const columnData = columns.map(({ name }, index) => ({ name, data: data[index] ?? [] }));
    await parquet.write({ columnData, rowGroupSize: GROUP_ROWS });
    data = columns.map(() => []);
    chars = 0;
  };
  for await (const { members, length } of rowsOf(handle)) {
    for (const [index, { name, type }] of columns.entries()) {
      data[index]?.push(toValue(members.get(name) ?? { cell: '', isJson: true }, type));
    }
    chars += length;
    if (chars >= GROUP_CHARS || data[0]?.length === GROUP_ROWS) await writeGroup();
  }
  await writeGroup();
  await parquet.finish();
  await flush();
}

/** The rows of a working file, as they are in it. */
async function* rowsOf(
  handle: FileHandle,
): AsyncGenerator<{ readonly members: Map<string, JsonCell>; readonly length: number }> {
  const { size } = await handle.stat();
  const pieces = readPieces(handle, 0, size);
  for await (const lines of readLines(pieces, { name: 'the output', maxBytes: MAX_ROW_BYTES })) {
    for (const { text, line } of lines) {
      const members = readJsonObject(text);
      if (members === undefined) throw new FatalError(`the output was changed: no row in line ${line}`);
      yield { members, length: text.length };
    }
  }
}
