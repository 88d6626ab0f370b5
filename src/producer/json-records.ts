import { isUtf8 } from 'node:buffer';
import { FatalError, UsageError } from '../shared/errors.js';
import type { TextLine } from '../shared/lines.js';
import { parseJson } from '../shared/parse-json.js';
import { MAX_RECORD_BYTES } from './manifest-format.js';

const LF = 0x0a;
const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a] as const;
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d] as const;
const MAX_DEPTH = 10_000;

/** The text of one item of a list, and the line in which it begins. */
export type ItemText = Pick<TextLine, 'line' | 'text' | 'isValid'>;

/**
 * The items of a list in a JSON document of any size, those of a piece of it together.
 * @param list its path, the keys joined by dots; empty for the document itself
 * @throws {UsageError} when the document has no such list
 * @throws {FatalError} where its brackets do not match, after all items before that place
 */
export async function* readItems(
  bytes: AsyncIterable<Buffer>,
  name: string,
  list: string,
): AsyncGenerator<readonly ItemText[], void> {
  const scanner = new JsonScanner(name, list);
  for await (const piece of bytes) {
    let failure: { readonly error: unknown } | undefined;
    try {
      scanner.scan(piece);
    } catch (error) {
      failure = { error };
    }
    if (scanner.items.length > 0) yield scanner.items.splice(0);
    if (failure !== undefined) throw failure.error;
  }
  scanner.end();
  if (!scanner.isFound)
    throw new UsageError(`${name} has no list at ${JSON.stringify(list)}, as --records says`);
}

/** The paths of the lists of objects that are in no other list. @throws {FatalError} as `readItems` */
export async function findLists(bytes: AsyncIterable<Buffer>, name: string): Promise<string[]> {
  const scanner = new JsonScanner(name);
  for await (const piece of bytes) scanner.scan(piece);
  scanner.end();
  return [...scanner.lists];
}

/**
 * Takes the items of a list out as they are written, since numbers would lose digits as values. It looks only at what tells
 * items apart: brackets, commas, strings, and the keys on the way to the list.
 */
class JsonScanner {
  /** Since they were last taken. */
  readonly items: ItemText[] = [];
  readonly lists = new Set<string>();
  isFound = false;
  #line = 1;
  /** The brackets that are open, the keys of those that are objects, and how many are lists. */
  readonly #open: number[] = [];
  readonly #keys: string[] = [];
  #openLists = 0;
  /** How many brackets are open between two items, while the list is. */
  #depth: number | undefined;
  /** The path of a list of which nothing is read yet. */
  #begun: string | undefined;
  #isInString = false;
  #isEscaped = false;
  #isOver = false;
  /** Of what is kept, an item or a key: where in this piece it begins, the line of its text, and what there was of it before. */
  #from: number | undefined;
  #fromLine: number | undefined;
  #before: Buffer[] = [];
  #string = '';

  constructor(
    private readonly name: string,
    private readonly list?: string,
  ) {}

  scan(piece: Buffer): void {
    for (let at = 0; at < piece.length; at++) {
      const byte = piece[at] ?? 0;
      if (byte === LF) this.#line++;
      if (this.#isEscaped) this.#isEscaped = false;
      else if (byte === BACKSLASH) this.#isEscaped = this.#isInString;
      else if (byte === QUOTE) this.#quote(piece, at);
      else if (!this.#isInString && byte > 0x20) this.#token(byte, piece, at);
    }
    if (this.#from === undefined) return;
    this.#before.push(piece.subarray(this.#from));
    this.#from = 0;
    if (this.#before.reduce((sum, { length }) => sum + length, 0) <= MAX_RECORD_BYTES) return;
    throw this.#broken(`what begins here is longer than ${MAX_RECORD_BYTES / 1024 ** 2} MB`, this.#fromLine);
  }

  end(): void {
    if (this.#isOver) return;
    // A quote too few hides all that follows it.
    throw this.#broken('it is not closed', this.#fromLine);
  }

  #quote(piece: Buffer, at: number): void {
    this.#isInString = !this.#isInString;
    this.#begun = undefined;
    if (this.#openLists === 0 && this.#isInString) this.#keep(at);
    this.#fromLine ??= this.#line;
    if (this.#openLists > 0 || this.#isInString) return;
    this.#string = this.#take(piece, at + 1).toString();
  }

  #token(byte: number, piece: Buffer, at: number): void {
    const begun = this.#begun;
    this.#begun = undefined;
    this.#fromLine ??= this.#line;
    if (this.#isOver) throw this.#broken('something follows its end');
    if (byte === OPEN_OBJECT && begun !== undefined) this.lists.add(begun);
    if (byte === OPEN_LIST || byte === OPEN_OBJECT) this.#enter(byte, at);
    else if (byte === CLOSE_LIST || byte === CLOSE_OBJECT) this.#leave(byte, piece, at);
    else if (byte === COMMA && this.#open.length === this.#depth) {
      this.#endItem(piece, at);
      this.#keep(at + 1);
    } else if (byte === COLON && this.#openLists === 0) {
      const key = parseJson(this.#string);
      this.#keys[this.#open.length - 1] = typeof key === 'string' ? key : '';
    }
  }

  #enter(byte: number, at: number): void {
    const path = this.#keys.slice(0, this.#open.length).join('.');
    this.#open.push(byte);
    if (this.#open.length > MAX_DEPTH) throw this.#broken('it is nested too deeply');
    if (byte !== OPEN_LIST || ++this.#openLists > 1) return;
    this.#begun = path;
    if (path !== this.list) return;
    this.isFound = true;
    this.#depth = this.#open.length;
    this.#keep(at + 1);
  }

  #leave(byte: number, piece: Buffer, at: number): void {
    if (this.#open.at(-1) !== (byte === CLOSE_LIST ? OPEN_LIST : OPEN_OBJECT)) {
      throw this.#broken('its brackets do not match');
    }
    if (this.#open.length === this.#depth) {
      this.#endItem(piece, at);
      this.#depth = undefined;
    }
    this.#open.pop();
    if (byte === CLOSE_LIST) this.#openLists--;
    this.#isOver = this.#open.length === 0;
  }

  #keep(from: number): void {
    this.#from = from;
    this.#fromLine = undefined;
  }

  #take(piece: Buffer, end: number): Buffer {
    const taken = Buffer.concat([...this.#before, piece.subarray(this.#from ?? end, end)]);
    this.#from = undefined;
    this.#before = [];
    return taken;
  }

  /** Nothing between two commas is an item that cannot be read; nothing before the closing bracket is none. */
  #endItem(piece: Buffer, end: number): void {
    const line = this.#fromLine ?? this.#line;
    const bytes = this.#take(piece, end);
    const text = bytes.toString().trim();
    if (text !== '' || piece[end] === COMMA) this.items.push({ line, text, isValid: isUtf8(bytes) });
  }

  #broken(problem: string, line = this.#line): FatalError {
    return new FatalError(`${this.name}, line ${line}: no JSON from here on: ${problem}: correct it there`);
  }
}
