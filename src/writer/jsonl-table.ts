import type { FileHandle } from 'node:fs/promises';
import { z } from 'zod';
import {
  type Cells,
  type JsonCell,
  NULL_CELL,
  jsonCell,
  jsonText,
  objectText,
  readJsonObject,
  toCells,
} from '../shared/json-cells.js';
import { type TextLine, readLines } from '../shared/lines.js';
import { parseJson } from '../shared/parse-json.js';
import {
  MAX_ROW_BYTES,
  type TableReading,
  type RowBytes,
  type Table,
  type TableEnd,
  type TableRow,
  broken,
  readPieces,
} from './table.js';

/** In the file, several prompts are one list. */
export const PROMPTS = 'prompts';

function promptColumn(index: number): string {
  return `prompt_${index + 1}`;
}

const promptsSchema = z.array(z.json());

type Parsed = ReadonlyMap<string, JsonCell> | { readonly problem: string };

/** Rows as JSON Lines: numbers, lists and nulls are such, and the keys of the first row are the columns. */
export class JsonlTable implements Table {
  /** Where the prompts begin among the columns, and how many follow one another as a list is read back. */
  readonly #prompts: { readonly first: number; readonly count: number };

  /** @param answerColumns the others are the manifest's, whatever they are called */
  constructor(
    readonly columns: readonly string[],
    protected readonly answerColumns: readonly string[],
  ) {
    const first = columns.indexOf(promptColumn(0));
    const others = columns
      .slice(first)
      .findIndex((name, index) => name !== promptColumn(index) || !answerColumns.includes(name));
    this.#prompts = { first, count: columns.includes(PROMPTS) ? 0 : others };
  }

  get places(): RowBytes | number {
    return { from: 0, records: 1 };
  }

  isEmpty(size: number): boolean {
    return size === 0;
  }

  header(): string {
    return '';
  }

  cellOf = jsonCell;

  format(rows: readonly Cells[]): string {
    return rows.map((row) => `${this.#formatRow(row)}\n`).join('');
  }

  #formatRow({ cells, isJson = [] }: Cells): string {
    const texts = cells.map((cell, index) => jsonText(cell, isJson[index] ?? false));
    const members = this.columns.map((name, index): [string, string] => [name, texts[index] ?? 'null']);
    const { first, count } = this.#prompts;
    const prompts = texts.slice(first, first + count);
    if (count > 0) members.splice(first, count, [PROMPTS, `[${prompts.join(',')}]`]);
    return objectText(members);
  }

  withColumns(columns: readonly string[]): JsonlTable {
    return new JsonlTable(columns, this.answerColumns);
  }

  async open(handle: FileHandle): Promise<JsonlTable> {
    const [first] = await readLinesAt(handle, 0, 1);
    // A new file is empty, or a kill has left the beginning of its first row.
    if (first === undefined || this.#isTorn(first)) return this;
    const found = this.#parse(first);
    return this.withColumns('problem' in found ? [] : [...found.keys()]);
  }

  /** Whether a line is what a kill has left of a row, and not what another program has left of its own. */
  #isTorn(line: TextLine): boolean {
    const begun = `{${JSON.stringify(this.columns[0])}:`;
    const isOurs = line.text.startsWith(begun) || begun.startsWith(line.text);
    return isOurs && this.#isCut(line);
  }

  /** Nothing is missing of an object that is closed, whoever has taken its line end away. */
  #isCut(line: TextLine): boolean {
    return !line.hasLineEnd && 'problem' in this.#parse(line);
  }

  async forEach(handle: FileHandle, reading: TableReading): Promise<TableEnd> {
    const { columns, what, endsRow, signal, visit } = reading;
    const { size } = await handle.stat();
    const pieces = readPieces(handle, 0, size, { signal });
    for await (const lines of readLines(pieces, { name: what, maxBytes: MAX_ROW_BYTES })) {
      const rows: TableRow[] = [];
      let torn: TextLine | undefined;
      for (const line of lines) {
        const found = this.#readRow(line);
        if (endsRow !== undefined && this.#isCut(line)) torn = line;
        else if ('problem' in found) throw broken(what, line.line, found.problem);
        else rows.push({ ...pick(found, columns), offset: line.start });
      }
      if (rows.length > 0) await visit(rows);
      if (torn !== undefined) return { end: torn.start, ending: 'torn' };
      if (lines.at(-1)?.hasLineEnd === false) return { end: size, ending: 'no-line-end' };
    }
    return { end: size, ending: 'whole' };
  }

  async readAt(handle: FileHandle, offset: number, columns: readonly string[], count = 1) {
    const lines = await readLinesAt(handle, offset, count);
    const found = lines.map((line) => this.#readRow(line));
    return found.flatMap((row) => ('problem' in row ? [] : [pick(row, columns)]));
  }

  #readRow(line: TextLine): Parsed {
    const found = this.#parse(line);
    if ('problem' in found) return found;
    const missing = this.columns.find((name) => !found.has(name));
    if (missing !== undefined) return { problem: `no ${JSON.stringify(missing)}` };
    const surplus = [...found.keys()].find((name) => !this.columns.includes(name));
    return surplus === undefined ? found : { problem: `a ${JSON.stringify(surplus)} that others lack` };
  }

  #parse({ text, isValid }: TextLine): Parsed {
    if (!isValid) return { problem: 'bytes that are not UTF-8' };
    const members = readJsonObject(text);
    return 'problem' in members ? members : this.promptsApart(members);
  }

  /**
   * In memory, the list of prompts is a column for each. A list of the manifest's that is called so has them beside it, or is
   * among the columns where no prompts are known of.
   */
  protected promptsApart(members: Map<string, JsonCell>): Map<string, JsonCell> {
    const isOther =
      members.has(promptColumn(0)) ||
      (this.columns.includes(PROMPTS) && !this.answerColumns.includes(promptColumn(0)));
    const found = isOther ? undefined : members.get(PROMPTS);
    const list = found && promptsSchema.safeParse(parseJson(found.cell));
    if (list?.success !== true) return members;
    const prompts = list.data.map((prompt, index): [string, JsonCell] => [
      promptColumn(index),
      jsonCell(prompt),
    ]);
    return new Map([...members].flatMap((member) => (member[0] === PROMPTS ? prompts : [member])));
  }
}

async function readLinesAt(handle: FileHandle, offset: number, count: number): Promise<readonly TextLine[]> {
  const pieces = readPieces(handle, offset, Infinity, { record: true });
  const found: TextLine[] = [];
  for await (const lines of readLines(pieces, { name: 'the output', maxBytes: MAX_ROW_BYTES, offset })) {
    found.push(...lines.slice(0, count - found.length));
    if (found.length === count) break;
  }
  return found;
}

export function pick(found: ReadonlyMap<string, JsonCell>, columns: readonly string[]): Required<Cells> {
  return toCells(columns.map((name) => found.get(name) ?? NULL_CELL));
}
