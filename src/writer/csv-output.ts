import type { FileHandle } from 'node:fs/promises';
import { type CsvRecord, formatCsv } from '../shared/csv.js';
import { UsageError } from '../shared/errors.js';
import {
  type CsvHeader,
  type CsvTail,
  forEachRecord,
  isTornHeader,
  readHeader,
  readRecordAt,
} from './csv-file.js';
import { replaceFile } from './durable-file.js';
import { OutputIndex } from './output-index.js';

/** What the output has behind the manifest's columns, in this order. */
export const OUTPUT_COLUMNS = [
  'prompt_1',
  'prompt_2',
  'prompt_3',
  'prompt_4',
  'message_id',
  'described_at',
] as const;

/** The message ids that the built-in simulator gives begin with this. */
const SIMULATED_MESSAGE_PREFIX = 'sim-';

/** What an output is opened or inspected with. */
export interface OutputOptions {
  readonly path: string;
  /** The manifest's columns, in order. */
  readonly columns: readonly string[];
  /** Of a new output. An existing one keeps its own, which is found from its header. */
  readonly delimiter: string;
  /** Which of `columns` hold the image and, where rows have one, the key. */
  readonly urlColumn: number;
  readonly keyColumn?: number | undefined;
  /** The hash of the image that a URL cell means; undefined when it means none. */
  readonly resolveUrl: (raw: string) => string | undefined;
  /** The manifest may have columns that the output lacks: it is rewritten once with them. */
  readonly newColumns?: boolean | undefined;
  /** Ends the reading of a large output with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** What a row's prompts are copied from. */
export interface StoredPrompts {
  readonly prompts: readonly [string, string, string, string];
  readonly messageId: string;
  readonly describedAt: string;
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
  expected: OutputOptions,
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

/** How an output ends. */
interface OutputEnd {
  /** Where the last whole record ends; what follows is torn. */
  readonly end: number;
  /** `no-line-end`: the last record is whole but for that. */
  readonly ending: 'whole' | 'torn' | 'no-line-end';
}

/** What one pass over an output finds. */
export interface ScannedOutput extends OutputEnd {
  readonly index: OutputIndex;
  /** Whether there are message ids of the simulator, and of a real API. */
  readonly hasSimulated: boolean;
  readonly hasReal: boolean;
}

/**
 * Reads an output from its first row on and indexes it.
 * @param size bytes that count: the file may grow meanwhile
 * @param options says how rows are told apart
 * @param into an index that several files share, and the place in it of this one's first byte
 * @throws {UsageError} when a record has not as many cells as the header, with its line
 */
export async function scanOutput(
  path: string,
  handle: FileHandle,
  header: CsvHeader,
  size: number,
  options: Pick<OutputOptions, 'columns' | 'urlColumn' | 'keyColumn' | 'resolveUrl' | 'signal'>,
  into?: { readonly index: OutputIndex; readonly firstPlace: number },
): Promise<ScannedOutput> {
  const { columns, urlColumn, keyColumn, resolveUrl, signal } = options;
  const { index, firstPlace } = into ?? {
    index: new OutputIndex({ keyed: keyColumn !== undefined }),
    firstPlace: 0,
  };
  const placeOf = (name: string | undefined) => header.columns.indexOf(name ?? '');
  const [url, messageId] = [placeOf(columns[urlColumn]), placeOf('message_id')];
  const key = keyColumn === undefined ? undefined : placeOf(columns[keyColumn]);
  let [hasSimulated, hasReal] = [false, false];
  const addRows = (records: readonly CsvRecord[]) => {
    for (const { cells, start } of records) {
      index.addFound({
        image: resolveUrl(cells[url] ?? ''),
        // A key column that is new to the output has no cell here, and its rows have the key that an empty cell is.
        key: key === undefined ? undefined : (cells[key] ?? ''),
        offset: firstPlace + start,
      });
      const message = cells[messageId] ?? '';
      if (message.startsWith(SIMULATED_MESSAGE_PREFIX)) hasSimulated = true;
      else if (message !== '') hasReal = true;
    }
  };
  const end = await forEachRow(path, handle, header, size, addRows, signal);
  return { ...end, index, hasSimulated, hasReal };
}

/**
 * Rewrites an output for a manifest that has more columns than it had: rows keep their cells, by column name, and
 * get empty ones in the columns that are new. A torn last record is left out. Atomic.
 * @throws {FatalError} when the new file cannot be written; the old one is untouched then
 */
export async function rewriteColumns(
  path: string,
  handle: FileHandle,
  header: CsvHeader,
  columns: readonly string[],
): Promise<void> {
  const places = columns.map((name) => header.columns.indexOf(name));
  const { size } = await handle.stat();
  await replaceFile(path, async (temp) => {
    await temp.writeFile(formatCsv([columns], header.delimiter));
    await forEachRow(path, handle, header, size, async (records) => {
      const rows = records.map(({ cells }) => places.map((place) => cells[place] ?? ''));
      await temp.writeFile(formatCsv(rows, header.delimiter));
    });
  });
}

/**
 * Reads what a row was described with.
 * @returns undefined when there is no row of such a file at this offset
 */
export async function readPromptsAt(
  handle: FileHandle,
  { columns, delimiter }: Pick<CsvHeader, 'columns' | 'delimiter'>,
  offset: number,
): Promise<StoredPrompts | undefined> {
  const record = await readRecordAt(handle, offset, delimiter);
  return record?.cells.length === columns.length ? promptsOf(record.cells, columns) : undefined;
}

/** What a row was described with. */
export function promptsOf(cells: readonly string[], columns: readonly string[]): StoredPrompts {
  const cellOf = (name: (typeof OUTPUT_COLUMNS)[number]) => cells[columns.indexOf(name)] ?? '';
  return {
    prompts: [cellOf('prompt_1'), cellOf('prompt_2'), cellOf('prompt_3'), cellOf('prompt_4')],
    messageId: cellOf('message_id'),
    describedAt: cellOf('described_at'),
  };
}

const TIMESTAMP = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`;
const WHOLE_TIMESTAMP = new RegExp(`^"?${TIMESTAMP}"?\r?$`);
const TIMESTAMP_AT_LINE_END = new RegExp(`${TIMESTAMP}"?\r?\n`);
/** A row is shorter: this much of a torn record is looked at for the end of another. */
const MOST_TORN_BYTES = 1 << 26;

/** Calls `visit` with the whole rows of the first `size` bytes, many at a time. */
async function forEachRow(
  path: string,
  handle: FileHandle,
  header: CsvHeader,
  size: number,
  visit: (rows: readonly CsvRecord[]) => void | Promise<void>,
  signal?: AbortSignal,
): Promise<OutputEnd> {
  const wanted = header.columns.length;
  const checkAndVisit = (records: readonly CsvRecord[]) => {
    const broken = records.find(({ cells }) => cells.length !== wanted);
    if (broken === undefined) return visit(records);
    throw new UsageError(
      `the output ${path} has ${broken.cells.length} cells in the record at line ${broken.line}, not ${wanted}; repair or remove it, or name another output with -o`,
    );
  };
  const tail = await forEachRecord(handle, header, size, checkAndVisit, signal);
  if (tail === undefined) return { end: size, ending: 'whole' };
  const { record } = tail;
  // `described_at` is the last cell of an output's row: where it is whole, so is the row.
  if (record?.cells.length === wanted && WHOLE_TIMESTAMP.test(record.cells[wanted - 1] ?? '')) {
    await visit([record]);
    return { end: size, ending: 'no-line-end' };
  }
  await assertTorn(path, handle, tail, size);
  return { end: tail.start, ending: 'torn' };
}

/**
 * A quote too many makes the whole rest of a file look like one torn record; cutting that would throw away rows that
 * were paid for. A record that was really torn holds no other row's end.
 */
async function assertTorn(path: string, handle: FileHandle, tail: CsvTail, size: number): Promise<void> {
  const bytes = Buffer.alloc(Math.min(size - tail.start, MOST_TORN_BYTES));
  await handle.read(bytes, 0, bytes.length, tail.start);
  if (!TIMESTAMP_AT_LINE_END.test(bytes.toString('latin1'))) return;
  throw new UsageError(
    `the output ${path} has a quote too many or too few in the record at line ${tail.line}; repair it, or name another output with -o`,
  );
}
