/** What delimits the cells of a csv when nobody says; the first of equals is taken. */
const DELIMITERS = [',', ';', '\t'];

const LF = 0x0a;
const CR = 0x0d;
const QUOTE = 0x22;

/** Where a header ends, and what it tells of the records behind it. */
export interface CsvHeader {
  /** Offset of its first byte (blank lines may come before it) and the one behind its line end. */
  readonly start: number;
  readonly end: number;
  readonly delimiter: string;
  /** CR alone ends lines only where it ends the header: elsewhere it may be part of a cell. */
  readonly lineEnd: '\n' | '\r';
}

/**
 * Finds the end of a header, and in it the delimiter: of comma, semicolon and tab the one that is there most often
 * outside quotes.
 * @param head the manifest's first bytes
 * @param isWhole whether there are no more
 * @param given the delimiter, when it is known
 * @returns undefined when the header does not end in these bytes
 */
export function findCsvHeader(head: Buffer, isWhole: boolean, given?: string): CsvHeader | undefined {
  const candidates = given === undefined ? DELIMITERS : [given];
  const counts = new Map(candidates.map((candidate) => [candidate.charCodeAt(0), 0]));
  const start = skipBlankLines(head);
  let atCellStart = true;
  let position = start;
  for (; position < head.length; position++) {
    const byte = head[position] ?? 0;
    if (byte === LF || byte === CR) break;
    if (byte === QUOTE && atCellStart) position = skipQuoted(head, position);
    const count = counts.get(byte);
    if (count !== undefined) counts.set(byte, count + 1);
    atCellStart = count !== undefined;
  }
  // A CR at the very end may be half of a CRLF.
  const isEnded = position < head.length - (head[position] === CR ? 1 : 0);
  if (!isEnded && !isWhole) return undefined;
  const isMac = head[position] === CR && head[position + 1] !== LF;
  const lineEnd = head[position] === CR && !isMac ? 2 : 1;
  return {
    start,
    end: Math.min(position + lineEnd, head.length),
    delimiter: mostFrequent(candidates, counts),
    lineEnd: isMac ? '\r' : '\n',
  };
}

function skipBlankLines(head: Buffer): number {
  const first = head.findIndex((byte) => byte !== LF && byte !== CR);
  return first === -1 ? head.length : first;
}

/** The place of the quote that closes the one at `open`, or the end. */
function skipQuoted(head: Buffer, open: number): number {
  let position = head.indexOf(QUOTE, open + 1);
  while (position !== -1 && head[position + 1] === QUOTE) position = head.indexOf(QUOTE, position + 2);
  return position === -1 ? head.length : position;
}

function mostFrequent(candidates: readonly string[], counts: ReadonlyMap<number, number>): string {
  const countOf = (candidate: string) => counts.get(candidate.charCodeAt(0)) ?? 0;
  return candidates.reduce((best, candidate) => (countOf(candidate) > countOf(best) ? candidate : best));
}
