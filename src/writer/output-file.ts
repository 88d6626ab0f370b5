import type { Stats } from 'node:fs';
import { realpath, type FileHandle } from 'node:fs/promises';
import { FatalError, UsageError } from '../shared/errors.js';
import { type DescribedOutcome, OUTPUT_COLUMNS } from '../shared/jobs.js';
import { AppendFile } from './append-file.js';
import { CsvTable, type TableEnd, type TableRow } from './csv-table.js';
import { createFile, describeFileError, openPlainFile, replaceFile } from './durable-file.js';
import { type OutputOptions, openOutputTable, outputColumns } from './output-columns.js';
import type { NamedRow } from './output-index.js';

/** The message ids that the built-in simulator gives begin with this. */
const SIMULATED_MESSAGE_PREFIX = 'sim-';

/** What one pass over an output finds, besides what goes into the index. */
interface ScannedOutput extends TableEnd {
  /** Whether there are message ids of the simulator, and of a real API. */
  readonly hasSimulated: boolean;
  readonly hasReal: boolean;
}

/** What an output holds, without touching it. */
export interface InspectedOutput extends ScannedOutput {
  /** As the file was before it was read. */
  readonly stats: Stats;
}

export interface OpenOutputOptions extends OutputOptions {
  /** Whether there need not be one yet. */
  readonly create: boolean;
  /**
   * What `inspectOutput` has found with the same options: an output that nobody has touched since is not read a second
   * time.
   */
  readonly inspected?: InspectedOutput | undefined;
}

/** A row that is to be appended: the manifest's cells, then what it was described with. */
interface DescribedRow {
  readonly row: NamedRow & { readonly cells: readonly string[] };
  readonly outcome: DescribedOutcome;
}

/**
 * Reads and indexes an output as `OutputFile.open` does, but creates and changes nothing. What the index knew of it
 * before is forgotten.
 * @returns undefined when there is none
 * @throws {UsageError} as `OutputFile.open`
 */
export async function inspectOutput(options: OutputOptions): Promise<InspectedOutput | undefined> {
  options.index.forgetOwn();
  const handle = await openPlainFile(options.path, 'r', 'the output');
  if (handle === undefined) return undefined;
  try {
    const opened = await openOutputTable(handle, options);
    if (opened === undefined) return undefined;
    const stats = await handle.stat();
    return { ...(await scanOutput(outputAt(options.path), handle, opened.table, options)), stats };
  } finally {
    await handle.close();
  }
}

/** The output of a run, open for appending. Whoever opens it holds the output's lock. */
export class OutputFile {
  readonly #file: AppendFile;

  private constructor(
    /** The file itself, symbolic links followed. */
    readonly path: string,
    private readonly handle: FileHandle,
    private readonly table: CsvTable,
    private readonly options: OutputOptions,
    { end, ending }: TableEnd,
  ) {
    this.#file = new AppendFile(path, 'the output', handle, ending === 'no-line-end' ? end + 1 : end);
  }

  /**
   * Opens an output, or creates it with its header, and indexes it. A torn last record is cut, a missing last line end
   * added.
   * @throws {UsageError} when it cannot be continued with this manifest: what differs, or what is broken where
   * @throws {FatalError} when it cannot be created or rewritten
   */
  static async open(options: OpenOutputOptions): Promise<OutputFile> {
    const columns = outputColumns(options.columns);
    const empty = CsvTable.emptyText(columns, options.delimiter);
    if (options.create) await createFile(options.path, empty);
    const path = await realpath(options.path).catch(() => options.path);
    for (;;) {
      const handle = await openPlainFile(path, 'r+', 'the output');
      if (handle === undefined) throw new UsageError(`there is no output ${options.path}`);
      try {
        const opened = await openOutputTable(handle, options);
        if (opened?.isOutdated === false) {
          const scanned = await scanUnlessInspected(path, handle, opened.table, options);
          await repairEnd(path, handle, scanned);
          return new OutputFile(path, handle, opened.table, options, scanned);
        }
        // Both put another file in this one's place, which the next round opens.
        if (opened === undefined) await replaceFile(path, (temp) => temp.writeFile(empty));
        else await rewriteColumns(path, handle, opened.table, columns);
      } catch (error) {
        await handle.close();
        throw error;
      }
      await handle.close();
    }
  }

  /**
   * Appends and indexes rows. They are on disk when this returns, with one write and one fdatasync for all of them.
   * @throws {FatalError} when the file was deleted, replaced or changed meanwhile, or the disk takes no more. No further
   *   append is possible then.
   */
  async append(rows: readonly DescribedRow[]): Promise<void> {
    const { columns } = this.table;
    const lines = rows.map(({ row, outcome: { prompts, messageId, describedAt } }) => {
      const cells = [...row.cells, ...prompts, messageId, describedAt];
      if (cells.length !== columns.length)
        throw new RangeError(`a row has ${cells.length} cells, not ${columns.length}`);
      return this.table.format([cells]);
    });
    const offsets = await this.#file.append(lines);
    for (const [number, { row }] of rows.entries()) {
      this.options.index.addAppended({ image: row.image, key: row.key, offset: offsets[number] ?? 0 });
    }
  }

  /** See `readDescribed`. */
  async readDescribed(offset: number): Promise<DescribedOutcome> {
    return await readDescribed(outputAt(this.path), this.handle, this.table, offset);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** How messages name an output. */
function outputAt(path: string): string {
  return `the output ${path}`;
}

const TIMESTAMP = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`;
const WHOLE_TIMESTAMP = new RegExp(`^"?${TIMESTAMP}"?\r?$`);
const TIMESTAMP_AT_LINE_END = new RegExp(`${TIMESTAMP}"?\r?\n`);

/** Reads all rows of an output, or of an earlier one. */
async function forEachRow(
  what: string,
  handle: FileHandle,
  table: CsvTable,
  columns: readonly string[],
  visit: (rows: readonly TableRow[]) => void | Promise<void>,
  signal?: AbortSignal,
): Promise<TableEnd> {
  const { size } = await handle.stat();
  const wanted = table.columns.length;
  const reading = {
    ...{ what, size, signal },
    // `described_at` is the last cell: where it is whole, so is the row.
    isWhole: (cells: readonly string[]) =>
      cells.length === wanted && WHOLE_TIMESTAMP.test(cells.at(-1) ?? ''),
    // A record that was really torn holds no other row's end. Rows that a quote too many hides were paid for.
    hidesRows: (text: string) => TIMESTAMP_AT_LINE_END.test(text),
  };
  return await table.forEach(handle, columns, reading, visit);
}

/**
 * Reads an output from its first row on and indexes it.
 * @param file 0, or the number of an earlier output
 * @throws {UsageError} as `CsvTable.forEach`
 */
export async function scanOutput(
  what: string,
  handle: FileHandle,
  table: CsvTable,
  { columns, urlColumn, keyColumn, resolveUrl, index, signal }: OutputOptions,
  file = 0,
): Promise<ScannedOutput> {
  let [hasSimulated, hasReal] = [false, false];
  const named = [columns[urlColumn] ?? '', columns[keyColumn ?? -1] ?? '', 'message_id'];
  const addRows = (rows: readonly TableRow[]) => {
    for (const { cells, offset } of rows) {
      // A key column that is new to the output has no cell here, and its rows have the key that an empty cell is.
      const [url = '', key = '', message = ''] = cells;
      index.addFound({ image: resolveUrl(url), key, offset, file });
      if (message.startsWith(SIMULATED_MESSAGE_PREFIX)) hasSimulated = true;
      else if (message !== '') hasReal = true;
    }
  };
  const end = await forEachRow(what, handle, table, named, addRows, signal);
  return { ...end, hasSimulated, hasReal };
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
  table: CsvTable,
  offset: number,
): Promise<DescribedOutcome> {
  const cells = await table.readAt(handle, offset, OUTPUT_COLUMNS).catch((error: unknown) => {
    throw new FatalError(`${describeFileError(error)}: ${what} cannot be read`, { cause: error });
  });
  if (cells === undefined) {
    throw new FatalError(`${what} was changed while the run goes on: no row at byte ${offset}`);
  }
  const [one = '', two = '', three = '', four = '', messageId = '', describedAt = ''] = cells;
  return { status: 'described', prompts: [one, two, three, four], messageId, describedAt };
}

/**
 * Rewrites an output for a manifest that has more columns than it had: rows keep their cells, by column name, and
 * get empty ones in the columns that are new. A torn last record is left out. Atomic.
 * @throws {FatalError} when the new file cannot be written; the old one is untouched then
 */
async function rewriteColumns(
  path: string,
  handle: FileHandle,
  table: CsvTable,
  columns: readonly string[],
): Promise<void> {
  await replaceFile(path, async (temp) => {
    await temp.writeFile(CsvTable.emptyText(columns, table.delimiter));
    await forEachRow(outputAt(path), handle, table, columns, async (rows) => {
      const records = rows.map(({ cells }) => cells);
      await temp.writeFile(table.format(records));
    });
  });
}

async function repairEnd(path: string, handle: FileHandle, { end, ending }: TableEnd): Promise<void> {
  if (ending === 'whole') return;
  try {
    if (ending === 'torn') await handle.truncate(end);
    else await handle.write('\n', end);
    await handle.sync();
  } catch (error) {
    throw new FatalError(`${describeFileError(error)}: the end of the output ${path} cannot be repaired`, {
      cause: error,
    });
  }
}

/** What was found before, if the file is still what it was then. */
async function scanUnlessInspected(
  path: string,
  handle: FileHandle,
  table: CsvTable,
  options: OpenOutputOptions,
): Promise<TableEnd> {
  const { inspected, index } = options;
  const now = await handle.stat();
  const isUntouched = (['dev', 'ino', 'size', 'mtimeMs'] as const).every(
    (field) => inspected?.stats[field] === now[field],
  );
  if (inspected !== undefined && isUntouched) return inspected;
  index.forgetOwn();
  return await scanOutput(outputAt(path), handle, table, options);
}
