import type { FileHandle } from 'node:fs/promises';
import { UsageError } from '../shared/errors.js';
import { isTornHeader, readHeader, type CsvHeader } from './csv-header.js';
import { OUTPUT_COLUMNS } from './output-columns.js';

export interface ExpectedColumns {
  readonly path: string;
  /** The manifest's columns, in order. */
  readonly columns: readonly string[];
  /** Tried before the usual ones. */
  readonly delimiter: string;
  /** Whether columns that the manifest has and the output lacks are welcome. */
  readonly newColumns?: boolean | undefined;
}

export interface OutputHeader extends CsvHeader {
  /** Whether the file must be rewritten to have exactly the columns expected. */
  readonly outdated: boolean;
}

/** All columns of an output for a manifest with these. */
export function outputColumns(manifestColumns: readonly string[]): string[] {
  return [...manifestColumns, ...OUTPUT_COLUMNS];
}

/**
 * Reads and checks an output's header.
 * @returns undefined when the file holds nothing yet: it is empty, or its header was cut short
 * @throws {UsageError} that says what differs
 */
export async function readOutputHeader(
  handle: FileHandle,
  expected: ExpectedColumns,
): Promise<OutputHeader | undefined> {
  const columns = outputColumns(expected.columns);
  if (await isTornHeader(handle, columns, expected.delimiter)) return undefined;
  const header = await readHeader(handle, expected.delimiter, (found) => isSame(found, columns));
  if (header === undefined) throw new UsageError(`${expected.path} is no output: it has no header line`);
  const trouble = compareColumns(header.columns, expected);
  if (trouble !== undefined) throw new UsageError(`the output ${expected.path} ${trouble}`);
  return { ...header, outdated: !isSame(header.columns, columns) };
}

/**
 * What keeps an output with these columns from being continued, to be read behind its path; undefined when nothing does.
 * With `newColumns` the manifest may have more columns, and others may have moved.
 */
export function compareColumns(
  found: readonly string[],
  expected: Pick<ExpectedColumns, 'columns' | 'newColumns'>,
): string | undefined {
  const notOurs = OUTPUT_COLUMNS.filter((name) => !found.includes(name));
  if (notOurs.length > 0) return `is no output of bulk-describe: it has no column ${list(notOurs)}`;
  const twice = found.filter((name, index) => found.indexOf(name) !== index);
  if (twice.length > 0) return `has two columns named ${list(twice)}`;

  const wanted = outputColumns(expected.columns);
  const removed = found.filter((name) => !wanted.includes(name));
  const added = wanted.filter((name) => !found.includes(name));
  if (removed.length > 0) {
    const lacks = added.length > 0 ? ` and lacks ${list(added)}` : '';
    return `has columns that the manifest does not have: ${list(removed)}${lacks}; name another output with -o`;
  }
  if (expected.newColumns || isSame(found, wanted)) return undefined;
  const remedy = '; --new-columns rewrites it once with the columns of the manifest';
  if (added.length > 0) return `lacks columns that the manifest has: ${list(added)}${remedy}`;
  return `has its columns in another order than the manifest: ${list(found)}${remedy}`;
}

function isSame(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((name, index) => name === other[index]);
}

function list(names: readonly string[]): string {
  return names.map((name) => JSON.stringify(name)).join(', ');
}
