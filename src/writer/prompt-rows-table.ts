import type { FileHandle } from 'node:fs/promises';
import { UsageError } from '../shared/errors.js';
import { type AnswerValue, USAGE_COLUMNS } from '../shared/jobs.js';
import { type Cells, type JsonCell, toCells } from '../shared/json-cells.js';
import type { RowBytes, Table, TableEnd, TableReading, TableRow } from './table.js';

/** In the file, in the place of a column for each prompt. */
export const PROMPT_ROW_COLUMNS = ['prompt_number', 'prompt'] as const;

/**
 * Rows that take a line for each of their prompts in a file of another table (`--prompts-as rows`): whoever writes or reads
 * them knows columns of prompts only. The lines of a row follow one another, and its offset is that of the first, or the
 * number of the row where those of lines are numbers.
 */
export class PromptRowsTable implements Table {
  readonly columns: readonly string[];

  /**
   * @param lines the table of the file
   * @param prompts the columns of the prompts, which the file does not have
   * @param promptsBefore those that an existing file was written with
   */
  constructor(
    private readonly lines: Table,
    private readonly prompts: readonly string[],
    private readonly promptsBefore = prompts,
  ) {
    this.columns = inColumns(lines.columns, prompts);
  }

  get places(): RowBytes | number {
    const { places } = this.lines;
    return typeof places === 'number' ? places / this.#step : { ...places, records: this.prompts.length };
  }

  /** How many offsets of lines a row takes: one by its bytes, as many as it has lines where these are numbered. */
  get #step(): number {
    return typeof this.lines.places === 'number' ? this.prompts.length : 1;
  }

  isEmpty(size: number): boolean {
    return this.lines.isEmpty(size);
  }

  header(): string {
    return this.lines.header();
  }

  cellOf(value: AnswerValue): JsonCell {
    return this.lines.cellOf(value);
  }

  format(rows: readonly Cells[]): string {
    return this.lines.format(rows.flatMap((row) => this.#linesOf(row)));
  }

  /** What a row has cost is in its first line alone, so that sums over all lines are right. */
  #linesOf({ cells, isJson = [] }: Cells): Cells[] {
    const all = new Map(
      this.columns.map((name, at) => [name, { cell: cells[at] ?? '', isJson: isJson[at] ?? false }]),
    );
    const usage = USAGE_COLUMNS.map((name): [string, JsonCell] => [name, this.cellOf(null)]);
    return this.prompts.map((column, index) => {
      const ours = new Map<string, JsonCell | undefined>([
        ...(index === 0 ? [] : usage),
        ['prompt_number', this.cellOf(index + 1)],
        ['prompt', all.get(column)],
      ]);
      return toCells(this.lines.columns.map((name) => ours.get(name) ?? all.get(name) ?? this.cellOf(null)));
    });
  }

  withColumns(columns: readonly string[]): PromptRowsTable {
    return new PromptRowsTable(this.lines.withColumns(inRows(columns, this.prompts)), this.prompts);
  }

  /** A file that does not have rows of this kind is opened as what it is. */
  async open(handle: FileHandle, fits: (columns: readonly string[]) => boolean): Promise<Table | undefined> {
    const found = await this.lines.open(handle, (columns) => fits(inColumns(columns, this.prompts)));
    if (found === undefined || !isInRows(found.columns)) return found;
    // Without rows it may get any number of prompts.
    const isEmpty = found.isEmpty((await handle.stat()).size);
    return new PromptRowsTable(found, isEmpty ? this.prompts : this.promptsBefore);
  }

  /** A row that lacks some of its lines is torn as a whole. */
  async forEach(handle: FileHandle, reading: TableReading): Promise<TableEnd> {
    const { wanted, rowOf } = this.#reader(reading.columns);
    let begun: TableRow[] = [];
    const visit = async (lines: readonly TableRow[]) => {
      const rows: TableRow[] = [];
      for (const line of lines) {
        begun.push(line);
        if (line.cells[0] !== String(begun.length)) throw misplaced(reading.what, line, begun.length);
        if (begun.length < this.prompts.length) continue;
        rows.push({ ...rowOf(begun), offset: (begun[0]?.offset ?? 0) / this.#step });
        begun = [];
      }
      if (rows.length > 0) await reading.visit(rows);
    };
    const end = await this.lines.forEach(handle, { ...reading, columns: wanted, visit });
    const [first] = begun;
    if (first === undefined) return end;
    if (reading.endsRow === undefined) throw misplaced(reading.what, first, begun.length);
    return { end: first.offset, ending: 'torn' };
  }

  async readAt(handle: FileHandle, offset: number, columns: readonly string[], count = 1) {
    const { wanted, rowOf } = this.#reader(columns);
    const perRow = this.prompts.length;
    const lines = await this.lines.readAt(handle, offset * this.#step, wanted, count * perRow);
    if (lines.some(({ cells }, at) => cells[0] !== String((at % perRow) + 1))) return [];
    const rows = Math.floor(lines.length / perRow);
    return Array.from({ length: rows }, (_, row) => rowOf(lines.slice(row * perRow, (row + 1) * perRow)));
  }

  /** What is to be read of lines for columns of rows, and how it becomes a row. */
  #reader(columns: readonly string[]) {
    const others = columns.filter((name) => !this.prompts.includes(name));
    const places = columns.map((name) => {
      const prompt = this.prompts.indexOf(name);
      return prompt < 0 ? { line: 0, at: 2 + others.indexOf(name) } : { line: prompt, at: 1 };
    });
    const rowOf = (lines: readonly Cells[]): Required<Cells> => ({
      cells: places.map(({ line, at }) => lines[line]?.cells[at] ?? ''),
      isJson: places.map(({ line, at }) => lines[line]?.isJson?.[at] ?? false),
    });
    return { wanted: [...PROMPT_ROW_COLUMNS, ...others], rowOf };
  }
}

function misplaced(what: string, { cells, offset }: TableRow, expected: number): UsageError {
  return new UsageError(
    `${what} has the prompt_number ${JSON.stringify(cells[0])} at byte ${offset}, where ${expected} belongs; repair it, or move it away`,
  );
}

/** Whether a file with these columns has a line for each prompt. */
export function isInRows(columns: readonly string[]): boolean {
  return PROMPT_ROW_COLUMNS.every((name) => columns.includes(name));
}

function inColumns(columns: readonly string[], prompts: readonly string[]): readonly string[] {
  if (!isInRows(columns)) return columns;
  return columns.flatMap((name) => (name === 'prompt_number' ? prompts : name === 'prompt' ? [] : [name]));
}

/** The columns of the lines, of those of rows. */
export function inRows(columns: readonly string[], prompts: readonly string[]): string[] {
  const first = columns.findIndex((name) => prompts.includes(name));
  return columns.flatMap((name, index) => {
    if (index === first) return [...PROMPT_ROW_COLUMNS];
    return prompts.includes(name) ? [] : [name];
  });
}
