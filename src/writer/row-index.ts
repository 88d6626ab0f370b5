import type { FileHandle } from 'node:fs/promises';
import { parse } from 'csv-parse/sync';
import { z } from 'zod';
import { parseJson } from '../shared/parse-json.js';
import { type Table, readBytes, readPieces } from './table.js';

const LF = 0x0a;
const QUOTE = 0x22;
const CHUNK_ROWS = 1 << 16;
/** Whole rows of so many bytes are searched at once, or a longer one. */
const PIECE_BYTES = 1 << 21;
/** So many rows, where they cannot be searched as they are in the file. */
const ROWS_AT_ONCE = 1000;
/** So many searches go on where they ended: those that were asked for last. */
const MOST_SEARCHES = 4;

const rowSchema = z.record(z.string(), z.unknown());

/**
 * Where the rows of an output begin, and which of them hold a text: 8 bytes a row, and none of its cells. Both go on where they
 * ended when the file has grown. What follows the last whole row is not there yet.
 *
 * Quotes are taken to be as this program writes them. Where somebody else has put one into the middle of a cell, rows behind it
 * cannot be read by these offsets until the next such quote.
 */
export class RowIndex {
  readonly #offsets: Float64Array[] = [];
  #rows = 0;
  /** Where the last whole row ends. */
  #end: number;
  /** By their texts; the one that was asked for last is the last. */
  readonly #searches = new Map<string, { readonly found: number[]; next: number }>();

  constructor(private readonly table: Table) {
    const { places } = table;
    this.#end = typeof places === 'number' ? 0 : places.from;
    if (typeof places === 'number') this.#rows = places;
  }

  get rows(): number {
    return this.#rows;
  }

  /** The share of the rows that the search for a text has been through. */
  searched(text: string): number {
    return (this.#searches.get(text)?.next ?? 0) / Math.max(1, this.#rows);
  }

  /** How far the file is known. */
  get bytes(): number {
    return this.#end;
  }

  /** Of a row that is there. */
  offsetOf(row: number): number {
    if (typeof this.table.places === 'number') return row;
    return row === this.#rows
      ? this.#end
      : (this.#offsets[Math.floor(row / CHUNK_ROWS)]?.[row % CHUNK_ROWS] ?? 0);
  }

  /** Takes in the rows that have come. @throws the signal's reason when it aborts, and goes on the next time */
  async refresh(handle: FileHandle, signal: AbortSignal): Promise<void> {
    const { places } = this.table;
    if (typeof places === 'number') return;
    const { records, delimiter } = places;
    const { size } = await handle.stat();
    let position = this.#end;
    let [begun, start, isQuoted] = [0, position, false];
    for await (const piece of readPieces(handle, position, size, { signal })) {
      for (let at = 0; at < piece.length; at++) {
        const byte = piece[at];
        if (byte === QUOTE && delimiter !== undefined) isQuoted = !isQuoted;
        if (byte !== LF || isQuoted) continue;
        const end = position + at + 1;
        // Blank lines are none.
        if (end - start > 2 && ++begun === records) {
          this.#add(this.#end, end);
          begun = 0;
        } else if (begun === 0) this.#end = end;
        start = end;
      }
      position += piece.length;
    }
  }

  /**
   * The rows that have a text in one of their cells, whether in upper or lower case, in order.
   * @throws the signal's reason when it aborts, and goes on the next time
   */
  async search(handle: FileHandle, text: string, signal: AbortSignal): Promise<readonly number[]> {
    const search = this.#searches.get(text) ?? { found: [], next: 0 };
    this.#searches.delete(text);
    this.#searches.set(text, search);
    const [oldest = ''] = this.#searches.keys();
    if (this.#searches.size > MOST_SEARCHES) this.#searches.delete(oldest);
    const isIn = matcher(text, this.table);
    while (search.next < this.#rows) {
      signal.throwIfAborted();
      const rows = await this.#rowsFrom(handle, search.next);
      for (const [at, row] of rows.entries()) if (isIn(row)) search.found.push(search.next + at);
      search.next += Math.max(1, rows.length);
    }
    return search.found;
  }

  /** Some rows from one on, each as it is in the file or, where that does not hold them one by one, its cells. */
  async #rowsFrom(handle: FileHandle, first: number): Promise<readonly (string | readonly string[])[]> {
    const { places, columns } = this.table;
    if (typeof places === 'number') {
      const rows = await this.table.readAt(handle, first, columns, ROWS_AT_ONCE);
      return rows.map(({ cells }) => cells);
    }
    const start = this.offsetOf(first);
    let next = first + 1;
    while (next < this.#rows && this.offsetOf(next + 1) - start <= PIECE_BYTES) next++;
    const bytes = await readBytes(handle, start, this.offsetOf(next) - start);
    const textOf = (row: number) =>
      bytes.toString('utf8', this.offsetOf(row) - start, this.offsetOf(row + 1) - start);
    return Array.from({ length: next - first }, (_, at) => textOf(first + at));
  }

  #add(start: number, end: number): void {
    const at = this.#rows % CHUNK_ROWS;
    if (at === 0) this.#offsets.push(new Float64Array(CHUNK_ROWS));
    const chunk = this.#offsets.at(-1);
    if (chunk !== undefined) chunk[at] = start;
    this.#rows++;
    this.#end = end;
  }
}

/**
 * Whether a row has a text in a cell, by the row as it is in the file or by its cells. Only what has the text as it would be
 * written there is parsed, and of a CSV only where the text may also be what is between cells.
 */
function matcher(text: string, { places }: Table): (row: string | readonly string[]) => boolean {
  const lower = folded(text);
  const isInCells = (cells: readonly string[]) => cells.some((cell) => folded(cell).includes(lower));
  const delimiter = typeof places === 'number' ? undefined : places.delimiter;
  const written = delimiter === undefined ? JSON.stringify(lower).slice(1, -1) : lower.replaceAll('"', '""');
  const isPlain = delimiter !== undefined && !text.includes(delimiter) && !/["\r\n]/.test(text);
  return (row) => {
    if (typeof row !== 'string') return isInCells(row);
    if (!folded(row).includes(written)) return false;
    return isPlain || isInCells(delimiter === undefined ? jsonCells(row) : csvCells(row, delimiter));
  };
}

/** In lower case; a sigma is one letter wherever it stands. */
function folded(text: string): string {
  return text.toLowerCase().replaceAll('ς', 'σ');
}

function jsonCells(row: string): string[] {
  const values = row
    .split('\n')
    .flatMap((line) => Object.values(rowSchema.safeParse(parseJson(line)).data ?? {}));
  return values.flat().map((value) => (typeof value === 'string' ? value : JSON.stringify(value)));
}

function csvCells(row: string, delimiter: string): string[] {
  return parse(row, {
    delimiter,
    relax_quotes: true,
    relax_column_count: true,
    skip_records_with_error: true,
  }).flat();
}
