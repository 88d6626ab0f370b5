import type { FileHandle } from 'node:fs/promises';
import { UsageError } from '../shared/errors.js';
import { OUTPUT_COLUMNS } from '../shared/jobs.js';
import { CsvTable } from './csv-table.js';
import type { OutputIndex } from './output-index.js';

/** What an output is opened or inspected with. */
export interface OutputOptions {
  readonly path: string;
  /** The manifest's columns, in order. */
  readonly columns: readonly string[];
  /** Of a new output. An existing one keeps its own, which is found from its header. */
  readonly delimiter: string;
  /** See `CsvTable`; of this output and the files that belong to it. */
  readonly escapeFormulas?: boolean | undefined;
  /** Which of `columns` hold the image and, where rows have one, the key. */
  readonly urlColumn: number;
  readonly keyColumn?: number | undefined;
  /** The hash of the image that a URL cell means; undefined when it means none. */
  readonly resolveUrl: (raw: string) => string | undefined;
  /** Gets the rows. */
  readonly index: OutputIndex;
  /** The manifest may have columns that the output lacks: it is rewritten once with them. */
  readonly newColumns?: boolean | undefined;
  /** Ends the reading of a large output with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** All columns of an output for a manifest with these. */
export function outputColumns(manifestColumns: readonly string[]): string[] {
  return [...manifestColumns, ...OUTPUT_COLUMNS];
}

/**
 * Opens an output's table and checks its columns.
 * @returns undefined when the file holds nothing yet; `isOutdated`: it must be rewritten to have exactly the columns expected
 * @throws {UsageError} that says what differs
 */
export async function openOutputTable(
  handle: FileHandle,
  expected: OutputOptions,
): Promise<{ readonly table: CsvTable; readonly isOutdated: boolean } | undefined> {
  const columns = outputColumns(expected.columns);
  const fits = (found: readonly string[]) => isSame(found, columns);
  const table = await CsvTable.open(handle, { ...expected, columns }, fits);
  if (table === undefined) return undefined;
  const trouble = compareColumns(table.columns, expected);
  if (trouble !== undefined) throw new UsageError(`the output ${expected.path} ${trouble}`);
  return { table, isOutdated: !fits(table.columns) };
}

/**
 * What keeps an output with these columns from being continued, to be read behind its path; undefined when nothing does.
 * With `newColumns` the manifest may have more columns, and others may have moved.
 */
function compareColumns(found: readonly string[], expected: OutputOptions): string | undefined {
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
