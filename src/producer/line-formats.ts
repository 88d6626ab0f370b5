import { isUtf8 } from 'node:buffer';
import { FatalError, UsageError, messageOf } from '../shared/errors.js';
import { checkColumnNames } from './columns.js';
import {
  MAX_RECORD_BYTES,
  type ManifestRecord,
  type RecordBatches,
  readAhead,
  textFormat,
} from './manifest-format.js';

const LF = 0x0a;
const CR = 0x0d;
/** The columns are the keys of this many records. */
const HEAD_RECORDS = 100;
/** A file whose first lines, this many, hold no object at all is something else than JSON Lines. */
const FIRST_RECORDS = 10;

/** A list: one URL a line, in one column named `url`. */
export const openList = textFormat((bytes, { name }) => {
  const batches = readRecords(readLines(bytes, name), ({ line, text, isValid }, number) => ({
    line,
    number,
    cells: [text],
    ...(!isValid && { problem: 'not valid UTF-8' }),
  }));
  return Promise.resolve({ columns: ['url'], delimiter: ',', batches });
});

type Parsed = { readonly cells: ReadonlyMap<string, string> } | { readonly problem: string };

/** JSON Lines. The columns are the keys of the first 100 records in the order in which they appear. */
export const openJsonl = textFormat(async (bytes, { name, columns: known }) => {
  const lines = readLines(bytes, name);
  const { ahead, all } = await readAhead(lines, (taken) => taken.flat().length >= HEAD_RECORDS);
  const columns = known ?? findColumns(ahead.flat().slice(0, HEAD_RECORDS), name);
  const keys = new Set(columns);
  const batches = readRecords(all, (line, number) => recordOf(line, number, keys));
  return { columns, delimiter: ',', batches };
});

function findColumns(lines: readonly TextLine[], name: string): readonly string[] {
  if (lines[0]?.text.trimStart().startsWith('[')) {
    throw new UsageError(`${name} is a JSON array: make JSON Lines of it, one object a line (jq -c '.[]')`);
  }
  const records = lines.map(parseLine);
  const first = records.slice(0, FIRST_RECORDS);
  const [problem] = first.flatMap((record) => ('problem' in record ? [record.problem] : []));
  if (problem !== undefined && first.every((record) => 'problem' in record)) {
    throw new UsageError(
      `${name} is no JSON Lines, which is one object a line: its first record is ${problem}`,
    );
  }
  const columns = [
    ...new Set(records.flatMap((record) => ('cells' in record ? [...record.cells.keys()] : []))),
  ];
  if (records.length > 0 && columns.length === 0) throw new UsageError(`${name}: its objects have no keys`);
  checkColumnNames(columns, name);
  return columns;
}

async function* readRecords(
  lines: AsyncIterable<readonly TextLine[]>,
  toRecord: (line: TextLine, number: number) => ManifestRecord,
): RecordBatches {
  let number = 0;
  for await (const some of lines) yield some.map((line) => toRecord(line, ++number));
}

/** @param columns in their order */
function recordOf(line: TextLine, number: number, columns: ReadonlySet<string>): ManifestRecord {
  const parsed = parseLine(line);
  if ('problem' in parsed) {
    return { line: line.line, number, cells: Array.from(columns, () => ''), problem: parsed.problem };
  }
  const record = {
    line: line.line,
    number,
    cells: Array.from(columns, (column) => parsed.cells.get(column) ?? ''),
  };
  const unknown = [...parsed.cells.keys()].filter((key) => !columns.has(key));
  if (unknown.length === 0) return record;
  // What is kept of the record is not to hold megabytes of what is left out: a piece of a text holds all of it.
  return { ...record, cells: structuredClone(record.cells), unknownKeys: structuredClone(unknown) };
}

function parseLine({ text, isValid }: TextLine): Parsed {
  if (!isValid) return { problem: 'not valid UTF-8' };
  try {
    const cells = readJsonObject(text);
    return cells === undefined ? { problem: 'JSON, but no object' } : { cells };
  } catch (error) {
    // The engine's message quotes the text, which may be as long as a record can be.
    return { problem: `no JSON (${messageOf(error).slice(0, 120)})` };
  }
}

/**
 * Reads a JSON object of one line into cells: strings as they are, null as an empty cell, anything else as its
 * JSON text, character for character as it is written: `JSON.parse` would round a number such as
 * 12345678901234567890. Of a key that is there twice the last value counts.
 * @returns undefined when it is JSON, but no object
 * @throws {SyntaxError} when it is no JSON
 */
function readJsonObject(text: string): Map<string, string> | undefined {
  const parsed: unknown = JSON.parse(text);
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) return undefined;
  return new Map(membersOf(text).map(([key, value]) => [String(JSON.parse(key)), cellOf(value)]));
}

function cellOf(value: string): string {
  if (value === 'null') return '';
  return value.startsWith('"') ? String(JSON.parse(value)) : value;
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

interface TextLine {
  /** From 1. */
  readonly line: number;
  /** Without its line end. */
  readonly text: string;
  /** Whether its bytes are UTF-8; where they are not it has U+FFFD. */
  readonly isValid: boolean;
}

/**
 * Splits bytes into lines that end in LF or CRLF; those that are blank are left out. Gives the lines of each piece
 * of bytes together. Not by `node:readline`: it decodes before anybody can tell what is no UTF-8, holds lines of any
 * length, and takes a CR or U+2028 within a line for its end.
 * @param name the manifest, for messages
 * @throws {FatalError} when a line is longer than `MAX_RECORD_BYTES`
 */
async function* readLines(
  bytes: AsyncIterable<Buffer>,
  name: string,
): AsyncGenerator<readonly TextLine[], void> {
  let unfinished: Buffer[] = [];
  let unfinishedBytes = 0;
  let line = 0;
  for await (const chunk of bytes) {
    const lines: TextLine[] = [];
    let start = 0;
    for (let end = chunk.indexOf(LF); end !== -1; end = chunk.indexOf(LF, start)) {
      const decoded = decodeLine([...unfinished, chunk.subarray(start, end)], ++line);
      if (decoded !== undefined) lines.push(decoded);
      unfinished = [];
      unfinishedBytes = 0;
      start = end + 1;
    }
    if (lines.length > 0) yield lines;
    if (start === chunk.length) continue;
    unfinished.push(chunk.subarray(start));
    unfinishedBytes += chunk.length - start;
    if (unfinishedBytes > MAX_RECORD_BYTES) {
      throw new FatalError(
        `${name}, line ${line + 1}: longer than ${MAX_RECORD_BYTES / 1024 ** 2} MB: this is no manifest with a record a line`,
      );
    }
  }
  const last = decodeLine(unfinished, line + 1);
  if (last !== undefined) yield [last];
}

function decodeLine(parts: readonly Buffer[], line: number): TextLine | undefined {
  const [first] = parts;
  const bytes = parts.length === 1 && first !== undefined ? first : Buffer.concat(parts);
  const text = bytes.toString('utf8', 0, bytes.at(-1) === CR ? bytes.length - 1 : bytes.length);
  return text.trim() === '' ? undefined : { line, text, isValid: isUtf8(bytes) };
}
