import { isUtf8 } from 'node:buffer';
import { FatalError } from '../shared/errors.js';
import { MAX_RECORD_BYTES, type ManifestRecord, textFormat } from './manifest-format.js';

const LF = 0x0a;
const CR = 0x0d;

/** A list: one URL a line, in one column named `url`. */
export const openList = textFormat((bytes, { name }) =>
  Promise.resolve({ columns: ['url'], delimiter: ',', batches: readRecords(readLines(bytes, name)) }),
);

async function* readRecords(lines: AsyncIterable<readonly TextLine[]>) {
  let number = 0;
  for await (const some of lines) {
    yield some.map(({ line, text, isValid }): ManifestRecord => {
      const record = { line, number: ++number, cells: [text] };
      return isValid ? record : { ...record, problem: 'not valid UTF-8' };
    });
  }
}

export interface TextLine {
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
export async function* readLines(
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
