import { parseJson } from '../../shared/parse-json.js';

/** What is scanned of one text in all: an answer of nothing but brackets is not worth more. */
const MOST_SCANNED = 4_000_000;

/** A list of texts or objects begins here, or an object: a bracket of plain talk (`[4 items]`) is neither. */
const BEGINNING = /\[(?=\s*["{])|\{(?=\s*")/g;

/** Each JSON list or object in a text that is not within another. */
export function* jsonIn(text: string): Generator {
  let left = MOST_SCANNED;
  let readTo = 0;
  for (const { index } of text.matchAll(BEGINNING)) {
    if (index < readTo) continue;
    const { end, isClosed } = scan(text, index, index + left);
    const value = isClosed ? parseJson(text.slice(index, end)) : undefined;
    if (value !== undefined) {
      readTo = end;
      yield value;
    }
    left -= end - index;
    if (left <= 0) return;
  }
}

/** Looks for the bracket that closes the one at `from`; brackets within strings do not count. */
function scan(
  text: string,
  from: number,
  limit: number,
): { readonly end: number; readonly isClosed: boolean } {
  let depth = 0;
  let isString = false;
  let at = from;
  for (; at < text.length && at < limit; at++) {
    const character = text[at];
    if (isString) {
      // No string of JSON goes over a line's end: this quote was not its beginning.
      if (character === '\n') break;
      if (character === '\\') at++;
      else if (character === '"') isString = false;
    } else if (character === '"') isString = true;
    else if (character === '[' || character === '{') depth++;
    else if ((character === ']' || character === '}') && --depth === 0)
      return { end: at + 1, isClosed: true };
  }
  return { end: at, isClosed: false };
}
