import type { Stats } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { type RowPlan, nameOf } from '../producer/row-reader.js';
import { FatalError, UsageError } from '../shared/errors.js';
import { type DescribedOutcome, MESSAGE_COLUMNS, USAGE_COLUMNS } from '../shared/jobs.js';
import { valuesOf } from '../shared/json-cells.js';
import { CsvTable } from './csv-table.js';
import { describeFileError, openPlainFile } from './durable-file.js';
import { JsonlTable } from './jsonl-table.js';
import type { OutputIndex } from './output-index.js';
import { workingPath } from './output-paths.js';
import { ParquetTable } from './parquet-table.js';
import { PromptRowsTable, inRows, isInRows } from './prompt-rows-table.js';
import type { Table, TableEnd, TableRow } from './table.js';

/** How a new output is laid out; an existing one keeps its own, which its run file remembers. */
export interface OutputLayout {
  /** Whether cells that a spreadsheet would take for formulas begin with an apostrophe, in all files of the run. */
  readonly escapeFormulas?: boolean | undefined;
  /** Whether each prompt has a column or a line, see `PromptRowsTable`; `columns`. */
  readonly promptsAs?: 'columns' | 'rows' | undefined;
  /** Whether what each row has cost in tokens is in two columns more. */
  readonly usage?: boolean | undefined;
}

export function layoutOf({ escapeFormulas, promptsAs, usage }: OutputLayout): OutputLayout {
  return { escapeFormulas, promptsAs, usage };
}

/** What a new output is made of. */
export interface TableOptions extends OutputLayout {
  readonly path: string;
  /** The manifest's columns, in order. */
  readonly columns: readonly string[];
  /** The indexes of those that the output has; undefined where it has all. */
  readonly kept?: readonly number[] | undefined;
  /** Of the answers, in order; and what is put between the items of a list in one of them: `json` writes it as JSON. */
  readonly answerColumns: readonly string[];
  readonly listSeparator?: string | undefined;
  /** Of the answers when the output was written last, where that is known: they are told from the manifest's then. */
  readonly answerColumnsBefore?: readonly string[] | undefined;
  /** Of a new output. An existing one keeps its own, which is found from its header. */
  readonly delimiter: string;
}

/** What an output is opened or inspected with. */
export interface OutputOptions extends TableOptions, RowPlan {
  /** Gets the rows. */
  readonly index: OutputIndex;
  /** The manifest may have columns that the output lacks: it is rewritten once with them. */
  readonly newColumns?: boolean | undefined;
  /** Ends the reading of a large output with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** What one pass over an output finds, besides what goes into the index. */
export interface ScannedOutput extends TableEnd {
  /** As the file was before it was read. */
  readonly stats: Stats;
  /** Whether there are message ids of the simulator, and of a real API. */
  readonly hasSimulated: boolean;
  readonly hasReal: boolean;
}

/** How messages name an output. */
export function outputAt(path: string): string {
  return `the output ${path}`;
}

/** A new output for a manifest, in the format that the ending of its name says. */
export function newOutputTable(options: TableOptions, path = options.path): Table {
  const usage = options.usage === true ? USAGE_COLUMNS : [];
  const columns = [
    ...keptOf(options, options.columns),
    ...options.answerColumns,
    ...usage,
    ...MESSAGE_COLUMNS,
  ];
  if (options.promptsAs !== 'rows') return newTable(options, columns, path);
  const { answerColumns, answerColumnsBefore } = options;
  // Among the lines' own there is no list of prompts.
  const lines = newTable({ ...options, answerColumns: [] }, inRows(columns, answerColumns), path);
  return new PromptRowsTable(lines, answerColumns, answerColumnsBefore);
}

function newTable(options: TableOptions, columns: readonly string[], path: string): Table {
  const { answerColumns } = options;
  if (workingPath(path) !== path) return new ParquetTable(columns, answerColumns, path);
  if (/\.(jsonl|ndjson)$/i.test(path)) return new JsonlTable(columns, answerColumns);
  return new CsvTable(columns, options);
}

/** Of what there is for each of the manifest's columns, what the output has. */
export function keptOf<T>({ kept }: Pick<OutputOptions, 'kept'>, ofColumns: readonly T[]): readonly T[] {
  return kept === undefined ? ofColumns : ofColumns.filter((_, index) => kept.includes(index));
}

/**
 * Opens an output's table and checks its columns. With `newColumns` it may have fewer than are expected, in any order.
 * @returns undefined when the file holds nothing yet
 * @throws {UsageError} that says what differs
 */
export async function openOutputTable(
  handle: FileHandle,
  expected: OutputOptions,
): Promise<Table | undefined> {
  const fresh = newOutputTable(expected);
  const table = await fresh.open(handle, (found) => isDeepStrictEqual(found, fresh.columns));
  if (table === undefined) return undefined;
  const { columns: found } = table;
  const refuse = (trouble: string): never => {
    throw new UsageError(`${outputAt(expected.path)} ${trouble}`);
  };
  if (!MESSAGE_COLUMNS.every((name) => found.includes(name))) {
    const missing = [...expected.answerColumns, ...MESSAGE_COLUMNS].filter((name) => !found.includes(name));
    refuse(`is no output of bulk-describe: it has no column ${list(missing)}`);
  }
  const otherFields = compareLayout(table, expected) ?? compareFields(found, expected);
  // Nothing was described with the other ones.
  if (otherFields !== undefined && table.isEmpty((await handle.stat()).size)) return undefined;
  const trouble = otherFields ?? compareColumns(found, fresh.columns, expected);
  return trouble === undefined ? table : refuse(trouble);
}

/** That an output has its prompts in columns where lines are expected, or the other way, and what to do. */
function compareLayout(table: Table, { columns, promptsAs = 'columns' }: OutputOptions): string | undefined {
  const isInLines = table instanceof PromptRowsTable || (isInRows(table.columns) && !isInRows(columns));
  const has = isInLines ? 'rows' : 'columns';
  if (has === promptsAs) return undefined;
  return `was begun with --prompts-as ${has}: go on with that, or name another output with -o`;
}

/** That an output was begun with other fields, and what to do; undefined when it was not. */
function compareFields(found: readonly string[], expected: OutputOptions): string | undefined {
  const { answerColumns, columns, usage, newColumns } = expected;
  const behind = found.slice(found.findLastIndex((name) => columns.includes(name)) + 1);
  const before = [...(expected.answerColumnsBefore ?? behind), ...USAGE_COLUMNS];
  const asked = [...answerColumns, ...(usage === true ? USAGE_COLUMNS : [])];
  const added = asked.filter((name) => !found.includes(name));
  const removed = found.filter(
    (name) => before.includes(name) && ![...columns, ...asked, ...MESSAGE_COLUMNS].includes(name),
  );
  const canAdd = newColumns === true && expected.promptsAs !== 'rows';
  if (removed.length + added.length === 0 || (removed.length === 0 && canAdd)) return undefined;
  const has = removed.length > 0 ? [`it has ${list(removed)}`] : [];
  const lacks = added.length > 0 ? [`it lacks ${list(added)}`] : [];
  const rewrite =
    removed.length > 0 ? '' : ' (or let --new-columns add what it lacks, empty in the rows that are there)';
  return `was begun with other fields (${[...has, ...lacks].join(', ')}): give --count, --fields, --schema and --usage as before, or begin another output${rewrite}`;
}

/**
 * What keeps an output with these columns from being continued, to be read behind its path; undefined when nothing does.
 * With `newColumns` the manifest may have more columns, and others may have moved.
 */
function compareColumns(
  found: readonly string[],
  wanted: readonly string[],
  expected: OutputOptions,
): string | undefined {
  const twice = found.filter((name, index) => found.indexOf(name) !== index);
  if (twice.length > 0) return `has two columns named ${list(twice)}`;
  const removed = found.filter((name) => !wanted.includes(name));
  const added = wanted.filter((name) => !found.includes(name));
  const leftOut = removed.filter((name) => expected.columns.includes(name));
  if (leftOut.length > 0) {
    return `has columns that --keep or --drop leave out: ${list(leftOut)}; go on without the flag, or name another output with -o`;
  }
  if (removed.length > 0) {
    const lacks = added.length > 0 ? ` and lacks ${list(added)}` : '';
    return `has columns that the manifest does not have: ${list(removed)}${lacks}; name another output with -o`;
  }
  if (expected.newColumns || isDeepStrictEqual(found, wanted)) return undefined;
  const remedy = '; --new-columns rewrites it once with the columns of the manifest';
  if (added.length > 0)
    return `lacks columns that the manifest has: ${list(added)}${remedy}, --drop goes on without them`;
  return `has its columns in another order than the manifest: ${list(found)}${remedy}`;
}

function list(names: readonly string[]): string {
  return names.map((name) => JSON.stringify(name)).join(', ');
}

/**
 * Reads and indexes an output as `OutputFile.open` does, but creates and changes nothing. What the index knew of it
 * before is forgotten.
 * @returns undefined when there is none
 * @throws {UsageError} as `OutputFile.open`
 */
export async function inspectOutput(options: OutputOptions): Promise<ScannedOutput | undefined> {
  options.index.forgetOwn();
  await using handle = await openPlainFile(options.path, 'r', 'the output');
  const table = handle && (await openOutputTable(handle, options));
  return handle && table && (await scanOutput(outputAt(options.path), handle, table, options));
}

/** The message ids that the built-in simulator gives begin with this. */
const SIMULATED_MESSAGE_PREFIX = 'sim-';
const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

/** `described_at` is the last cell of an output: where it is whole, so is the row. */
export function endsRow(cells: readonly string[]): boolean {
  return cells.length >= 3 && TIMESTAMP.test(cells.at(-1) ?? '');
}

/**
 * Reads an output from its first row on and indexes it.
 * @param what for messages: `the output out.csv`
 * @param file 0, or the number of an earlier output
 * @throws {UsageError} as `Table.forEach`
 */
export async function scanOutput(
  what: string,
  handle: FileHandle,
  table: Table,
  options: OutputOptions,
  file = 0,
): Promise<ScannedOutput> {
  let [hasSimulated, hasReal] = [false, false];
  const { index, signal } = options;
  const visit = (rows: readonly TableRow[]) => {
    for (const { cells, offset } of rows) {
      // A key column that is new to the output has no cell here, and its rows have the key that an empty cell is.
      index.addFound({ ...nameOf(cells, options), offset, file });
      const message = cells.at(-1) ?? '';
      if (message.startsWith(SIMULATED_MESSAGE_PREFIX)) hasSimulated = true;
      else if (message !== '') hasReal = true;
    }
  };
  const stats = await handle.stat();
  const columns = [...options.columns, 'message_id'];
  const end = await table.forEach(handle, { columns, what, endsRow, signal, visit });
  return { ...end, stats, hasSimulated, hasReal };
}

/**
 * Reads what a row was described with.
 * @param what for messages: `the output out.csv`
 * @param offset of the row, from the index
 * @throws {FatalError} when there is no row, which means that the file was changed
 */
export async function readDescribed(
  what: string,
  handle: FileHandle,
  table: Table,
  offset: number,
  answerColumns: readonly string[],
): Promise<DescribedOutcome> {
  const [found] = await table
    .readAt(handle, offset, [...MESSAGE_COLUMNS, ...answerColumns])
    .catch((error: unknown) => {
      throw new FatalError(`${describeFileError(error)}: ${what} cannot be read`, { cause: error });
    });
  if (found === undefined) {
    throw new FatalError(`${what} was changed while the run goes on: no row at byte ${offset}`);
  }
  const [messageId = '', describedAt = ''] = found.cells;
  const prompts = valuesOf(found).slice(MESSAGE_COLUMNS.length);
  return { status: 'described', prompts, messageId, describedAt };
}
