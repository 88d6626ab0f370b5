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
import { type AnswerValue, answerCell } from '../shared/jobs.js';
import type { Cells, JsonCell } from '../shared/json-cells.js';
import {
  MAX_ROW_BYTES,
  type TableReading,
  type RowBytes,
  type Table,
  type TableEnd,
  broken,
  readBytes,
  readPieces,
} from './table.js';

const MAX_HEADER_BYTES = 1 << 20;
const MARK = Buffer.from([0xef, 0xbb, 0xbf]);

/** What a spreadsheet takes for a formula, and what would be taken for an escaped one. */
const FORMULA = /^'*[=+\-@\t\r]/;

function escapeFormula(cell: string): string {
  return FORMULA.test(cell) ? `'${cell}` : cell;
}

function unescapeFormula(cell: string): string {
  return cell.startsWith("'") && FORMULA.test(cell) ? cell.slice(1) : cell;
}

interface CsvLayout {
  readonly delimiter: string;
  /** Whether cells that a spreadsheet would take for formulas begin with an apostrophe in the file. */
  readonly escapeFormulas?: boolean | undefined;
  /** See `answerCell`. */
  readonly listSeparator?: string | undefined;
}

/** Rows as CSV, in files with a header that names the columns. */
export class CsvTable implements Table {
  constructor(
    readonly columns: readonly string[],
    private readonly layout: CsvLayout,
    /** Where the header begins, behind a byte order mark, and the first row. */
    private readonly start = 0,
    private readonly firstRow = 0,
  ) {}

  get delimiter(): string {
    return this.layout.delimiter;
  }

  get places(): RowBytes {
    return { from: this.firstRow, records: 1, delimiter: this.layout.delimiter };
  }

  isEmpty(size: number): boolean {
    return size <= this.firstRow;
  }

  header(): string {
    return formatCsv([this.columns], this.layout.delimiter);
  }

  cellOf(value: AnswerValue): JsonCell {
    return { cell: answerCell(value, this.layout.listSeparator), isJson: false };
  }

  format(rows: readonly Cells[]): string {
    const { delimiter, escapeFormulas } = this.layout;
    const records = rows.map(({ cells }) => (escapeFormulas ? cells.map(escapeFormula) : cells));
    return formatCsv(records, delimiter);
  }

  withColumns(columns: readonly string[]): CsvTable {
    return new CsvTable(columns, this.layout);
  }

  /** Takes the delimiter that makes the most of the header: people save files in spreadsheets. */
  async open(
    handle: FileHandle,
    fits: (columns: readonly string[]) => boolean,
  ): Promise<CsvTable | undefined> {
    const { layout } = this;
    const delimiters = new Set([layout.delimiter, ...USUAL_DELIMITERS]);
    const head = await readBytes(handle, 0, MAX_HEADER_BYTES);
    const start = head.subarray(0, MARK.length).equals(MARK) ? MARK.length : 0;
    let best = new CsvTable([], layout, start, start);
    for (const delimiter of delimiters) {
      const begun = Buffer.from(formatCsv([this.columns], delimiter));
      if (head.length < begun.length && begun.subarray(0, head.length).equals(head)) return undefined;
    }
    for (const delimiter of delimiters) {
      const [header] = await readRecordsAt(handle, start, delimiter, 1, MAX_HEADER_BYTES);
      if (header?.hasLineEnd !== true) continue;
      const table = new CsvTable(header.cells, { ...layout, delimiter }, start, header.end);
      if (fits(table.columns)) return table;
      if (table.columns.length > best.columns.length) best = table;
    }
    return best;
  }

  async forEach(handle: FileHandle, reading: TableReading): Promise<TableEnd> {
    const { columns, what, endsRow, signal, visit } = reading;
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

  async readAt(handle: FileHandle, offset: number, columns: readonly string[], count = 1) {
    const records = await readRecordsAt(handle, offset, this.layout.delimiter, count);
    if (records.some(({ cells }) => cells.length !== this.columns.length)) return [];
    const pick = this.#picker(columns);
    return records.map(({ cells }) => ({ cells: pick(cells) }));
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

function dialectAt(offset: number, delimiter: string): CsvDialect {
  return { delimiter, offset, relaxQuotes: true, maxRecordBytes: MAX_ROW_BYTES };
}

/** The records from an offset on, so many at most, blank lines left out; those before a flaw, where there is one. */
async function readRecordsAt(
  handle: FileHandle,
  offset: number,
  delimiter: string,
  count: number,
  maxBytes = Infinity,
): Promise<readonly CsvRecord[]> {
  const pieces = readPieces(handle, offset, offset + maxBytes, { record: true });
  const found: CsvRecord[] = [];
  try {
    for await (const records of readCsv(pieces, dialectAt(offset, delimiter))) {
      found.push(...records.slice(0, count - found.length));
      if (found.length === count) break;
    }
  } catch (error) {
    if (!(error instanceof CsvSyntaxError)) throw error;
  }
  return found;
}
