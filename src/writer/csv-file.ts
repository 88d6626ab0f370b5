import type { FileHandle } from 'node:fs/promises';
import { type CsvRecord, CsvSyntaxError, USUAL_DELIMITERS, formatCsv, readCsv } from '../shared/csv.js';

/** The first record of one of our files. */
export interface CsvHeader {
  readonly delimiter: string;
  readonly columns: readonly string[];
  /** Byte offset of the first record behind it. */
  readonly end: number;
}

const CHUNK_BYTES = 1 << 20;
const RECORD_BYTES = 1 << 13;
const MAX_HEADER_BYTES = 1 << 20;

/** Reads a part of a file. Each piece is a buffer of its own: the parser keeps the end of one until the next. */
async function* readPieces(
  handle: FileHandle,
  from: number,
  to: number,
  { pieceBytes = CHUNK_BYTES, signal }: { pieceBytes?: number; signal?: AbortSignal | undefined },
): AsyncGenerator<Buffer, void> {
  for (let position = from; position < to;) {
    signal?.throwIfAborted();
    const buffer = Buffer.allocUnsafe(Math.min(pieceBytes, to - position));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, position);
    if (bytesRead === 0) return;
    position += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

/** What follows the last line end of a file. */
export interface CsvTail {
  /** Where the record before it ends. */
  readonly start: number;
  readonly line: number;
  /** The tail as a record; undefined when it breaks off within quotes, so that it cannot be a whole one. */
  readonly record: CsvRecord | undefined;
}

/**
 * Calls `visit` with the whole records behind the header, many at a time.
 * @param size bytes that are read, from the first
 * @param signal ends the reading with its reason
 */
export async function forEachRecord(
  handle: FileHandle,
  header: Pick<CsvHeader, 'delimiter' | 'end'>,
  size: number,
  visit: (records: readonly CsvRecord[]) => void | Promise<void>,
  signal?: AbortSignal,
): Promise<CsvTail | undefined> {
  const pieces = readPieces(handle, 0, size, { signal });
  try {
    for await (const records of readCsv(pieces, { delimiter: header.delimiter, relaxQuotes: true })) {
      const whole = records.filter(({ start, hasLineEnd }) => start >= header.end && hasLineEnd);
      if (whole.length > 0) await visit(whole);
      const last = records.at(-1);
      if (last?.hasLineEnd === false) return { start: last.start, line: last.line, record: last };
    }
    return undefined;
  } catch (error) {
    if (!(error instanceof CsvSyntaxError)) throw error;
    return { start: error.start, line: error.line, record: undefined };
  }
}

/**
 * Reads the record that starts at an offset, or the first one behind it that is not a blank line.
 * @returns undefined when there is none
 */
export async function readRecordAt(
  handle: FileHandle,
  offset: number,
  delimiter: string,
): Promise<CsvRecord | undefined> {
  const pieces = readPieces(handle, offset, Infinity, { pieceBytes: RECORD_BYTES });
  try {
    for await (const [first] of readCsv(pieces, { delimiter, relaxQuotes: true, offset })) {
      if (first !== undefined) return first;
    }
    return undefined;
  } catch (error) {
    if (!(error instanceof CsvSyntaxError)) throw error;
    return undefined;
  }
}

/**
 * Reads a file's header with the delimiter that makes the most of it: people save files in spreadsheets.
 * @param delimiter tried first
 * @param fits whether these are the columns looked for
 * @returns the header that fits, else the one with most columns; undefined when no record is whole
 */
export async function readHeader(
  handle: FileHandle,
  delimiter: string,
  fits: (columns: readonly string[]) => boolean,
): Promise<CsvHeader | undefined> {
  let best: CsvHeader | undefined;
  for (const candidate of new Set([delimiter, ...USUAL_DELIMITERS])) {
    const record = await readRecordAt(handle, 0, candidate);
    if (record?.hasLineEnd !== true) continue;
    const header = { delimiter: candidate, columns: record.cells, end: record.end };
    if (fits(header.columns)) return header;
    if (best === undefined || header.columns.length > best.columns.length) best = header;
  }
  return best;
}

/** Whether a file is empty or holds no more than the beginning of this header: its creation was cut short. */
export async function isTornHeader(
  handle: FileHandle,
  columns: readonly string[],
  delimiter: string,
): Promise<boolean> {
  const { size } = await handle.stat();
  if (size > MAX_HEADER_BYTES) return false;
  const buffer = Buffer.alloc(size);
  const { bytesRead } = await handle.read(buffer, 0, size, 0);
  return [delimiter, ...USUAL_DELIMITERS].some((candidate) => {
    const header = Buffer.from(formatCsv([columns], candidate));
    return bytesRead < header.length && header.subarray(0, bytesRead).equals(buffer);
  });
}
