import type { FileHandle } from 'node:fs/promises';
import {
  type CsvDialect,
  type CsvFlaw,
  type CsvRecord,
  CsvSyntaxError,
  USUAL_DELIMITERS,
  formatCsv,
  readCsv,
} from '../shared/csv.js';
import { UsageError } from '../shared/errors.js';

const CHUNK_BYTES = 1 << 20;
const RECORD_BYTES = 1 << 13;
const MAX_HEADER_BYTES = 1 << 20;
/** Four times a manifest's longest record: what is longer has a quote that is not closed. */
const MAX_ROW_BYTES = 1 << 26;
const MARK = Buffer.from([0xef, 0xbb, 0xbf]);

export interface TableRow {
  /** Of the columns that were asked for; empty where the table does not have them. */
  readonly cells: readonly string[];
  /** Where in the file it is read from. */
  readonly offset: number;
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

interface ReadTableOptions {
  /** For messages: `the output out.csv`. */
  readonly what: string;
  /**
   * Whether a row ends with these cells, of a table whose end may be torn. A last row that lacks its line end is whole then,
   * and what seems torn is not to be cut off where a row ends in it: a quote too many hides that one.
   */
  readonly endsRow?: ((cells: readonly string[]) => boolean) | undefined;
  /** Ends the reading with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * How rows are laid out in an output or a failures file, here as CSV. Whoever writes or reads such a file knows columns,
 * rows and their offsets only: another format is another class like this one.
 */
export class CsvTable {
  /**
   * A table that is yet to be written.
   * @param layout.escapeFormulas whether cells that a spreadsheet would take for formulas begin with an apostrophe in the file
   */
  constructor(
    readonly columns: readonly string[],
    private readonly layout: { readonly delimiter: string; readonly escapeFormulas?: boolean | undefined },
    /** Where the header begins, behind a byte order mark, and the first row. */
    private readonly start = 0,
    private readonly firstRow = 0,
  ) {}

  get delimiter(): string {
    return this.layout.delimiter;
  }

  /** What the table consists of while it has no rows. */
  header(): string {
    return formatCsv([this.columns], this.layout.delimiter);
  }

  /** Rows as they are appended; all cells of each. */
  format(rows: readonly (readonly string[])[]): string {
    const { delimiter, escapeFormulas } = this.layout;
    return formatCsv(escapeFormulas ? rows.map((cells) => cells.map(escapeFormula)) : rows, delimiter);
  }

  /** The same table with other columns, yet to be written. */
  withColumns(columns: readonly string[]): CsvTable {
    return new CsvTable(columns, this.layout);
  }

  /**
   * Opens the table of a file with the delimiter that makes the most of its header: people save files in spreadsheets.
   * @param expected as it would be begun
   * @param fits whether these are the columns looked for
   * @returns undefined when the file holds nothing yet: it is empty, or its creation was cut short
   */
  static async open(
    handle: FileHandle,
    expected: CsvTable,
    fits: (columns: readonly string[]) => boolean,
  ): Promise<CsvTable | undefined> {
    const { layout } = expected;
    const delimiters = new Set([layout.delimiter, ...USUAL_DELIMITERS]);
    const head = await readBytes(handle, 0, MAX_HEADER_BYTES);
    const start = head.subarray(0, MARK.length).equals(MARK) ? MARK.length : 0;
    let best = new CsvTable([], layout, start, start);
    for (const delimiter of delimiters) {
      const begun = Buffer.from(formatCsv([expected.columns], delimiter));
      if (head.length < begun.length && begun.subarray(0, head.length).equals(head)) return undefined;
    }
    for (const delimiter of delimiters) {
      const header = await readRecordAt(handle, start, delimiter, MAX_HEADER_BYTES);
      if (header?.hasLineEnd !== true) continue;
      const table = new CsvTable(header.cells, { ...layout, delimiter }, start, header.end);
      if (fits(table.columns)) return table;
      if (table.columns.length > best.columns.length) best = table;
    }
    return best;
  }

  /**
   * Calls `visit` with the whole rows, many at a time. The file may grow meanwhile: what is there now counts.
   * @throws {UsageError} when a row has not as many cells as the header or is not UTF-8, or a quote hides rows, with the line
   */
  async forEach(
    handle: FileHandle,
    columns: readonly string[],
    { what, endsRow, signal }: ReadTableOptions,
    visit: (rows: readonly TableRow[]) => void | Promise<void>,
  ): Promise<TableEnd> {
    const { size } = await handle.stat();
    const wanted = this.columns.length;
    const pick = this.#picker(columns);
    const visitRows = (records: readonly CsvRecord[]) => {
      for (const { cells, line, invalidCell } of records) {
        if (cells.length !== wanted) throw broken(what, line, `${cells.length} cells`, `, not ${wanted}`);
        if (invalidCell === undefined) continue;
        const remedy = ' (has a spreadsheet saved it in another encoding?)';
        throw broken(what, line, 'bytes that are not UTF-8', remedy);
      }
      return visit(records.map(({ cells, start }) => ({ cells: pick(cells), offset: start })));
    };
    const pieces = readPieces(handle, this.start, size, { signal });
    let torn: { readonly start: number; readonly line: number; readonly flaw?: CsvFlaw } | undefined;
    try {
      for await (const records of readCsv(pieces, dialectAt(this.start, this.layout.delimiter))) {
        const whole = records.filter(({ start, hasLineEnd }) => start >= this.firstRow && hasLineEnd);
        if (whole.length > 0) await visitRows(whole);
        const last = records.at(-1);
        if (last?.hasLineEnd !== false) continue;
        torn = last;
        if (endsRow !== undefined && !(last.cells.length === wanted && endsRow(last.cells))) continue;
        await visitRows([last]);
        return { end: size, ending: 'no-line-end' };
      }
    } catch (error) {
      if (!(error instanceof CsvSyntaxError)) throw error;
      torn = error;
    }
    if (torn === undefined) return { end: size, ending: 'whole' };
    const rest = await readBytes(handle, torn.start, Math.min(size - torn.start, MAX_ROW_BYTES));
    if (endsRow === undefined || torn.flaw === 'record-too-long' || this.#holdsRow(rest, endsRow)) {
      throw broken(what, torn.line, 'a quote too many or too few');
    }
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
    const record = await readRecordAt(handle, offset, this.layout.delimiter);
    return record?.cells.length === this.columns.length ? this.#picker(columns)(record.cells) : undefined;
  }

  /** Whether a row ends in a text, if no quote of it counts. */
  #holdsRow(text: Buffer, endsRow: (cells: readonly string[]) => boolean): boolean {
    const lines = text.toString('latin1').split(/\r?\n/).slice(0, -1);
    return lines.some((line) =>
      endsRow(line.split(this.layout.delimiter).map((cell) => cell.replace(/^"|"$/g, ''))),
    );
  }

  #picker(columns: readonly string[]): (cells: readonly string[]) => string[] {
    const places = columns.map((name) => this.columns.indexOf(name));
    const read = this.layout.escapeFormulas ? unescapeFormula : (cell: string) => cell;
    return (cells) => places.map((place) => read(cells[place] ?? ''));
  }
}

function broken(what: string, line: number, trouble: string, more = ''): UsageError {
  return new UsageError(
    `${what} has ${trouble} in the record at line ${line}${more}; repair it, or move it away`,
  );
}

function dialectAt(offset: number, delimiter: string): CsvDialect {
  return { delimiter, offset, relaxQuotes: true, maxRecordBytes: MAX_ROW_BYTES };
}

/** The record that starts at an offset, or the first one behind it that is not a blank line. */
async function readRecordAt(
  handle: FileHandle,
  offset: number,
  delimiter: string,
  maxBytes = Infinity,
): Promise<CsvRecord | undefined> {
  const pieces = readPieces(handle, offset, offset + maxBytes, { pieceBytes: RECORD_BYTES });
  try {
    for await (const [first] of readCsv(pieces, dialectAt(offset, delimiter))) {
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
