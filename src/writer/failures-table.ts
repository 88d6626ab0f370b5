import { readSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { type CsvRecord, formatCsv, parseCsv } from '../shared/csv.js';
import { FatalError, UsageError } from '../shared/errors.js';
import { type Hash64, HashTable, hashOfText } from '../shared/hash-table.js';
import { ERROR_CODES, type ErrorCode, type FailedOutcome } from '../shared/jobs.js';
import { type CsvHeader, forEachRecord, isTornHeader, readHeader } from './csv-file.js';
import type { OutputOptions } from './csv-output.js';
import { describeFileError, openPlainFile } from './durable-file.js';
import { partialPath } from './output-paths.js';

/** What the failures file has behind the manifest's columns, in this order. */
export const FAILURE_COLUMNS = ['error_code', 'error', 'attempts', 'message_id'] as const;

/** A row that failed, and how. */
export interface FailureRecord {
  readonly row: {
    /** The manifest's cells; a bad record may have too few or too many. */
    readonly cells: readonly string[];
    /** Only with a key column. */
    readonly key?: string | undefined;
    /** The image's hash, where the row's URL means one. */
    readonly image?: string | undefined;
  };
  readonly outcome: FailedOutcome;
}

/** What failures are read and written with: as for the output, with the failures file's own path. */
export type FailureOptions = Omit<OutputOptions, 'newColumns'>;

/** All columns of a failures file for a manifest with these. */
export function failureColumns(manifestColumns: readonly string[]): string[] {
  return [...manifestColumns, ...FAILURE_COLUMNS];
}

/**
 * Whether failures with this code are found anew by every run that reads the manifest, at no cost. Nothing
 * is known of such a row that the manifest does not say.
 */
export function isDecidedAnew(code: ErrorCode): boolean {
  return code === 'invalid-url' || code === 'bad-record' || code === 'duplicate-key';
}

/** The identity that a row has by its key, or by its image in a manifest without keys. */
export function identityOfName(name: string): Hash64 {
  return hashOfText(`name\0${name}`);
}

/** The name that a failure is asked for by. A bad record and a second row of a key have none: their key may be another row's. */
function nameOf({ row, outcome }: FailureRecord): string | undefined {
  return outcome.code === 'duplicate-key' || outcome.code === 'bad-record'
    ? undefined
    : (row.key ?? row.image);
}

/**
 * What a failure is about: its name, and for failures that every run finds anew the very record. A later failure takes
 * the place of every earlier one that it shares one of these with.
 */
export function identitiesOf(failure: FailureRecord, columns: readonly string[]): Hash64[] {
  const { code } = failure.outcome;
  const name = nameOf(failure);
  const identities = name === undefined ? [] : [identityOfName(name)];
  if (isDecidedAnew(code)) {
    identities.push(hashOfText(`record\0${code}\0${manifestCells(failure, columns).join('\0')}`));
  }
  return identities;
}

/** A bad record is brought to as many cells as there are columns. */
function manifestCells({ row }: FailureRecord, columns: readonly string[]): string[] {
  return columns.map((_, index) => row.cells[index] ?? '');
}

/** Failures as records of the file. */
export function formatFailures(
  failures: readonly FailureRecord[],
  { columns, delimiter }: FailureOptions,
): string {
  const records = failures.map((failure) => {
    const { code, reason, attempts, messageId } = failure.outcome;
    return [...manifestCells(failure, columns), code, reason, String(attempts), messageId ?? ''];
  });
  return formatCsv(records, delimiter);
}

/* Columns of a table's index: the bytes of the record. */
const START = 0;
const LENGTH = 1;

/** A failures file, or a partial one, open for reading. Its columns may be in any order. */
export class FailuresTable {
  readonly #places: readonly number[];
  /** By name: some 23 bytes a failure. What it says stays on disk. */
  readonly #index = new HashTable([6, 4]);

  private constructor(
    private readonly path: string,
    private readonly handle: FileHandle,
    private readonly header: CsvHeader,
    private readonly options: FailureOptions,
  ) {
    this.#places = failureColumns(options.columns).map((name) => header.columns.indexOf(name));
  }

  /**
   * @returns undefined when there is no such file, or it holds nothing
   * @throws {UsageError} when it is none of ours, or lacks the columns that tell rows apart
   */
  static async open(path: string, options: FailureOptions): Promise<FailuresTable | undefined> {
    const handle = await openPlainFile(path, 'r', 'the failures file');
    if (handle === undefined) return undefined;
    try {
      const header = await readFailuresHeader(handle, path, options);
      if (header !== undefined) return new FailuresTable(path, handle, header, options);
    } catch (error) {
      await handle.close();
      throw error;
    }
    await handle.close();
    return undefined;
  }

  /**
   * Calls `visit` with all failures, many at a time. What follows the last line end is a record in a failures file,
   * which is only ever replaced as a whole, and torn in a partial one.
   * @throws {UsageError} when a record has not as many cells as the header, with its line
   */
  async forEach(
    visit: (failures: readonly FailureRecord[], records: readonly CsvRecord[]) => void | Promise<void>,
  ): Promise<void> {
    const { path, handle, header, options } = this;
    const wanted = header.columns.length;
    const parseAndVisit = (records: readonly CsvRecord[]) => {
      const broken = records.find(({ cells }) => cells.length !== wanted);
      if (broken === undefined)
        return visit(
          records.map(({ cells }) => this.#parse(cells)),
          records,
        );
      throw new UsageError(
        `the failures file ${path} has ${broken.cells.length} cells in the record at line ${broken.line}, not ${wanted}; repair it or move it away`,
      );
    };
    const { size } = await handle.stat();
    const tail = await forEachRecord(handle, header, size, parseAndVisit, options.signal);
    if (tail === undefined || path === partialPath(options.path)) return;
    if (tail.record === undefined) {
      throw new UsageError(
        `the failures file ${path} has a quote too many or too few in the record at line ${tail.line}; repair it or move it away`,
      );
    }
    await parseAndVisit([tail.record]);
  }

  /**
   * Makes its failures known to `find`, of one name the last; those that cannot be asked for are left out.
   * @throws {UsageError} as `forEach`
   */
  async indexAll(isWanted: (failure: FailureRecord) => boolean = () => true): Promise<void> {
    await this.forEach((failures, records) => {
      for (const [number, failure] of failures.entries()) {
        const [name, record] = [nameOf(failure), records[number]];
        if (name !== undefined && record !== undefined && isWanted(failure)) this.index(name, record);
      }
    });
  }

  /** The failure in these bytes of the file is what `find` gives for this name. */
  index(name: string, { start, end }: { readonly start: number; readonly end: number }): void {
    const entry = this.#index.add(identityOfName(name));
    this.#index.set(entry, START, start);
    this.#index.set(entry, LENGTH, end - start);
  }

  /** Failures that can be found. */
  get size(): number {
    return this.#index.size;
  }

  has(name: string): boolean {
    return this.#index.find(identityOfName(name)) !== -1;
  }

  /** Reads what was indexed. Synchronous, since a decision on a row is: a few hundred bytes that were read a moment ago. */
  find(name: string): FailureRecord | undefined {
    const entry = this.#index.find(identityOfName(name));
    if (entry === -1) return undefined;
    const bytes = Buffer.alloc(this.#index.get(entry, LENGTH));
    try {
      readSync(this.handle.fd, bytes, 0, bytes.length, this.#index.get(entry, START));
      const [cells] = parseCsv(bytes, { delimiter: this.header.delimiter, relaxQuotes: true });
      if (cells?.length === this.header.columns.length) return this.#parse(cells);
    } catch (error) {
      throw new FatalError(`${describeFileError(error)}: the failures file ${this.path} cannot be read`, {
        cause: error,
      });
    }
    throw new FatalError(`the failures file ${this.path} was changed while the run goes on`);
  }

  async close(): Promise<void> {
    await this.handle.close();
  }

  #parse(stored: readonly string[]): FailureRecord {
    const { columns, urlColumn, keyColumn, resolveUrl } = this.options;
    const all = this.#places.map((place) => stored[place] ?? '');
    const cells = all.slice(0, columns.length);
    const [code, reason = '', attempts = '', messageId = ''] = all.slice(columns.length);
    return {
      row: {
        cells,
        key: keyColumn === undefined ? undefined : (cells[keyColumn] ?? ''),
        image: resolveUrl(cells[urlColumn] ?? ''),
      },
      outcome: {
        status: 'failed',
        // A code that somebody edited is taken for one that is tried again: its message may have been paid for.
        code: ERROR_CODES.find((known) => known === code) ?? 'lost',
        reason,
        attempts: /^\d{1,9}$/.test(attempts) ? Number(attempts) : 0,
        messageId: messageId === '' ? undefined : messageId,
      },
    };
  }
}

async function readFailuresHeader(
  handle: FileHandle,
  path: string,
  { columns, keyColumn, urlColumn, delimiter }: FailureOptions,
): Promise<CsvHeader | undefined> {
  if (await isTornHeader(handle, failureColumns(columns), delimiter)) return undefined;
  const header = await readHeader(handle, delimiter, (found) =>
    FAILURE_COLUMNS.every((name) => found.includes(name)),
  );
  const names = [urlColumn, keyColumn ?? urlColumn].map((column) => columns[column] ?? '');
  const missing = [...FAILURE_COLUMNS, ...names].find((name) => header?.columns.includes(name) !== true);
  if (missing === undefined) return header;
  throw new UsageError(
    `${path} is no failures file of this manifest: it has no column ${JSON.stringify(missing)}; move it away, or name another output with -o`,
  );
}
