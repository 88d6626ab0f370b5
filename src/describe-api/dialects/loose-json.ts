import { parseJson } from '../../shared/parse-json.js';

/** JSON as models write it; numbers and the like are all null, since no prompt is one. */
export type Loose = string | null | Loose[] | Map<string, Loose>;

export interface FoundJson {
  /** Each list or object that is not within another. */
  readonly values: readonly Loose[];
  /** What is said before the first of them. */
  readonly before: string;
  /** An object breaks off, or is not even nearly JSON: what was found may be a part of it. */
  readonly isBroken: boolean;
}

/** What is scanned of one text in all: an answer of nothing but brackets is not worth more. */
const MOST_SCANNED = 4_000_000;
const DEEPEST = 6;

/** A list of texts or objects begins here, or an object: a bracket of plain talk (`[4 items]`, `{"x"}`) is neither. */
const BEGINNING = /\[(?=\s*["'{])|\{(?=\s*(?:"[^"\n]{1,80}"|'[^'\n]{1,80}')\s*:)/g;

/** Finds the JSON in a text, be it written as JavaScript or Python would: a comma too many, single quotes, `None`. */
export function jsonIn(text: string): FoundJson {
  const values: Loose[] = [];
  let start: number | undefined;
  let readTo = 0;
  let left = MOST_SCANNED;
  for (const { index } of text.matchAll(BEGINNING)) {
    if (index < readTo) continue;
    const reader = new LooseReader(text, index, index + left);
    const value = reader.value(0);
    left -= reader.at - index;
    if (value === undefined && (text[index] === '{' || left <= 0)) {
      return { values, before: text.slice(0, start ?? index), isBroken: true };
    }
    if (value === undefined) continue;
    readTo = reader.at;
    if (Array.isArray(value) && isWithinSentence(text, reader.at)) continue;
    values.push(value);
    start ??= index;
  }
  return { values, before: text.slice(0, start), isBroken: false };
}

/** A sentence goes on behind it: `["red", "blue"] are its colours`. */
function isWithinSentence(text: string, at: number): boolean {
  return /^[ \t]*\p{Ll}/u.test(text.slice(at, at + 10));
}

const SPACE = /\s*/y;
const SCALAR = /(?:true|false|null|None|True|False|-?\d[\d.eE+-]{0,40})(?![\w.])/y;
/** What follows the last quote of a text in single quotes; any other is an apostrophe. */
const BEHIND_QUOTE = /\s*[,\]}:]/y;

class LooseReader {
  constructor(
    private readonly text: string,
    public at: number,
    private readonly limit: number,
  ) {}

  /** @returns undefined when there is none */
  value(depth: number): Loose | undefined {
    if (depth > DEEPEST) return undefined;
    this.#skip(SPACE);
    const first = this.text[this.at];
    if (first === '"' || first === "'") return this.#string(first);
    if (first === '[') return this.#list(depth);
    if (first === '{') return this.#object(depth);
    return this.#skip(SCALAR) ? null : undefined;
  }

  #list(depth: number): Loose | undefined {
    const list: Loose[] = [];
    const isClosed = this.#sequence(']', () => {
      const value = this.value(depth + 1);
      if (value !== undefined) list.push(value);
      return value !== undefined;
    });
    return isClosed ? list : undefined;
  }

  #object(depth: number): Loose | undefined {
    const object = new Map<string, Loose>();
    const isClosed = this.#sequence('}', () => {
      const key = this.value(depth + 1);
      const value = this.#skipCharacter(':') ? this.value(depth + 1) : undefined;
      if (typeof key !== 'string' || value === undefined) return false;
      object.set(key, value);
      return true;
    });
    return isClosed ? object : undefined;
  }

  /** Reads from an opening bracket to the closing one; a comma may precede it. */
  #sequence(closing: string, readOne: () => boolean): boolean {
    this.at++;
    for (;;) {
      if (this.#skipCharacter(closing)) return true;
      if (!readOne()) return false;
      if (!this.#skipCharacter(',')) return this.#skipCharacter(closing);
    }
  }

  #string(quote: '"' | "'"): string | undefined {
    const from = ++this.at;
    for (; this.at < this.text.length && this.at < this.limit; this.at++) {
      const character = this.text[this.at];
      // No string of JSON goes over a line's end: this quote was not its beginning.
      if (character === '\n') return undefined;
      if (character === '\\') this.at++;
      else if (character === quote && (quote === '"' || this.#isAtLastQuote())) {
        const written = this.text.slice(from, this.at++);
        const json = quote === '"' ? written : written.replaceAll("\\'", "'").replaceAll('"', '\\"');
        const value = parseJson(`"${json}"`);
        return typeof value === 'string' ? value : undefined;
      }
    }
    return undefined;
  }

  #isAtLastQuote(): boolean {
    BEHIND_QUOTE.lastIndex = this.at + 1;
    return BEHIND_QUOTE.test(this.text);
  }

  #skip(pattern: RegExp): boolean {
    pattern.lastIndex = this.at;
    if (!pattern.test(this.text)) return false;
    this.at = pattern.lastIndex;
    return true;
  }

  #skipCharacter(character: string): boolean {
    this.#skip(SPACE);
    if (this.text[this.at] !== character) return false;
    this.at++;
    return true;
  }
}
