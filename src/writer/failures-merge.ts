import { HashTable } from '../shared/hash-table.js';
import { formatRecord } from './csv-format.js';
import { removeFile, replaceFile } from './durable-file.js';
import {
  failureColumns,
  formatFailure,
  identitiesOf,
  type FailureOptions,
  type FailureRecord,
} from './failure-records.js';
import { forEachFailure, openFailures } from './failures-reading.js';
import { GroupedWriter } from './grouped-writer.js';
import { partialPath } from './output-paths.js';

/** What failures are about, as a set: 9 bytes or so for each. */
export class FailureSet {
  readonly #identities = new HashTable([]);

  constructor(private readonly columns: readonly string[]) {}

  add(failure: FailureRecord): void {
    for (const identity of identitiesOf(failure, this.columns)) this.#identities.add(identity);
  }

  /** Whether one that was added is about the same row. */
  supersedes(failure: FailureRecord): boolean {
    return identitiesOf(failure, this.columns).some((identity) => this.#identities.find(identity) !== -1);
  }
}

/**
 * Brings the failures file and the partial one together: what the partial one holds, and of the earlier failures
 * those that it does not supersede and that `keep` says are still failed. The partial one is gone then;
 * without any failure both are. A crash at any moment leaves files that merge to the same.
 * @param keepAdded which of the partial one's are still failed; all, where it is not given
 * @returns failures in the new file
 * @throws {FatalError} when it cannot be written; nothing is lost then
 */
export async function mergeFailures(
  options: FailureOptions,
  keep: (failure: FailureRecord) => boolean,
  keepAdded: (failure: FailureRecord) => boolean = () => true,
): Promise<number> {
  const superseded = new FailureSet(options.columns);
  await readAll(partialPath(options.path), options, (failure) => superseded.add(failure));
  let count = 0;
  await replaceFile(options.path, async (temp) => {
    const writer = new GroupedWriter(temp);
    await writer.write(formatRecord(failureColumns(options.columns), options.delimiter));
    const write = (failure: FailureRecord) => {
      count++;
      return writer.write(formatFailure(failure, options));
    };
    await readAll(options.path, options, (failure) => {
      if (superseded.supersedes(failure) || !keep(failure)) return;
      return write(failure);
    });
    await readAll(partialPath(options.path), options, (failure) =>
      keepAdded(failure) ? write(failure) : undefined,
    );
    await writer.end();
  });
  if (count === 0) await removeFile(options.path);
  await removeFile(partialPath(options.path));
  return count;
}

/** Calls `visit` with each failure of a file; with none when there is no file. */
export async function readAll(
  path: string,
  options: FailureOptions,
  visit: (failure: FailureRecord, offset: number) => void | Promise<void>,
): Promise<void> {
  const failures = await openFailures(path, options);
  if (failures === undefined) return;
  try {
    await forEachFailure(failures, options, visit);
  } finally {
    await failures.handle.close();
  }
}
