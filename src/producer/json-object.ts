const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * Reads a JSON object of one line into cells: strings as they are, null as an empty cell, anything else as its
 * JSON text, character for character as it is written: `JSON.parse` would round a number such as
 * 12345678901234567890. Of a key that is there twice the last value counts.
 * @returns undefined when it is JSON, but no object
 * @throws {SyntaxError} when it is no JSON
 */
export function readJsonObject(text: string): Map<string, string> | undefined {
  const parsed: unknown = JSON.parse(text);
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) return undefined;
  const cells = new Map<string, string>();
  // From here on the text is known to be valid, which is what keeps this short.
  let position = skipBlanks(text, text.indexOf('{') + 1);
  while (text[position] !== '}') {
    const keyEnd = skipValue(text, position);
    const valueStart = skipBlanks(text, text.indexOf(':', keyEnd) + 1);
    const valueEnd = skipValue(text, valueStart);
    cells.set(String(JSON.parse(text.slice(position, keyEnd))), cellOf(text.slice(valueStart, valueEnd)));
    position = skipBlanks(text, valueEnd);
    if (text[position] === ',') position = skipBlanks(text, position + 1);
  }
  return cells;
}

function cellOf(value: string): string {
  if (value === 'null') return '';
  return value.startsWith('"') ? String(JSON.parse(value)) : value;
}

function skipBlanks(text: string, from: number): number {
  let position = from;
  while (' \t\r\n'.includes(text[position] ?? 'x')) position++;
  return position;
}

/** The place behind the value that begins at `from`. */
function skipValue(text: string, from: number): number {
  let position = from;
  let depth = 0;
  do {
    const char = text[position] ?? '';
    if (char === '"') {
      position = skipString(text, position);
    } else if (char === '{' || char === '[') {
      depth++;
      position++;
    } else if (char === '}' || char === ']') {
      depth--;
      position++;
    } else if (depth > 0) {
      position++;
    } else {
      return skipScalar(text, position);
    }
  } while (depth > 0);
  return position;
}

function skipString(text: string, from: number): number {
  let position = from + 1;
  while (text.charCodeAt(position) !== QUOTE) position += text.charCodeAt(position) === BACKSLASH ? 2 : 1;
  return position + 1;
}

/** A number, true, false or null. */
function skipScalar(text: string, from: number): number {
  let position = from;
  while (!' \t\r\n,}]'.includes(text[position] ?? ',')) position++;
  return position;
}
