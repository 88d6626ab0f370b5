import type { FileHandle } from 'node:fs/promises';
import { z } from 'zod';
import { parseJson } from '../shared/parse-json.js';
import { readBytes, readPieces, type RowBytes, type Table } from './table.js';

const LF = 0x0a;
const QUOTE = 0x22;
const CHUNK_ROWS = 1 << 16;
/** Whole rows of so many bytes are searched at once, or a longer one. */
const PIECE_BYTES = 1 << 21;
/** So many rows, where they cannot be searched as they are in the file. */
const ROWS_AT_ONCE = 1000;

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
  #search: Search | undefined;

  constructor(private readonly table: Table) {
    const { places } = table;
    this.#end = typeof places === 'number' ? 0 : places.from;
    if (typeof places === 'number') this.#rows = places;
  }

  get rows(): number {
    return this.#rows;
  }

  /** The share of the rows that the search under way has been through. */
  get searched(): number {
    return (this.#search?.next ?? 0) / Math.max(1, this.#rows);
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
    const { places } = this.table;
    if (this.#search?.text !== text) this.#search = new Search(text, this.table);
    const search = this.#search;
    while (search.next < this.#rows) {
      signal.throwIfAborted();
      const first = search.next;
      let next = first + 1;
      if (typeof places === 'number') {
        next = Math.min(this.#rows, first + ROWS_AT_ONCE);
        const rows = await this.table.readAt(handle, first, this.table.columns, next - first);
        for (const [at, { cells }] of rows.entries()) search.addIf(first + at, search.isIn(cells));
      } else {
        const start = this.offsetOf(first);
        while (next < this.#rows && this.offsetOf(next + 1) - start <= PIECE_BYTES) next++;
        const bytes = await readBytes(handle, start, this.offsetOf(next) - start);
        search.findIn(bytes.toString('latin1'), first, (row) => this.offsetOf(row) - start);
      }
      search.next = next;
    }
    return search.found;
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

/** A search through an output's rows as they are in the file, one character for each byte: nothing is decoded where nothing is found. */
class Search {
  readonly found: number[] = [];
  next = 0;
  readonly #lower: string;
  readonly #delimiter: string | undefined;
  readonly #pattern: RegExp;
  /** Whether what is around cells, or a key, may look like the text. */
  readonly #isAmbiguous: boolean;

  constructor(
    readonly text: string,
    table: Table,
  ) {
    const bytes: Partial<RowBytes> = typeof table.places === 'number' ? {} : table.places;
    this.#lower = text.toLowerCase();
    this.#delimiter = bytes.delimiter;
    this.#pattern = new RegExp(Array.from(text, (character) => this.#formsOf(character)).join(''), 'g');
    const around = table.format([{ cells: table.columns.map(() => '') }]);
    this.#isAmbiguous =
      this.#delimiter === undefined
        ? /["{}[\],:\\]/.test(text) || around.toLowerCase().includes(this.#lower)
        : text.includes(this.#delimiter) || /["\r\n]/.test(text);
  }

  isIn(cells: readonly string[]): boolean {
    return cells.some((cell) => cell.toLowerCase().includes(this.#lower));
  }

  addIf(row: number, isFound: boolean): void {
    if (isFound) this.found.push(row);
  }

  /** @param startOf where in the piece a row begins */
  findIn(piece: string, first: number, startOf: (row: number) => number): void {
    let row = first;
    this.#pattern.lastIndex = 0;
    for (let match = this.#pattern.exec(piece); match !== null; match = this.#pattern.exec(piece)) {
      while (startOf(row + 1) <= match.index) row++;
      const isCell = this.#isInCell(piece, startOf(row), match.index, startOf(row + 1));
      this.addIf(row, isCell);
      this.#pattern.lastIndex = isCell ? startOf(row + 1) : match.index + 1;
    }
  }

  #isInCell(piece: string, start: number, at: number, end: number): boolean {
    if (this.#delimiter !== undefined)
      return !this.#isAmbiguous || piece.slice(start, at).split('"').length % 2 === 0;
    if (!this.#isAmbiguous) {
      // A letter behind a backslash is none of the text: `\n` is a line's end.
      let escapes = 0;
      while (piece[at - 1 - escapes] === '\\') escapes++;
      return escapes % 2 === 0;
    }
    const lines = Buffer.from(piece.slice(start, end), 'latin1').toString().split('\n');
    const values = lines.flatMap((line) =>
      Object.values(rowSchema.safeParse(parseJson(line)).data ?? {}).flat(),
    );
    return this.isIn(values.map((value) => (typeof value === 'string' ? value : JSON.stringify(value))));
  }

  /** A character of the text as it may be in the file. */
  #formsOf(character: string): string {
    const forms = new Set([character, character.toLowerCase(), character.toUpperCase()]);
    const written = [...forms].map((form) =>
      this.#delimiter === undefined ? JSON.stringify(form).slice(1, -1) : form.replaceAll('"', '""'),
    );
    const bytes = written.map((form) => Buffer.from(form).toString('latin1'));
    return `(?:${bytes.map((form) => form.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')).join('|')})`;
  }
}
