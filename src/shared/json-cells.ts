import { z } from 'zod';
import { messageOf } from './errors.js';
import type { AnswerValue } from './jobs.js';

/** A cell, and whether that is the JSON text of what is no string; an empty one is null then. */
export interface JsonCell {
  readonly cell: string;
  readonly isJson: boolean;
}

export const NULL_CELL: JsonCell = { cell: '', isJson: true };

export interface Cells {
  readonly cells: readonly string[];
  /** See `JsonCell`; undefined where all are strings. */
  readonly isJson?: readonly boolean[] | undefined;
}

export function toCells(cells: readonly JsonCell[]): Required<Cells> {
  return { cells: cells.map(({ cell }) => cell), isJson: cells.map(({ isJson }) => isJson) };
}

type JsonObject = Map<string, JsonCell>;

/**
 * Reads a JSON object of one line: strings as they are, anything else as its JSON text, digit for digit as it is
 * written: `JSON.parse` would round a number such as 12345678901234567890. Of a key that is there twice the last value counts.
 * @returns what is wrong with it, in a few words, when it is none
 */
export function readJsonObject(text: string): JsonObject | { readonly problem: string } {
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
      return { problem: 'JSON, but no object' };
  } catch (error) {
    // The engine's message quotes the text, which may be as long as a record can be.
    return { problem: `no JSON (${messageOf(error).slice(0, 120)})` };
  }
  return new Map(membersOf(text).map(([key, value]) => [String(JSON.parse(key)), readJsonCell(value)]));
}

/** What the JSON of a cell has at a path of keys; nothing where it is no object, or has no such keys. */
export function cellAt(cell: string, path: readonly string[] = []): string {
  return path.reduce((text, key) => objectIn(text)?.get(key)?.cell ?? '', cell);
}

/** The object that is written in a cell; undefined where there is none. */
export function objectIn(cell: string): JsonObject | undefined {
  const found = cell.trimStart().startsWith('{') ? readJsonObject(cell) : undefined;
  return found instanceof Map ? found : undefined;
}

/** The cell of a value's JSON text, without the line breaks of one that is indented: records are lines in JSON Lines. */
export function readJsonCell(value: string): JsonCell {
  if (value.startsWith('"')) return { cell: String(JSON.parse(value)), isJson: false };
  return { cell: value === 'null' ? '' : value.replace(/[\r\n]\s*/g, ''), isJson: true };
}

export function jsonCell(value: AnswerValue): JsonCell {
  if (typeof value === 'string') return { cell: value, isJson: false };
  return { cell: value === null ? '' : JSON.stringify(value), isJson: true };
}

export function jsonText(cell: string, isJson: boolean): string {
  if (!isJson) return JSON.stringify(cell);
  return cell === '' ? 'null' : cell;
}

/** The JSON text of an object, of what its keys and values are. */
export function objectText(members: readonly (readonly [key: string, value: string])[]): string {
  return `{${members.map(([key, value]) => `${JSON.stringify(key)}:${value}`).join(',')}}`;
}

const jsonSchema = z.json();

/** What the cells of a row are: texts, or what their JSON says. */
export function valuesOf({ cells, isJson = [] }: Cells): AnswerValue[] {
  return cells.map((cell, index) =>
    isJson[index] === true ? jsonSchema.parse(JSON.parse(jsonText(cell, true))) : cell,
  );
}

/** The keys and values of an object as they are written. @param text is known to be valid, which keeps this short */
function membersOf(text: string): [key: string, value: string][] {
  const members: [key: string, value: string][] = [];
  let depth = 0;
  let key = '';
  let start = 0;
  for (let position = 0; position < text.length; position++) {
    const char = text[position] ?? '';
    if (char === '"') position = endOfString(text, position);
    else if ('{['.includes(char) && ++depth === 1) start = position + 1;
    else if (char === ':' && depth === 1) {
      key = text.slice(start, position).trim();
      start = position + 1;
    } else if ((char === ',' && depth === 1) || ('}]'.includes(char) && --depth === 0)) {
      if (key !== '') members.push([key, text.slice(start, position).trim()]);
      start = position + 1;
    }
  }
  return members;
}

/** The place of the quote that closes the one at `open`. */
function endOfString(text: string, open: number): number {
  let position = open + 1;
  while (text[position] !== '"') position += text[position] === '\\' ? 2 : 1;
  return position;
}
