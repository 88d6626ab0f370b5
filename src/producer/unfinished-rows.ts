import type { Row } from './row-reader.js';

/** A row that a pass over the manifest has met, and the output does not hold. */
export interface UnfinishedRow {
  readonly row: Row;
  /** Whether an earlier row has its key. */
  readonly isRepeated: boolean;
}

/** Beyond either of these the manifest is read again in place of keeping its rows in memory. */
const MOST_ROWS = 10_000;
const MOST_CHARACTERS = 4 * 1024 * 1024;
/** What a cell takes beside its text. */
const CELL_CHARACTERS = 16;

/**
 * The rows that are left to do, kept from the pass that counts a manifest for the preview. Where they are few, as when
 * a large output is resumed or a nightly manifest has grown a little, the manifest is not read a second time.
 */
export class UnfinishedRows {
  #rows: UnfinishedRow[] = [];
  #characters = 0;
  #isTooMuch = false;
  #total: number | undefined;

  /** Rows of the whole manifest. */
  get total(): number {
    return this.#total ?? 0;
  }

  /** In the manifest's order. */
  get rows(): readonly UnfinishedRow[] {
    return this.#rows;
  }

  /** Whether these are all: the pass went to the manifest's end, and they were few enough. */
  get isWhole(): boolean {
    return this.#total !== undefined && !this.#isTooMuch;
  }

  add(row: Row, isRepeated: boolean): void {
    if (this.#isTooMuch) return;
    this.#characters += row.cells.reduce((sum, cell) => sum + CELL_CHARACTERS + cell.length, 0);
    this.#rows.push({ row: row.problem?.code === 'bad-record' ? detached(row) : row, isRepeated });
    if (this.#rows.length <= MOST_ROWS && this.#characters <= MOST_CHARACTERS) return;
    this.#isTooMuch = true;
    this.#rows = [];
  }

  /** The pass has come to the manifest's end. */
  end(total: number): void {
    this.#total = total;
  }
}

/** Cells are pieces of their record's text, and keep all of it; a bad record may have had a surplus cell of megabytes. */
function detached(row: Row): Row {
  return { ...row, cells: structuredClone(row.cells) };
}
