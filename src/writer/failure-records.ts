import type { FileHandle } from 'node:fs/promises';
import { UsageError } from '../shared/errors.js';
import type { Hash64 } from '../shared/hash-table.js';
import { ERROR_CODES, type ErrorCode, type FailedOutcome } from '../shared/outcome.js';
import { isTornHeader, readHeader, type CsvHeader } from './csv-header.js';
import { formatRecord } from './csv-format.js';
import { hashOfText } from '../shared/hashes.js';
import type { OutputOptions } from './open-output.js';
import { FAILURE_COLUMNS } from './output-columns.js';

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
 * is known of such a row that the manifest does not tell.
 */
export function isDecidedAnew(code: ErrorCode): boolean {
  return code === 'invalid-url' || code === 'bad-record' || code === 'duplicate-key';
}

/** One failed row as a line of the file. */
export function formatFailure({ row, outcome }: FailureRecord, options: FailureOptions): string {
  // A bad record is brought to as many cells as there are columns.
  const cells = options.columns.map((_, index) => row.cells[index] ?? '');
  const { code, reason, attempts, messageId } = outcome;
  return formatRecord([...cells, code, reason, String(attempts), messageId ?? ''], options.delimiter);
}

/**
 * What a failure is about. A later failure takes the place of every earlier one that it shares one of these with:
 * * the row's key; without a key column its image, since rows that share an image fail together;
 * * for failures that every run finds anew: the very record, since its key may be another row's.
 */
export function identitiesOf({ row, outcome }: FailureRecord, columns: readonly string[]): Hash64[] {
  const identities: Hash64[] = [];
  if (outcome.code !== 'duplicate-key' && outcome.code !== 'bad-record') {
    const name = row.key ?? row.image;
    if (name !== undefined) identities.push(identityOfName(name));
  }
  if (isDecidedAnew(outcome.code)) {
    const cells = columns.map((_, index) => row.cells[index] ?? '');
    identities.push(hashOfText(`record\0${outcome.code}\0${cells.join('\0')}`));
  }
  return identities;
}

/** The identity that a row has by its key, or by its image in a manifest without keys. */
export function identityOfName(name: string): Hash64 {
  return hashOfText(`name\0${name}`);
}

/** Turns records of a failures file into failures, whatever the order of its columns. */
export class FailureReader {
  readonly #places: readonly number[];

  /** @throws {UsageError} when the file is none of ours, or lacks the columns that tell rows apart */
  constructor(
    readonly header: CsvHeader,
    private readonly options: FailureOptions,
    path: string,
  ) {
    const { columns, urlColumn, keyColumn } = options;
    const needed = [...FAILURE_COLUMNS, columns[urlColumn] ?? ''];
    if (keyColumn !== undefined) needed.push(columns[keyColumn] ?? '');
    const missing = needed.find((name) => !header.columns.includes(name));
    if (missing !== undefined) {
      throw new UsageError(
        `${path} is no failures file of this manifest: it has no column ${JSON.stringify(missing)}; move it away, or name another output with -o`,
      );
    }
    this.#places = failureColumns(columns).map((name) => header.columns.indexOf(name));
  }

  /** @param stored all cells of a record, in the file's order */
  read(stored: readonly string[]): FailureRecord {
    const { columns, urlColumn, keyColumn, resolveUrl } = this.options;
    const all = this.#places.map((place) => stored[place] ?? '');
    const cells = all.slice(0, columns.length);
    const [code = '', reason = '', attempts = '', messageId = ''] = all.slice(columns.length);
    return {
      row: {
        cells,
        key: keyColumn === undefined ? undefined : (cells[keyColumn] ?? ''),
        image: resolveUrl(cells[urlColumn] ?? ''),
      },
      outcome: {
        status: 'failed',
        code: parseCode(code),
        reason,
        attempts: /^\d{1,9}$/.test(attempts) ? Number(attempts) : 0,
        messageId: messageId === '' ? undefined : messageId,
      },
    };
  }
}

/** A code that somebody edited is taken for one that is tried again: its message may have been paid for. */
function parseCode(text: string): ErrorCode {
  return ERROR_CODES.find((code) => code === text) ?? 'lost';
}

/**
 * Reads the header of a failures file.
 * @returns undefined when the file holds nothing
 * @throws {UsageError} when it is none of ours
 */
export async function readFailureHeader(
  handle: FileHandle,
  path: string,
  options: FailureOptions,
): Promise<FailureReader | undefined> {
  const columns = failureColumns(options.columns);
  if (await isTornHeader(handle, columns, options.delimiter)) return undefined;
  const header = await readHeader(handle, options.delimiter, (found) =>
    FAILURE_COLUMNS.every((name) => found.includes(name)),
  );
  return new FailureReader(header ?? { delimiter: options.delimiter, columns: [], end: 0 }, options, path);
}
