import { readSync } from 'node:fs';
import { FatalError } from '../shared/errors.js';
import { HashTable } from '../shared/hash-table.js';
import type { PreviousFailure } from '../shared/outcome.js';
import { RecordScanner } from '../shared/record-scanner.js';
import { describeFileError } from './durable-file.js';
import { identityOfName, type FailureOptions, type FailureRecord } from './failure-records.js';
import { forEachFailure, type OpenFailures } from './failures-reading.js';
import { OFFSET_CELLS, offsetOf, setOffset } from './table-offsets.js';

/** The table's column behind the offset. */
const FILE = 2;
const RECORD_BYTES = 1 << 13;

/**
 * Finds how a row failed before, in files that stay open: one that is replaced meanwhile is read as it was. Of several
 * files the first one that has a row counts, and of its records of the row the last one.
 *
 * Memory: some 20 bytes a failure. What it says is read from the file when it is asked for.
 */
export class FailuresIndex {
  readonly #files: OpenFailures[] = [];
  readonly #places = new HashTable([...OFFSET_CELLS, 2]);

  /** Rows that can be found. */
  get size(): number {
    return this.#places.size;
  }

  /**
   * Indexes one more file. It is closed with the index, or at once when nothing in it is wanted.
   * @param isWanted of failures that no file before has; those that cannot be asked for are left out anyway
   * @throws {UsageError} as `forEachFailure`
   */
  async add(
    file: OpenFailures,
    options: FailureOptions,
    isWanted: (failure: FailureRecord) => boolean = () => true,
  ): Promise<void> {
    const number = this.#files.push(file) - 1;
    const sizeBefore = this.size;
    await forEachFailure(file, options, (failure, offset) => {
      const { row, outcome } = failure;
      // The key of these may be another row's.
      if (outcome.code === 'duplicate-key' || outcome.code === 'bad-record') return;
      const name = row.key ?? row.image;
      if (name === undefined || !isWanted(failure)) return;
      const identity = identityOfName(name);
      const known = this.#places.find(identity);
      if (known !== -1 && this.#places.get(known, FILE) !== number) return;
      const entry = this.#places.add(identity);
      setOffset(this.#places, entry, offset);
      this.#places.set(entry, FILE, number);
    });
    if (this.size > sizeBefore) return;
    this.#files.pop();
    await file.handle.close();
  }

  /**
   * How a row failed.
   * @param name the row's key; in a manifest without keys its image
   */
  find(name: string | undefined): PreviousFailure | undefined {
    if (name === undefined) return undefined;
    const entry = this.#places.find(identityOfName(name));
    if (entry === -1) return undefined;
    const file = this.#files[this.#places.get(entry, FILE)];
    if (file === undefined) throw new RangeError('an entry of no file');
    const { row, outcome } = readFailureAt(file, offsetOf(this.#places, entry));
    return (row.key ?? row.image) === name ? { outcome, image: row.image } : undefined;
  }

  async close(): Promise<void> {
    for (const { handle } of this.#files.splice(0)) await handle.close();
  }
}

/** Reads one record. Synchronous, since a decision on a row is: a few kilobytes of a file that was read a moment ago. */
export function readFailureAt(file: OpenFailures, offset: number): FailureRecord {
  const scanner = new RecordScanner({ delimiter: file.reader.header.delimiter, offset });
  const buffer = Buffer.allocUnsafe(RECORD_BYTES);
  for (let position = offset; ;) {
    const bytes = readChunk(file, buffer, position);
    for (const record of scanner.push(buffer.subarray(0, bytes))) return file.reader.read(record.cells());
    position += bytes;
    if (bytes > 0) continue;
    // The last record of a file that somebody edited may lack its line end.
    const tail = scanner.tail();
    if (tail !== undefined) return file.reader.read(tail.cells());
    throw new FatalError(`the failures file ${file.path} was changed while the run goes on`);
  }
}

function readChunk({ handle, path }: OpenFailures, buffer: Buffer, position: number): number {
  try {
    return readSync(handle.fd, buffer, 0, buffer.length, position);
  } catch (error) {
    throw new FatalError(`${describeFileError(error)}: the failures file ${path} cannot be read`, {
      cause: error,
    });
  }
}
