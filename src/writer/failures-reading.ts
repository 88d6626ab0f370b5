import { open, type FileHandle } from 'node:fs/promises';
import { UsageError, isSystemError } from '../shared/errors.js';
import { describeFileError } from './durable-file.js';
import {
  readFailureHeader,
  type FailureOptions,
  type FailureReader,
  type FailureRecord,
} from './failure-records.js';
import { forEachRecord } from './file-records.js';
import { partialPath } from './output-paths.js';

/** A failures file, or a partial one, open for reading. */
export interface OpenFailures {
  readonly path: string;
  readonly handle: FileHandle;
  readonly reader: FailureReader;
}

/**
 * Opens a failures file for reading.
 * @returns undefined when there is none, or it holds nothing
 * @throws {UsageError} when it is none of this manifest's
 */
export async function openFailures(path: string, options: FailureOptions): Promise<OpenFailures | undefined> {
  const handle = await openIfThere(path);
  if (handle === undefined) return undefined;
  try {
    const reader = await readFailureHeader(handle, path, options);
    if (reader !== undefined) return { path, handle, reader };
  } catch (error) {
    await handle.close();
    throw isSystemError(error) ? unreadable(path, error) : error;
  }
  await handle.close();
  return undefined;
}

/**
 * Calls `visit` with each failure and where its record starts. What follows the last line end is a record in a
 * failures file, which is only ever replaced as a whole, and torn in a partial one.
 * @throws {UsageError} when a record has not as many cells as the header, with its line
 */
export async function forEachFailure(
  { path, handle, reader }: OpenFailures,
  options: FailureOptions,
  visit: (failure: FailureRecord, offset: number) => void | Promise<void>,
): Promise<void> {
  const wanted = reader.header.columns.length;
  const { tail } = await forEachRecord(
    handle,
    reader.header,
    (record) => {
      if (record.size === wanted) return visit(reader.read(record.cells()), record.start);
      throw new UsageError(
        `the failures file ${path} has ${record.size} cells in the record at line ${record.line}, not ${wanted}; repair it or move it away`,
      );
    },
    options.signal,
  );
  const isTorn = path === partialPath(options.path) || tail?.insideQuotes === true;
  if (tail?.size === wanted && !isTorn) await visit(reader.read(tail.cells()), tail.start);
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if (isSystemError(error) && error.code === 'ENOENT') return undefined;
    throw unreadable(path, error);
  }
}

function unreadable(path: string, error: unknown): UsageError {
  return new UsageError(`the failures file ${path} cannot be read: ${describeFileError(error)}`, {
    cause: error,
  });
}
