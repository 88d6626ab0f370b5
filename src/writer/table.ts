import type { FileHandle } from 'node:fs/promises';
import { UsageError } from '../shared/errors.js';
import type { AnswerValue } from '../shared/jobs.js';
import type { Cells, JsonCell } from '../shared/json-cells.js';

/** Four times a manifest's longest record: what is longer is broken. */
export const MAX_ROW_BYTES = 1 << 26;
/** As streams of Node.js do: the rows of a piece are in memory together, 20 MB more with pieces of 1 MB. */
const CHUNK_BYTES = 1 << 16;
const RECORD_BYTES = 1 << 13;

/** A row, of the columns that were asked for; empty where the table does not have them. */
export interface TableRow extends Cells {
  /** Where in the file it is read from. */
  readonly offset: number;
}

/** How a table ends. */
export interface TableEnd {
  /** Where the last whole row ends; what follows is torn. */
  readonly end: number;
  /** `no-line-end`: the last row is whole but for that. */
  readonly ending: 'whole' | 'torn' | 'no-line-end';
}

/** What is to be read of a table. */
export interface TableReading {
  readonly columns: readonly string[];
  /** For messages: `the output out.csv`. */
  readonly what: string;
  /**
   * Whether a row ends with these cells, of a table whose end may be torn. A last row that lacks its line end is whole then,
   * and what seems torn is not to be cut off where a row ends in it: a quote too many hides that one.
   */
  readonly endsRow?: ((cells: readonly string[]) => boolean) | undefined;
  /** Ends the reading with its reason. */
  readonly signal?: AbortSignal | undefined;
  /** Gets the whole rows, many at a time. */
  readonly visit: (rows: readonly TableRow[]) => void | Promise<void>;
}

/** Where in a file's bytes the rows of a table are, for who looks for them without reading all cells. */
export interface RowBytes {
  /** Where the first one begins. */
  readonly from: number;
  /** How many records it takes. */
  readonly records: number;
  /** Of a CSV; in JSON Lines each line is a record. */
  readonly delimiter?: string;
}

/**
 * How rows are laid out in a file. Whoever writes or reads it knows columns, rows and their offsets only: another format
 * is another class like these.
 */
export interface Table {
  readonly columns: readonly string[];
  /** Where the rows are; or how many, where an offset is the number of a row. */
  readonly places: RowBytes | number;
  /** Whether a file of so many bytes holds no row, nor the beginning of one. */
  isEmpty(size: number): boolean;
  /** What the table consists of while it has no rows. */
  header(): string;
  /** A value of an answer as a cell. */
  cellOf(value: AnswerValue): JsonCell;
  /** Rows as they are appended; all cells of each. */
  format(rows: readonly Cells[]): string;
  /** The same table with other columns, yet to be written. */
  withColumns(columns: readonly string[]): Table;
  /**
   * Opens the table that a file holds, where this one would be begun.
   * @param fits whether these are the columns looked for
   * @returns undefined when the file holds nothing yet: its creation was cut short
   */
  open(handle: FileHandle, fits: (columns: readonly string[]) => boolean): Promise<Table | undefined>;
  /**
   * Reads all whole rows. The file may grow meanwhile: what is there now counts.
   * @throws {UsageError} when what is there is no row of this table or not UTF-8, with the line
   */
  forEach(handle: FileHandle, reading: TableReading): Promise<TableEnd>;
  /**
   * Reads cells of a row, or of as many as are asked for from there on.
   * @returns nothing when there is no row of such a table at this offset
   */
  readAt(
    handle: FileHandle,
    offset: number,
    columns: readonly string[],
    count?: number,
  ): Promise<readonly Cells[]>;
}

export function broken(what: string, line: number, trouble: string, more = ''): UsageError {
  return new UsageError(
    `${what} has ${trouble} in the record at line ${line}${more}; repair it, or move it away`,
  );
}

/**
 * Reads a part of a file: all of it, or with `record` only as much as a record mostly has. Each piece is a buffer of its
 * own: parsers keep the end of one until the next.
 */
export async function* readPieces(
  handle: FileHandle,
  from: number,
  to: number,
  { signal, record = false }: { signal?: AbortSignal | undefined; record?: boolean } = {},
): AsyncGenerator<Buffer, void> {
  const pieceBytes = record ? RECORD_BYTES : CHUNK_BYTES;
  for (let position = from; position < to;) {
    signal?.throwIfAborted();
    const piece = await readBytes(handle, position, Math.min(pieceBytes, to - position));
    if (piece.length === 0) return;
    position += piece.length;
    yield piece;
  }
}

export async function readBytes(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(length), 0, length, position);
  return buffer.subarray(0, bytesRead);
}
