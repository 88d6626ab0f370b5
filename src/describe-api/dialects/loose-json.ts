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
    const { value, end } = valueAt(index, text.slice(0, index + left));
    left -= end - index;
    if (value === undefined && (text[index] === '{' || left <= 0)) {
      return { values, before: text.slice(0, start ?? index), isBroken: true };
    }
    if (value === undefined) continue;
    readTo = end;
    if (Array.isArray(value) && isWithinSentence(text, end)) continue;
    values.push(value);
    start ??= index;
  }
  return { values, before: text.slice(0, start), isBroken: false };
}

/** A sentence goes on behind it: `["red", "blue"] are its colours`. */
function isWithinSentence(text: string, at: number): boolean {
  return /^[ \t]*\p{Ll}/u.test(text.slice(at, at + 10));
}

/**
 * A text (a single quote that nothing closes behind is an apostrophe; no text goes over a line's end), a mark, or a scalar.
 */
const TOKEN =
  /\s*(?:("(?:[^"\\\n]|\\.)*")|'((?:[^'\\\n]|\\.|'(?!\s*[,\]}:]))*)'|([[\]{}:,])|(?:true|false|null|None|True|False|-?\d[\d.eE+-]{0,40})(?![\w.]))/sy;

/** The list or object that begins at a place, if it is one, and how far it was read: its tokens are made strict JSON. */
function valueAt(start: number, text: string): { readonly value?: Loose; readonly end: number } {
  const json: string[] = [];
  let depth = 0;
  let end = start;
  do {
    TOKEN.lastIndex = end;
    const token = TOKEN.exec(text);
    if (token === null) return { end };
    end = TOKEN.lastIndex;
    const [, doubleQuoted, singleQuoted, mark] = token;
    const isEnd = mark === ']' || mark === '}';
    if (depth > DEEPEST && !isEnd && mark !== ',' && mark !== ':') return { end };
    if (mark === '[' || mark === '{') depth++;
    if (isEnd) depth--;
    // A comma too many, behind a value.
    if (isEnd && json.at(-1) === ',' && !'[{,'.includes(json.at(-2) ?? '')) json.pop();
    const requoted = singleQuoted?.replaceAll("\\'", "'").replaceAll('"', '\\"');
    json.push(doubleQuoted ?? (requoted === undefined ? (mark ?? 'null') : `"${requoted}"`));
  } while (depth > 0);
  const parsed = parseJson(json.join(''));
  return parsed === undefined ? { end } : { value: looseOf(parsed), end };
}

function looseOf(value: unknown): Loose {
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) return value.map(looseOf);
  if (typeof value !== 'object' || value === null) return null;
  return new Map(Object.entries(value).map(([key, inner]) => [key, looseOf(inner)]));
}
