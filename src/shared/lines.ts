import { isUtf8 } from 'node:buffer';
import { FatalError } from './errors.js';

const LF = 0x0a;
const CR = 0x0d;

export interface TextLine {
  /** From 1. */
  readonly line: number;
  /** Without its line end. */
  readonly text: string;
  /** Whether its bytes are UTF-8; where they are not it has U+FFFD. */
  readonly isValid: boolean;
  /** Where it begins, in bytes. */
  readonly start: number;
  /** False for a last line that ends with the bytes. */
  readonly hasLineEnd: boolean;
}

/**
 * Splits bytes into lines that end in LF or CRLF; those that are blank are left out. Gives the lines of each piece
 * of bytes together. Not by `node:readline`: it decodes before anybody can tell what is no UTF-8, holds lines of any
 * length, and takes a CR or U+2028 within a line for its end.
 * @param name of the file, for messages
 * @param options.offset where in the file the bytes begin
 * @throws {FatalError} when a line is longer than `maxBytes`
 */
export async function* readLines(
  bytes: AsyncIterable<Buffer>,
  { name, maxBytes, offset = 0 }: { name: string; maxBytes: number; offset?: number },
): AsyncGenerator<readonly TextLine[], void> {
  let lineStart = offset;
  let unfinished: Buffer[] = [];
  let unfinishedBytes = 0;
  let line = 0;
  for await (const chunk of bytes) {
    const lines: TextLine[] = [];
    let start = 0;
    for (let end = chunk.indexOf(LF); end !== -1; end = chunk.indexOf(LF, start)) {
      const decoded = decodeLine([...unfinished, chunk.subarray(start, end)], ++line);
      if (decoded !== undefined) lines.push({ ...decoded, start: lineStart, hasLineEnd: true });
      lineStart += unfinishedBytes + end + 1 - start;
      unfinished = [];
      unfinishedBytes = 0;
      start = end + 1;
    }
    if (lines.length > 0) yield lines;
    if (start === chunk.length) continue;
    unfinished.push(chunk.subarray(start));
    unfinishedBytes += chunk.length - start;
    if (unfinishedBytes > maxBytes) {
      throw new FatalError(
        `${name}, line ${line + 1}: longer than ${maxBytes / 1024 ** 2} MB: this is no file with a record a line`,
      );
    }
  }
  const last = decodeLine(unfinished, line + 1);
  if (last !== undefined) yield [{ ...last, start: lineStart, hasLineEnd: false }];
}

function decodeLine(parts: readonly Buffer[], line: number) {
  const [first] = parts;
  const bytes = parts.length === 1 && first !== undefined ? first : Buffer.concat(parts);
  const text = bytes.toString('utf8', 0, bytes.at(-1) === CR ? bytes.length - 1 : bytes.length);
  return text.trim() === '' ? undefined : { line, text, isValid: isUtf8(bytes) };
}
