import type { FileHandle } from 'node:fs/promises';
import { RecordScanner, type CsvRecord, type CsvTail } from '../shared/record-scanner.js';

const CHUNK_BYTES = 1 << 20;
const RECORD_BYTES = 1 << 13;

/**
 * Reads a file from an offset to its end. The chunks share one buffer: each is valid until the next.
 * @param signal ends the reading with its reason
 */
export async function* readChunks(
  handle: FileHandle,
  start = 0,
  signal?: AbortSignal,
  chunkBytes = CHUNK_BYTES,
): AsyncGenerator<Buffer, void> {
  const buffer = Buffer.allocUnsafe(chunkBytes);
  for (let position = start; ;) {
    signal?.throwIfAborted();
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, position);
    if (bytesRead === 0) return;
    position += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

/**
 * Calls `visit` with each record behind the header, one after the other.
 * @param header its delimiter, and where it ends
 * @returns where the last line end is, and what follows it
 */
export async function forEachRecord(
  handle: FileHandle,
  header: { readonly delimiter: string; readonly end: number },
  visit: (record: CsvRecord) => void | Promise<void>,
  signal?: AbortSignal,
): Promise<{ end: number; tail: CsvTail | undefined }> {
  const scanner = new RecordScanner({ delimiter: header.delimiter });
  for await (const chunk of readChunks(handle, 0, signal)) {
    for (const record of scanner.push(chunk)) {
      if (record.start < header.end) continue;
      const pending = visit(record);
      // Awaiting each record would cost more than reading it.
      if (pending !== undefined) await pending;
    }
  }
  return { end: scanner.end, tail: scanner.tail() };
}

/** The cells of one record and where its bytes end. */
export interface StoredRecord {
  readonly cells: readonly string[];
  readonly end: number;
}

/**
 * Reads the record that starts at an offset, or the first one behind it that is not a blank line.
 * @param mayLackLineEnd whether what the file ends with counts as a record too
 * @returns undefined when no whole record is there
 */
export async function readRecordAt(
  handle: FileHandle,
  offset: number,
  delimiter: string,
  mayLackLineEnd = false,
): Promise<StoredRecord | undefined> {
  const scanner = new RecordScanner({ delimiter, offset });
  for await (const chunk of readChunks(handle, offset, undefined, RECORD_BYTES)) {
    for (const record of scanner.push(chunk)) return { cells: record.cells(), end: record.end };
  }
  const tail = mayLackLineEnd ? scanner.tail() : undefined;
  return tail === undefined ? undefined : { cells: tail.cells(), end: tail.end };
}
