import { isUtf8 } from 'node:buffer';
import { FatalError, UsageError } from '../shared/errors.js';
import { NULL_CELL, readJsonObject, toCells } from '../shared/json-cells.js';
import { type TextLine, readLines } from '../shared/lines.js';
import { parseJson } from '../shared/parse-json.js';
import { checkColumnNames, listNames } from './columns.js';
import {
  MAX_RECORD_BYTES,
  NOT_UTF8,
  SAMPLE_RECORDS,
  TRY_ENCODING,
  type ManifestRecord,
  type ManifestSource,
  type OpenFormat,
  type OpenOptions,
  type RecordBatches,
  readAhead,
  textFormat,
} from './manifest-format.js';

/** A file whose first lines, this many, hold no object at all is something else than JSON Lines. */
const FIRST_RECORDS = 10;

const LF = 0x0a;
const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a] as const;
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d] as const;
const MAX_DEPTH = 10_000;

/** The text of one record, and the line in which it begins. */
type ItemText = Pick<TextLine, 'line' | 'text' | 'isValid'>;

/** A list: one URL a line, in one column named `url`. */
export const openList = textFormat((bytes, { name }) => {
  const batches = readRecords(
    readLines(bytes, { name, maxBytes: MAX_RECORD_BYTES }),
    ({ line, text, isValid }, number) => ({
      line,
      number,
      cells: [text],
      ...(!isValid && { problem: NOT_UTF8 + TRY_ENCODING }),
    }),
  );
  return Promise.resolve({ columns: ['url'], delimiter: ',', batches });
});

type NamedOptions = OpenOptions & { readonly name: string };

/** JSON Lines. The columns are the keys of the first 100 records in the order in which they appear. */
export const openJsonl = textFormat(openLines);

async function openLines(bytes: AsyncGenerator<Buffer, void>, { name, known }: NamedOptions) {
  const lines = readLines(bytes, { name, maxBytes: MAX_RECORD_BYTES });
  const { ahead, all } = await readAhead(lines, (taken) => taken.length > 0);
  if (ahead[0]?.[0]?.text.trimStart().startsWith('['))
    throw new UsageError(`${name} is a JSON array, not an object a line: say --format json`);
  return openObjects(all, known, name, 'JSON Lines, which is one object a line');
}

/**
 * JSON: a list of objects, or an object that has one in it; the columns are found as those of JSON Lines, which is read too
 * where the first line is a whole object and more follow.
 */
export const openJson: OpenFormat = (source, options, signal) =>
  textFormat(async (bytes, named) => {
    const { name, known } = named;
    const { ahead, all } = await readAhead(bytes, hasFirstLine());
    const head = Buffer.concat(ahead).toString().trimStart();
    const [first = '', ...more] = head.split('\n');
    if (!/^[[{]/.test(head)) throw new UsageError(`${name} is no JSON: it begins with ${first.slice(0, 40)}`);
    const isLines = head.startsWith('{') && more.some((line) => line.trim() !== '');
    if (isLines && options.records === undefined && !('problem' in parseLine({ text: first, isValid: true })))
      return await openLines(all, named);
    const records = options.records ?? (head.startsWith('[') ? '' : await findList(source, signal));
    const items = readItems(all, name, records);
    return { ...(await openObjects(items, known, name, 'list of objects')), records };
  })(source, options, signal);

/** Whether so many pieces have all of the first line with text, and something behind it, where that can be a whole object. */
function hasFirstLine(): (pieces: readonly Buffer[]) => boolean {
  let head = '';
  return (pieces) => {
    head = (head + (pieces.at(-1)?.toString('latin1') ?? '')).trimStart();
    return /^[^{]/.test(head) || head.length > MAX_RECORD_BYTES || /\n\s*\S/.test(head);
  };
}

/**
 * Where the records are in an object that is a file: at the only list of objects that is in no other list.
 * @throws {UsageError} when it has none, or several
 */
async function findList(source: ManifestSource, signal: AbortSignal): Promise<string> {
  const { name } = source;
  if (!source.replayable)
    throw new UsageError(`${name} is a JSON object: name the list in it with --records <path>`);
  const scanner = new JsonScanner(name);
  for await (const piece of source.read(signal)) scanner.scan(piece);
  scanner.end();
  const [found, ...more] = scanner.lists;
  if (found !== undefined && more.length === 0) return found;
  if (found === undefined) throw new UsageError(`${name} is a JSON object without a list of objects in it`);
  const listed = listNames([found, ...more]);
  throw new UsageError(`${name} has several lists of objects: say --records <path>: ${listed}`);
}

/**
 * The items of a list in a JSON document of any size, those of a piece of it together.
 * @param list its path, the keys joined by dots; empty for the document itself
 * @throws {UsageError} when the document has no such list
 * @throws {FatalError} where its brackets do not match, after all items before that place
 */
async function* readItems(
  bytes: AsyncIterable<Buffer>,
  name: string,
  list: string,
): AsyncGenerator<readonly ItemText[], void> {
  const scanner = new JsonScanner(name, list);
  for await (const piece of bytes) {
    try {
      scanner.scan(piece);
    } finally {
      if (scanner.items.length > 0) yield scanner.items.splice(0);
    }
  }
  scanner.end();
  if (!scanner.isFound)
    throw new UsageError(`${name} has no list at ${JSON.stringify(list)}, as --records says`);
}

async function openObjects(
  texts: AsyncGenerator<readonly ItemText[], void>,
  known: readonly string[] | undefined,
  name: string,
  what: string,
) {
  const { ahead, all } = await readAhead(texts, (taken) => taken.flat().length >= SAMPLE_RECORDS);
  const columns = known ?? findColumns(ahead.flat().slice(0, SAMPLE_RECORDS), name, what);
  const keys = new Set(columns);
  const batches = readRecords(all, (line, number) => recordOf(line, number, keys));
  return { columns, delimiter: ',', batches };
}

function findColumns(lines: readonly ItemText[], name: string, what: string): readonly string[] {
  const records = lines.map(parseLine);
  const first = records.slice(0, FIRST_RECORDS);
  const [problem] = first.flatMap((record) => ('problem' in record ? [record.problem] : []));
  if (problem !== undefined && first.every((record) => 'problem' in record)) {
    throw new UsageError(`${name} is no ${what}: its first record is ${problem}`);
  }
  const columns = [...new Set(records.flatMap((record) => ('problem' in record ? [] : [...record.keys()])))];
  if (records.length > 0 && columns.length === 0) throw new UsageError(`${name}: its objects have no keys`);
  checkColumnNames(columns, name);
  return columns;
}

async function* readRecords(
  lines: AsyncIterable<readonly ItemText[]>,
  toRecord: (line: ItemText, number: number) => ManifestRecord,
): RecordBatches {
  let number = 0;
  for await (const some of lines) yield some.map((line) => toRecord(line, ++number));
}

/** @param columns in their order */
function recordOf(line: ItemText, number: number, columns: ReadonlySet<string>): ManifestRecord {
  const parsed = parseLine(line);
  if ('problem' in parsed) {
    return { line: line.line, number, cells: Array.from(columns, () => ''), problem: parsed.problem };
  }
  const cells = toCells(Array.from(columns, (column) => parsed.get(column) ?? NULL_CELL));
  const record = { line: line.line, number, ...cells };
  const unknown = [...parsed.keys()].filter((key) => !columns.has(key));
  if (unknown.length === 0) return record;
  // What is kept of the record is not to hold megabytes of what is left out: a piece of a text holds all of it.
  return { ...record, cells: structuredClone(record.cells), unknownKeys: structuredClone(unknown) };
}

function parseLine({ text, isValid }: Pick<ItemText, 'text' | 'isValid'>) {
  return isValid ? readJsonObject(text) : { problem: NOT_UTF8 + TRY_ENCODING };
}

/**
 * Takes the items of a list out as they are written, since numbers would lose digits as values. It looks only at what tells
 * items apart: brackets, commas, strings, and the keys on the way to the list.
 */
class JsonScanner {
  /** Since they were last taken. */
  readonly items: ItemText[] = [];
  /** The paths of lists of objects that are in no other list. */
  readonly lists = new Set<string>();
  isFound = false;
  #line = 1;
  /** The brackets that are open, the keys of those that are objects, and how many are open in the outermost list. */
  readonly #open: number[] = [];
  readonly #keys: string[] = [];
  #listDepth: number | undefined;
  /** The path of a list of which nothing is read yet. */
  #begun: string | undefined;
  #isInString = false;
  #isEscaped = false;
  #isOver = false;
  /** The bytes so far of what is kept, an item or a string; where they begin in these and those of the next piece, and in which line. */
  #bytes: Buffer = Buffer.alloc(0);
  #from: number | undefined;
  #fromLine: number | undefined;
  #string = '';

  constructor(
    private readonly name: string,
    private readonly list?: string,
  ) {}

  scan(piece: Buffer): void {
    const start = this.#bytes.length;
    this.#bytes = start === 0 ? piece : Buffer.concat([this.#bytes, piece]);
    for (let at = start; at < this.#bytes.length; at++) {
      const byte = this.#bytes[at] ?? 0;
      if (byte === LF) this.#line++;
      if (byte > 0x20) this.#fromLine ??= this.#line;
      if (this.#isEscaped) this.#isEscaped = false;
      else if (byte === BACKSLASH) this.#isEscaped = this.#isInString;
      else if (byte === QUOTE) this.#quote(at);
      else if (!this.#isInString && byte > 0x20) this.#token(byte, at);
    }
    this.#bytes = this.#bytes.subarray(this.#from ?? this.#bytes.length);
    if (this.#from !== undefined) this.#from = 0;
    if (this.#bytes.length > MAX_RECORD_BYTES)
      throw this.#broken(
        `what begins here is longer than ${MAX_RECORD_BYTES / 1024 ** 2} MB`,
        this.#fromLine,
      );
  }

  end(): void {
    // A quote too few hides all that follows it.
    if (!this.#isOver) throw this.#broken('it is not closed', this.#fromLine);
  }

  #quote(at: number): void {
    this.#isInString = !this.#isInString;
    this.#begun = undefined;
    if (this.#listDepth !== undefined) return;
    if (this.#isInString) this.#keep(at);
    else this.#string = this.#take(at + 1).toString();
  }

  #token(byte: number, at: number): void {
    const begun = this.#begun;
    this.#begun = undefined;
    if (this.#isOver) throw this.#broken('something follows its end');
    if (byte === OPEN_OBJECT && begun !== undefined) this.lists.add(begun);
    if (byte === OPEN_LIST || byte === OPEN_OBJECT) this.#enter(byte, at);
    else if (byte === CLOSE_LIST || byte === CLOSE_OBJECT) this.#leave(byte, at);
    else if (byte === COMMA && this.#open.length === this.#listDepth && this.#from !== undefined) {
      this.#endItem(at);
      this.#keep(at + 1);
    } else if (byte === COLON && this.#listDepth === undefined) {
      const key = parseJson(this.#string);
      this.#keys[this.#open.length - 1] = typeof key === 'string' ? key : '';
    }
  }

  #enter(byte: number, at: number): void {
    const path = this.#keys.slice(0, this.#open.length).join('.');
    this.#open.push(byte);
    if (this.#open.length > MAX_DEPTH) throw this.#broken('it is nested too deeply');
    if (byte !== OPEN_LIST || this.#listDepth !== undefined) return;
    this.#begun = path;
    this.#listDepth = this.#open.length;
    if (path !== this.list) return;
    this.isFound = true;
    this.#keep(at + 1);
  }

  #leave(byte: number, at: number): void {
    if (this.#open.at(-1) !== (byte === CLOSE_LIST ? OPEN_LIST : OPEN_OBJECT)) {
      throw this.#broken('its brackets do not match');
    }
    if (this.#open.length === this.#listDepth) {
      this.#endItem(at);
      this.#listDepth = undefined;
    }
    this.#open.pop();
    this.#isOver = this.#open.length === 0;
  }

  #keep(from: number): void {
    this.#from = from;
    this.#fromLine = undefined;
  }

  #take(end: number): Buffer {
    const taken = this.#bytes.subarray(this.#from, end);
    this.#from = undefined;
    return taken;
  }

  /** Nothing between two commas is an item that cannot be read; nothing before the closing bracket is none. */
  #endItem(end: number): void {
    if (this.#from === undefined) return;
    const line = this.#fromLine ?? this.#line;
    const bytes = this.#take(end);
    const text = bytes.toString().trim();
    if (text !== '' || this.#bytes[end] === COMMA) this.items.push({ line, text, isValid: isUtf8(bytes) });
  }

  #broken(problem: string, line = this.#line): FatalError {
    return new FatalError(`${this.name}, line ${line}: no JSON from here on: ${problem}: correct it there`);
  }
}
