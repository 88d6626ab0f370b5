import { isUtf8 } from 'node:buffer';
import { type FileHandle, open } from 'node:fs/promises';
import type { AsyncBuffer, FileMetaData, SchemaElement, SchemaTree } from 'hyparquet';
import { UsageError, messageOf } from '../shared/errors.js';
import {
  type JsonCell,
  NULL_CELL,
  jsonCell,
  jsonText,
  objectText,
  readJsonCell,
  toCells,
} from '../shared/json-cells.js';
import { parseJson } from '../shared/parse-json.js';
import { checkColumnNames } from './columns.js';
import type { ManifestRecord, OpenFormat, RecordBatches } from './manifest-format.js';
import { UnreadableError, cannotOpen } from './manifest-source.js';

/** Of a row group so many bytes are decoded at a time, by what it says of itself; and of them so many rows are given together. */
const RANGE_BYTES = 16 * 1024 * 1024;
const BATCH_ROWS = 1000;
const MAGIC = 'PAR1';

/** What has to be known of a file before its rows. */
export interface ParquetFile {
  readonly file: AsyncBuffer;
  /** Its elements are what is decoded, see `asStored`. */
  readonly metadata: FileMetaData;
  readonly columns: readonly SchemaTree[];
}

/** A Parquet file. Its records are its rows, numbered by "lines" too. */
export const openParquet: OpenFormat = async (source, { known }, signal) => {
  const { path, name } = source;
  if (source.isFolder) throw new UsageError(`${path} is a folder: name a file in it`);
  if (!source.replayable) {
    throw new UsageError(
      `${name}: Parquet begins at its end, so that it has to be a file: save it, and name that`,
    );
  }
  const handle = await open(path).catch((error: unknown) => {
    throw cannotOpen(path, error);
  });
  try {
    const opened = await openFile(name, handle);
    const columns = opened.columns.map(({ element }) => element.name);
    // Of a later reading, whoever reads says what has changed.
    if (known === undefined) checkColumnNames(columns, name);
    const batches = readRows(opened, signal);
    return { columns, delimiter: ',', batches, close: () => handle.close() };
  } catch (error) {
    await handle.close();
    throw error;
  }
};

/** @throws {UsageError} when it is no Parquet, or packed in a way that cannot be unpacked */
async function openFile(name: string, handle: FileHandle): Promise<ParquetFile> {
  const { compressors } = await import('hyparquet-compressors');
  const { buffer } = await handle.read(Buffer.alloc(MAGIC.length), 0, MAGIC.length, 0);
  const start = buffer.toString('latin1');
  if (start !== MAGIC) {
    const packed = start.startsWith('\x1f\x8b') ? 'gzip data: unpack it first (gunzip)' : 'no Parquet file';
    throw new UsageError(`${name} is ${packed}`);
  }
  const opened = await readMetadata(handle).catch((error: unknown) => {
    // A footer that is none, but has a length that fits, sends the reader astray.
    const isAstray = error instanceof TypeError || error instanceof RangeError;
    const reason = isAstray ? 'it has no footer' : messageOf(error).slice(0, 120);
    throw new UsageError(
      `${name} is a damaged or incomplete Parquet file (${reason}): make or fetch it again`,
      { cause: error },
    );
  });
  const chunks = opened.metadata.row_groups.flatMap((group) =>
    group.columns.map((column) => column.meta_data),
  );
  const codec = chunks.find(
    (chunk) => chunk && chunk.codec !== 'UNCOMPRESSED' && !(chunk.codec in compressors),
  );
  if (codec !== undefined || chunks.includes(undefined)) {
    const how = codec === undefined ? 'encrypted' : `packed with ${codec.codec}`;
    throw new UsageError(`${name} is ${how}, which cannot be read: write it with zstd or snappy`);
  }
  return opened;
}

/** @throws what the library says of what is no Parquet file */
export async function readMetadata(handle: FileHandle): Promise<ParquetFile> {
  const { parquetMetadataAsync, parquetSchema } = await import('hyparquet');
  const file = await bytesOf(handle);
  const metadata = await parquetMetadataAsync(file, { geoparquet: false });
  const { children: columns } = parquetSchema(metadata);
  return { file, metadata: { ...metadata, schema: metadata.schema.map(asStored) }, columns };
}

export async function bytesOf(handle: FileHandle): Promise<AsyncBuffer> {
  const { size } = await handle.stat();
  return { byteLength: size, slice: (start, end = size) => readBytes(handle, start, end) };
}

async function readBytes(handle: FileHandle, start: number, end: number): Promise<ArrayBuffer> {
  const bytes = new Uint8Array(end - start);
  let length = 0;
  while (length < bytes.length) {
    const { bytesRead } = await handle.read(bytes, length, bytes.length - length, start + length);
    if (bytesRead === 0) throw new UnreadableError('it ends too early');
    length += bytesRead;
  }
  return bytes.buffer;
}

async function* readRows(opened: ParquetFile, signal: AbortSignal): RecordBatches {
  const { metadata, columns } = opened;
  let number = 0;
  let groupStart = 0;
  for (const { num_rows: rows, total_byte_size: bytes } of metadata.row_groups) {
    const groupEnd = groupStart + Number(rows);
    const parts = Math.ceil(Number(bytes) / RANGE_BYTES);
    const rangeRows = Math.max(1, Math.ceil(Number(rows) / Math.max(1, parts)));
    for (let start = groupStart; start < groupEnd && !signal.aborted; start += rangeRows) {
      const range = await readRange(opened, start, Math.min(start + rangeRows, groupEnd));
      for (let at = 0; at < range.length; at += BATCH_ROWS) {
        yield range.slice(at, at + BATCH_ROWS).map((values) => toRecord(values, columns, ++number));
      }
    }
    groupStart = groupEnd;
  }
}

/**
 * Reads the values of some rows, see `cellOf`.
 * @throws {UnreadableError} when a column is damaged, or has fewer values than there are rows
 */
export async function readRange(
  { file, metadata }: ParquetFile,
  rowStart: number,
  rowEnd: number,
): Promise<readonly (readonly unknown[])[]> {
  const { parquetRead } = await import('hyparquet');
  const { compressors } = await import('hyparquet-compressors');
  const ends = new Map<string, number>();
  let found: readonly (readonly unknown[])[] = [];
  try {
    await parquetRead({
      ...{ file, metadata, compressors, rowStart, rowEnd, utf8: false, useOffsetIndex: true },
      parsers: { timestampFromNanoseconds: (nanos) => instant(nanos, 'Z') },
      onChunk: (chunk) => ends.set(chunk.columnName, chunk.rowEnd),
      onComplete: (rows) => (found = rows),
    });
  } catch (error) {
    if (error instanceof UnreadableError) throw error;
    const reason = messageOf(error).slice(0, 120);
    throw new UnreadableError(`its data is damaged, or of a kind that is not known (${reason})`, {
      cause: error,
    });
  }
  for (const [column, end] of ends) {
    if (end < rowEnd) throw new UnreadableError(`its data is damaged (${column} has too few values)`);
  }
  return found;
}

/** The element of a column as it is to be decoded: as numbers and bytes, since decimals, times and texts would lose something. */
function asStored(element: SchemaElement, at: number, all: readonly SchemaElement[]): SchemaElement {
  const { type, name, logical_type: logical, converted_type: converted = '' } = element;
  // The keys of a map become names: they are in the group that repeats in it.
  const isInMap = all[at - 2]?.converted_type === 'MAP' && all[at - 1]?.repetition_type === 'REPEATED';
  if (type === undefined || (name === 'key' && isInMap)) return element;
  if (/INT_/.test(converted) || ['UUID', 'FLOAT16', 'INTEGER'].includes(logical?.type ?? '')) return element;
  return { ...element, converted_type: undefined, logical_type: undefined };
}

function toRecord(
  values: readonly unknown[],
  columns: readonly SchemaTree[],
  number: number,
): ManifestRecord {
  const binary = new Set<string>();
  const cells = columns.map((column, index) => cellOf(values[index], column, binary));
  return {
    ...{ line: number, number, ...toCells(cells) },
    ...(binary.size > 0 && { binary: [...binary] }),
  };
}

/** @param binary gets the names of values that are bytes and no text */
export function cellOf(value: unknown, node: SchemaTree, binary: Set<string>): JsonCell {
  if (value === null || value === undefined) return NULL_CELL;
  const textOf = (part: unknown, of: SchemaTree) => {
    const { cell, isJson } = cellOf(part, of, binary);
    return jsonText(cell, isJson);
  };
  const [inner] = node.children;
  if (Array.isArray(value)) {
    const isList = node.element.converted_type === 'LIST' && inner !== undefined;
    const item = isList ? (inner.children.length === 1 ? (inner.children[0] ?? inner) : inner) : node;
    return { cell: `[${value.map((part: unknown) => textOf(part, item)).join(',')}]`, isJson: true };
  }
  if (inner === undefined) return scalarCell(value, node, binary);
  const ofMap = node.element.converted_type === 'MAP' ? inner.children[1] : undefined;
  const members = Object.entries(value).map(([key, part]: [string, unknown]) => {
    const child = ofMap ?? node.children.find(({ element }) => element.name === key);
    return [key, child === undefined ? 'null' : textOf(part, child)] as const;
  });
  return { cell: objectText(members), isJson: true };
}

/** Numbers exactly, and times in ISO 8601. */
function scalarCell(value: unknown, { element, path }: SchemaTree, binary: Set<string>): JsonCell {
  const { logical_type: logical, converted_type: converted = '' } = element;
  const kind = logical?.type ?? converted;
  if (value instanceof Uint8Array) {
    if (kind === 'DECIMAL') return { cell: decimal(integerOf(value), element), isJson: true };
    if (!isUtf8(value)) {
      binary.add(path.join('.'));
      return NULL_CELL;
    }
    const cell = Buffer.from(value.buffer, value.byteOffset, value.length).toString();
    return kind === 'JSON' && parseJson(cell) !== undefined
      ? readJsonCell(cell.trim())
      : { cell, isJson: false };
  }
  if (typeof value === 'bigint' || typeof value === 'number') {
    if (kind === 'DECIMAL') return { cell: decimal(BigInt(value), element), isJson: true };
    if (kind === 'DATE') return { cell: instant(BigInt(value) * DAY, '').slice(0, -9), isJson: false };
    const unit = logical !== undefined && 'unit' in logical ? logical.unit : converted.split('_').at(-1);
    const nanos = () => BigInt(value) * (NANOS.get(unit ?? '') ?? 1n);
    if (kind.startsWith('TIMESTAMP')) {
      const isLocal = logical?.type === 'TIMESTAMP' && !logical.isAdjustedToUTC;
      return { cell: instant(nanos(), isLocal ? '' : 'Z'), isJson: false };
    }
    if (kind.startsWith('TIME')) return { cell: instant(nanos(), '').replace(/.*T/, ''), isJson: false };
    if (typeof value === 'bigint') return { cell: String(value), isJson: true };
    if (!Number.isFinite(value)) return NULL_CELL;
  }
  return typeof value === 'number' || typeof value === 'boolean' || typeof value === 'string'
    ? jsonCell(value)
    : { cell: JSON.stringify(value), isJson: true };
}

const SECOND = 1_000_000_000n;
const DAY = 86_400n * SECOND;
const NANOS = new Map([
  ['MILLIS', 1_000_000n],
  ['MICROS', 1000n],
  ['NANOS', 1n],
]);

/** Nanoseconds since 1970 as ISO 8601, with as many digits as it takes; what no date can be, as the number that it is. */
function instant(nanos: bigint, zone: 'Z' | ''): string {
  const rest = BigInt.asUintN(64, ((nanos % SECOND) + SECOND) % SECOND);
  const date = new Date(Number((nanos - rest) / SECOND) * 1000);
  if (Number.isNaN(date.getTime())) return String(nanos);
  const digits = String(rest)
    .padStart(9, '0')
    .replace(/(000)+$/, '');
  return `${date.toISOString().slice(0, -5)}${digits === '' ? '' : `.${digits}`}${zone}`;
}

function decimal(unscaled: bigint, { scale = 0 }: SchemaElement): string {
  const digits = String(unscaled < 0n ? -unscaled : unscaled).padStart(scale + 1, '0');
  const whole = digits.slice(0, digits.length - scale);
  return `${unscaled < 0n ? '-' : ''}${whole}${scale > 0 ? `.${digits.slice(-scale)}` : ''}`;
}

/** Bytes as Parquet has them: the highest first, in two's complement. */
function integerOf(bytes: Uint8Array): bigint {
  return BigInt.asIntN(bytes.length * 8, BigInt(`0x0${Buffer.from(bytes).toString('hex')}`));
}
