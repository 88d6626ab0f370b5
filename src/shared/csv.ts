import { isUtf8 } from 'node:buffer';
import { CsvError, Parser } from 'csv-parse';
import { stringify } from 'csv-stringify/sync';

/** What delimits the cells of a file when nobody says; the first of equals is taken. */
export const USUAL_DELIMITERS: readonly string[] = [',', ';', '\t', '|'];

export interface CsvDialect {
  /** One ASCII character. */
  readonly delimiter: string;
  /** CR: where that alone ends lines. Default: LF, with up to two CRs before it, mixed as they come. */
  readonly lineEnd?: '\n' | '\r';
  /**
   * Quotes that are not as RFC 4180 has them are part of their cell, and no error, unless they hold what would have
   * ended the cell otherwise: the next quote may be records away.
   */
  readonly relaxQuotes?: boolean;
  /** A longer record is an error: its quote is probably not closed. Default: no limit. */
  readonly maxRecordBytes?: number;
  /** Where in the file the bytes begin: the start of a record, behind a byte order mark. Default: 0. */
  readonly offset?: number;
}

export interface CsvRecord {
  readonly cells: readonly string[];
  /** The first cell whose bytes are not UTF-8; it has U+FFFD in their place. */
  readonly invalidCell: number | undefined;
  /** The line in which it begins, from 1. */
  readonly line: number;
  /** Byte offset of the end of the record before it: blank lines may be between. */
  readonly start: number;
  /** Byte offset behind its line end. */
  readonly end: number;
  /** False for a last record that ends with the file. It may be torn. */
  readonly hasLineEnd: boolean;
}

export type CsvFlaw = 'quote-in-cell' | 'text-behind-quote' | 'quote-not-closed' | 'record-too-long';

const FLAWS: ReadonlyMap<string, CsvFlaw> = new Map([
  ['INVALID_OPENING_QUOTE', 'quote-in-cell'],
  ['CSV_INVALID_CLOSING_QUOTE', 'text-behind-quote'],
  ['CSV_QUOTE_NOT_CLOSED', 'quote-not-closed'],
  ['CSV_MAX_RECORD_SIZE', 'record-too-long'],
]);

/** A record that cannot be read, nor anything behind it. */
export class CsvSyntaxError extends Error {
  override name = 'CsvSyntaxError';

  /**
   * @param line in which the record begins
   * @param start byte offset of the end of the record before it
   */
  constructor(
    readonly flaw: CsvFlaw,
    readonly line: number,
    readonly start: number,
    options?: ErrorOptions,
  ) {
    super(`line ${line}: ${flaw}`, options);
  }
}

/**
 * Splits the bytes of a file into records: for each piece of bytes those that end in it, as a list that may be empty.
 * Blank lines are left out; the header is a record like any other. Cells are text, never numbers or dates.
 * @param bytes pieces that nobody changes afterwards
 * @throws {CsvSyntaxError} where it cannot be read past, after all records before that place
 */
export async function* readCsv(
  bytes: AsyncIterable<Buffer>,
  dialect: CsvDialect,
): AsyncGenerator<readonly CsvRecord[], void> {
  const reader = new CsvReader(dialect);
  for await (const chunk of bytes) yield* reader.read(chunk);
  yield* reader.read(undefined);
}

/**
 * Records as RFC 4180 text, each with its `\n`, and quotes only where they are needed: around a byte order mark too, which
 * would be taken for the file's at its beginning.
 */
export function formatCsv(records: readonly (readonly string[])[], delimiter: string): string {
  return stringify([...records], { delimiter, record_delimiter: '\n', quoted_match: /\r|^\ufeff/ });
}

class CsvReader {
  readonly #parser: Parser;
  readonly #lineEnd: '\n' | '\r';
  /** Where in the file the parser's first byte is. */
  readonly #origin: number;
  #records: CsvRecord[] = [];
  /** Of the record that comes next; it does not count blank lines before it. */
  #line = 1;
  #blankLines = 0;
  #start: number;
  #size = 0;
  #lastByte: number | undefined;

  constructor({ lineEnd = '\n', offset = 0, ...dialect }: CsvDialect) {
    this.#lineEnd = lineEnd;
    this.#origin = this.#start = offset;
    this.#parser = new Parser({
      delimiter: dialect.delimiter,
      record_delimiter: lineEnd === '\r' ? ['\r'] : ['\r\r\n', '\r\n', '\n'],
      // One character for each byte: as UTF-8 it would replace what is not UTF-8 without a word.
      encoding: 'latin1',
      relax_quotes: dialect.relaxQuotes === true,
      raw: dialect.relaxQuotes === true,
      relax_column_count: true,
      skip_empty_lines: true,
      max_record_size: dialect.maxRecordBytes ?? 0,
      on_record: (
        found: string[] | { record: string[]; raw: string },
        { bytes, empty_lines: blankLines },
      ) => {
        if (Array.isArray(found)) this.#add(found, bytes, blankLines);
        else if (!hasSwallowed(found, dialect.delimiter)) this.#add(found.record, bytes, blankLines);
        else throw new CsvError('CSV_QUOTE_NOT_CLOSED', 'a quote closes what it should not hold');
        return undefined;
      },
    });
    // Errors go to whoever has written or ended.
    this.#parser.on('error', () => undefined);
    this.#parser.resume();
  }

  /** @param chunk undefined at the end */
  async *read(chunk: Buffer | undefined): AsyncGenerator<readonly CsvRecord[], void> {
    if (chunk?.length === 0) return;
    this.#size += chunk?.length ?? 0;
    this.#lastByte = chunk?.at(-1) ?? this.#lastByte;
    this.#records = [];
    const failure = await new Promise<Error | null | undefined>((resolve) => {
      if (chunk === undefined) this.#parser.end(resolve);
      else this.#parser.write(chunk, resolve);
    });
    yield this.#records;
    if (failure) throw this.#explain(failure);
  }

  #add(bytes: string[], position: number, blankLines: number): void {
    const end = this.#origin + position;
    const line = this.#line + blankLines - this.#blankLines;
    // The parser keeps some bytes back, so that whole records too may come at the very end.
    const hasLineEnd = position < this.#size || this.#lastByte === this.#lineEnd.charCodeAt(0);
    const { cells, invalidCell } = decodeCells(bytes);
    this.#records.push({ cells, invalidCell, line, start: this.#start, end, hasLineEnd });
    this.#start = end;
    this.#blankLines = blankLines;
    this.#line = line + 1 + bytes.reduce((breaks, cell) => breaks + this.#breaksIn(cell), 0);
  }

  #breaksIn(cell: string): number {
    return cell.includes(this.#lineEnd) ? cell.split(this.#lineEnd).length - 1 : 0;
  }

  #explain(failure: Error): Error {
    const flaw = failure instanceof CsvError ? FLAWS.get(failure.code) : undefined;
    if (flaw === undefined) return failure;
    const line = this.#line + this.#parser.info.empty_lines - this.#blankLines;
    return new CsvSyntaxError(flaw, line, this.#start, { cause: failure });
  }
}

const NOT_ASCII = /[\x80-\xff]/;

/** @param bytes one character for each byte */
function decodeCells(bytes: string[]): { cells: readonly string[]; invalidCell: number | undefined } {
  let invalidCell: number | undefined;
  // Most records are ASCII, and their bytes are their text.
  if (!bytes.some((cell) => NOT_ASCII.test(cell))) return { cells: bytes, invalidCell };
  const cells = bytes.map((cell, index) => {
    if (!NOT_ASCII.test(cell)) return cell;
    const encoded = Buffer.from(cell, 'latin1');
    if (!isUtf8(encoded)) invalidCell ??= index;
    return encoded.toString('utf8');
  });
  return { cells, invalidCell };
}

/** Whether a quote that is part of its cell holds cells or records that come after it. */
function hasSwallowed({ record, raw }: { record: string[]; raw: string }, delimiter: string): boolean {
  const holders = record.filter(
    (cell) => cell.startsWith('"') && (cell.includes(delimiter) || /[\r\n]/.test(cell)),
  );
  // Such a cell is in order where it is quoted as a whole, and begins with a quote besides.
  return holders.some((cell) => !raw.includes(`"${cell.replaceAll('"', '""')}"`));
}
