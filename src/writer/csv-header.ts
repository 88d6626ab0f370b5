import type { FileHandle } from 'node:fs/promises';
import { formatRecord } from './csv-format.js';
import { readRecordAt } from './file-records.js';

/** The first record of one of our files. */
export interface CsvHeader {
  readonly delimiter: string;
  readonly columns: readonly string[];
  /** Byte offset of the first record behind it. */
  readonly end: number;
}

/** What spreadsheets save with, whatever the file had before. */
const USUAL_DELIMITERS = [',', ';', '\t'];
const MAX_HEADER_BYTES = 1 << 20;

/**
 * Reads a file's header with the delimiter that makes the most of it.
 * @param delimiter tried first
 * @param fits tells whether these are the columns looked for
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
    if (record === undefined) continue;
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
  const buffer = Buffer.alloc(size > MAX_HEADER_BYTES ? 0 : size);
  const { bytesRead } = await handle.read(buffer, 0, buffer.length, 0);
  if (bytesRead < size) return false;
  return [delimiter, ...USUAL_DELIMITERS].some((candidate) => {
    const header = Buffer.from(formatRecord(columns, candidate));
    return size < header.length && header.subarray(0, size).equals(buffer);
  });
}
