import type { FileHandle } from 'node:fs/promises';
import { type CsvRecord, CsvSyntaxError, USUAL_DELIMITERS, formatCsv, readCsv } from '../shared/csv.js';
import { UsageError } from '../shared/errors.js';

const CHUNK_BYTES = 1 << 20;
const RECORD_BYTES = 1 << 13;
const MAX_HEADER_BYTES = 1 << 20;
/** A row is shorter: this much of a torn record is looked at for the end of another. */
const MOST_TORN_BYTES = 1 << 26;
const MARK = Buffer.from([0xef, 0xbb, 0xbf]);

export interface TableRow {
  /** Of the columns that were asked for; empty where the table does not have them. */
  readonly cells: readonly string[];
  /** Where in the file it is read from. */
  readonly offset: number;
}

/** How a new table is begun. */
interface TableLayout {
  readonly columns: readonly string[];
  readonly delimiter: string;
  /** Whether cells that a spreadsheet would take for formulas begin with an apostrophe in the file. */
  readonly escapeFormulas?: boolean | undefined;
}

/** What a spreadsheet takes for a formula, and what would be taken for an escaped one. */
const FORMULA = /^'*[=+\-@\t\r]/;

function escapeFormula(cell: string): string {
  return FORMULA.test(cell) ? `'${cell}` : cell;
}

function unescapeFormula(cell: string): string {
  return cell.startsWith("'") && FORMULA.test(cell) ? cell.slice(1) : cell;
}

/** How a table ends. */
export interface TableEnd {
  /** Where the last whole row ends; what follows is torn. */
  readonly end: number;
  /** `no-line-end`: the last row is whole but for that. */
  readonly ending: 'whole' | 'torn' | 'no-line-end';
}

export interface ReadTableOptions {
  /** For messages: `the output out.csv`. */
  readonly what: string;
  /** Bytes that count: the file may grow meanwhile. */
  readonly size: number;
  /** Whether the last row is whole though it has no line end. */
  readonly isWhole: (cells: readonly string[]) => boolean;
  /** Whether a torn end holds rows, which a quote too many hides: it is not to be cut off. */
  readonly hidesRows: (text: string) => boolean;
  /** Ends the reading with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * How rows are laid out in an output or a failures file, here as CSV. Whoever writes or reads such a file knows columns,
 * rows and their offsets only: another format is another class like this one.
 */
export class CsvTable {
  private constructor(
    readonly columns: readonly string[],
    readonly delimiter: string,
    private readonly escapesFormulas: boolean,
    private readonly start: number,
    private readonly firstRow: number,
  ) {}

  /** What a table without rows consists of. */
  static emptyText(columns: readonly string[], delimiter: string): string {
    return formatCsv([columns], delimiter);
  }

  /** Rows as they are appended; all cells of each. */
  static format(
    rows: readonly (readonly string[])[],
    { delimiter, escapeFormulas = false }: Pick<TableLayout, 'delimiter' | 'escapeFormulas'>,
  ): string {
    return formatCsv(escapeFormulas ? rows.map((cells) => cells.map(escapeFormula)) : rows, delimiter);
  }

  /** More rows of this table. */
  format(rows: readonly (readonly string[])[]): string {
    const { delimiter, escapesFormulas: escapeFormulas } = this;
    return CsvTable.format(rows, { delimiter, escapeFormulas });
  }

  /**
   * Opens a table with the delimiter that makes the most of its header: people save files in spreadsheets.
   * @param expected how a new one would be begun
   * @param fits whether these are the columns looked for
   * @returns undefined when the file holds nothing yet: it is empty, or its creation was cut short
   */
  static async open(
    handle: FileHandle,
    expected: TableLayout,
    fits: (columns: readonly string[]) => boolean,
  ): Promise<CsvTable | undefined> {
    const { escapeFormulas = false } = expected;
    const delimiters = new Set([expected.delimiter, ...USUAL_DELIMITERS]);
    const { size } = await handle.stat();
    const head = await readBytes(handle, 0, Math.min(size, MAX_HEADER_BYTES));
    const isBegun = (delimiter: string) => {
      const header = Buffer.from(CsvTable.emptyText(expected.columns, delimiter));
      return head.length < header.length && header.subarray(0, head.length).equals(head);
    };
    if ([...delimiters].some(isBegun)) return undefined;
    const start = head.subarray(0, MARK.length).equals(MARK) ? MARK.length : 0;
    let best = new CsvTable([], expected.delimiter, escapeFormulas, start, start);
    for (const delimiter of delimiters) {
      const header = await readRecordAt(handle, start, delimiter, start + MAX_HEADER_BYTES);
      if (header?.hasLineEnd !== true) continue;
      const table = new CsvTable(header.cells, delimiter, escapeFormulas, start, header.end);
      if (fits(table.columns)) return table;
      if (table.columns.length > best.columns.length) best = table;
    }
    return best;
  }

  /**
   * Calls `visit` with the whole rows, many at a time.
   * @throws {UsageError} when a row has not as many cells as the header or is not UTF-8, or a quote hides rows, with the line
   */
  async forEach(
    handle: FileHandle,
    columns: readonly string[],
    { what, size, isWhole, hidesRows, signal }: ReadTableOptions,
    visit: (rows: readonly TableRow[]) => void | Promise<void>,
  ): Promise<TableEnd> {
    const broken = (line: number, trouble: string, more = '') =>
      new UsageError(
        `${what} has ${trouble} in the record at line ${line}${more}; repair it, or move it away`,
      );
    const wanted = this.columns.length;
    const pick = this.#picker(columns);
    const visitRows = (records: readonly CsvRecord[]) => {
      const odd = records.find(({ cells }) => cells.length !== wanted);
      if (odd !== undefined) throw broken(odd.line, `${odd.cells.length} cells`, `, not ${wanted}`);
      const recoded = records.find(({ invalidCell }) => invalidCell !== undefined);
      if (recoded !== undefined) {
        throw broken(
          recoded.line,
          'bytes that are not UTF-8',
          ' (has a spreadsheet saved it in another encoding?)',
        );
      }
      return visit(records.map(({ cells, start }) => ({ cells: pick(cells), offset: start })));
    };
    const dialect = { delimiter: this.delimiter, relaxQuotes: true, offset: this.start };
    let torn: { readonly start: number; readonly line: number } | undefined;
    try {
      for await (const records of readCsv(readPieces(handle, this.start, size, { signal }), dialect)) {
        const whole = records.filter(({ start, hasLineEnd }) => start >= this.firstRow && hasLineEnd);
        if (whole.length > 0) await visitRows(whole);
        const last = records.at(-1);
        if (last?.hasLineEnd !== false) continue;
        torn = last;
        if (!isWhole(last.cells)) continue;
        await visitRows([last]);
        return { end: size, ending: 'no-line-end' };
      }
    } catch (error) {
      if (!(error instanceof CsvSyntaxError)) throw error;
      torn = error;
    }
    if (torn === undefined) return { end: size, ending: 'whole' };
    const rest = await readBytes(handle, torn.start, Math.min(size - torn.start, MOST_TORN_BYTES));
    if (hidesRows(rest.toString('latin1'))) throw broken(torn.line, 'a quote too many or too few');
    return { end: torn.start, ending: 'torn' };
  }

  /**
   * Reads cells of a row.
   * @returns undefined when there is no row of such a table at this offset
   */
  async readAt(
    handle: FileHandle,
    offset: number,
    columns: readonly string[],
  ): Promise<readonly string[] | undefined> {
    const record = await readRecordAt(handle, offset, this.delimiter);
    return record?.cells.length === this.columns.length ? this.#picker(columns)(record.cells) : undefined;
  }

  #picker(columns: readonly string[]): (cells: readonly string[]) => string[] {
    const places = columns.map((name) => this.columns.indexOf(name));
    const read = this.escapesFormulas ? unescapeFormula : (cell: string) => cell;
    return (cells) => places.map((place) => read(cells[place] ?? ''));
  }
}

/** The record that starts at an offset, or the first one behind it that is not a blank line. */
async function readRecordAt(
  handle: FileHandle,
  offset: number,
  delimiter: string,
  end = Infinity,
): Promise<CsvRecord | undefined> {
  const pieces = readPieces(handle, offset, end, { pieceBytes: RECORD_BYTES });
  try {
    for await (const [first] of readCsv(pieces, { delimiter, relaxQuotes: true, offset })) {
      if (first !== undefined) return first;
    }
    return undefined;
  } catch (error) {
    if (!(error instanceof CsvSyntaxError)) throw error;
    return undefined;
  }
}

/** Reads a part of a file. Each piece is a buffer of its own: the parser keeps the end of one until the next. */
async function* readPieces(
  handle: FileHandle,
  from: number,
  to: number,
  { pieceBytes = CHUNK_BYTES, signal }: { pieceBytes?: number; signal?: AbortSignal | undefined },
): AsyncGenerator<Buffer, void> {
  for (let position = from; position < to;) {
    signal?.throwIfAborted();
    const piece = await readBytes(handle, position, Math.min(pieceBytes, to - position));
    if (piece.length === 0) return;
    position += piece.length;
    yield piece;
  }
}

async function readBytes(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(length), 0, length, position);
  return buffer.subarray(0, bytesRead);
}
