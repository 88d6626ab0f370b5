/*
 * RFC 4180 at the level of bytes. Parsers from the registry make strings of every cell, say nothing of where a record
 * begins, and take five times as long; here one pass over the bytes finds the records and their cells, and only the
 * cells that are asked for become strings. CR before LF, blank lines and a byte order mark are tolerated, since people
 * edit files in spreadsheets. What is not as it should be is told (`CsvRecord.flaw`): whoever reads decides.
 */

const LF = 0x0a;
const CR = 0x0d;
const QUOTE = 0x22;
const BOM = Buffer.from([0xef, 0xbb, 0xbf]);

/* Where in a cell the scan is. */
const CELL_START = 0;
const PLAIN = 1;
const QUOTED = 2;
/** Behind a quote within a quoted cell: its end, or the first half of an escaped quote. */
const QUOTE_SEEN = 3;
/** Behind that quote and a CR: half of a line end, or text that should not be there. */
const CR_SEEN = 4;

/** Of a quoted cell so many bytes are looked at one by one; then its end is searched for, which has its price too. */
const SHORT_CELL = 24;

/**
 * What is wrong with a record's quotes, and stands in its cell as it is: a quote within a cell that is not quoted, text
 * behind the quote that ends one, and such text where the quotes hold what would have ended a cell or a record otherwise.
 */
export type QuoteFlaw = 'quote-in-cell' | 'text-behind-quote' | 'swallowed';

/** One record. It is a view into the scanner's buffer, valid until the scanner goes on. */
export interface CsvRecord {
  /** Byte offset of its first cell in the file. */
  readonly start: number;
  /** Byte offset behind its line end (for a tail without one: behind its last byte). */
  readonly end: number;
  /** Number of the line it starts in, from 1. */
  readonly line: number;
  /** Number of cells. */
  readonly size: number;
  /** Decodes one cell; undefined when there are not that many. */
  cell(index: number): string | undefined;
  /** Decodes all cells. */
  cells(): string[];
  /** All cells with one character for each byte (latin1): for whoever has to tell what is no UTF-8. */
  byteCells(): string[];
  /** The worst one there is. */
  readonly flaw: QuoteFlaw | undefined;
}

/** What follows the last line end. */
export interface CsvTail extends CsvRecord {
  /** Whether it breaks off within quotes: then it cannot be a whole record. */
  readonly insideQuotes: boolean;
}

/** Where a record's cells are read. */
interface CellSource {
  cell(index: number): string | undefined;
  cells(): string[];
  byteCells(): string[];
}

/** One for each record: there are millions, so that it holds no functions of its own. */
class RecordView implements CsvRecord {
  constructor(
    private readonly source: CellSource,
    readonly start: number,
    readonly end: number,
    readonly line: number,
    readonly size: number,
    readonly flaw: QuoteFlaw | undefined,
  ) {}

  cell(index: number): string | undefined {
    return this.source.cell(index);
  }

  cells(): string[] {
    return this.source.cells();
  }

  byteCells(): string[] {
    return this.source.byteCells();
  }
}

export interface ScannerOptions {
  /** One ASCII character. */
  readonly delimiter: string;
  /** CR: where that alone ends lines. A CR before a LF belongs to the line end always. */
  readonly lineEnd?: '\n' | '\r';
  /** Where in the file the first chunk is from; it must be the start of a record. */
  readonly offset?: number;
  /** Whether a byte order mark at the file's start is left out (true); not where somebody has taken it off already. */
  readonly skipsMark?: boolean;
}

/**
 * Splits the bytes of a file into records, chunk by chunk:
 *
 *     for await (const chunk of chunks) for (const record of scanner.push(chunk)) ...
 *     scanner.tail()
 *
 * Memory: one chunk, and up to three times the longest record.
 */
export class RecordScanner {
  readonly #delimiter: number;
  readonly #lineEnd: number;
  #buffer = Buffer.allocUnsafe(0);
  /** Bytes of `#buffer` that hold data; its first byte is at `#offset` of the file. */
  #length = 0;
  #offset: number;
  #recordStart = 0;
  #position = 0;
  #state = CELL_START;
  /** Ends of the record's finished cells, relative to its start; `#size` of them are valid. */
  readonly #cellEnds: number[] = [];
  #size = 0;
  /** The line end that was searched for last; it is counted when a quoted cell goes on behind it. */
  #lineEndAt = -1;
  #line = 1;
  #nextLine = 1;
  #mayHaveBom: boolean;
  #hasQuotes = false;
  #flaw: QuoteFlaw | undefined;
  readonly #cells: CellSource = {
    cell: (index) => this.#cell(index),
    cells: () => Array.from({ length: this.#size }, (_, index) => this.#cell(index) ?? ''),
    byteCells: () => this.#byteCells(),
  };

  constructor({ delimiter, lineEnd = '\n', offset = 0, skipsMark = true }: ScannerOptions) {
    this.#delimiter = delimiterByte(delimiter);
    this.#lineEnd = lineEnd.charCodeAt(0);
    this.#offset = offset;
    this.#mayHaveBom = skipsMark && offset === 0;
  }

  /** Takes the next bytes (they are copied) and yields the records that end in them. Blank lines are not yielded. */
  *push(chunk: Buffer): Generator<CsvRecord, void> {
    this.#take(chunk);
    if (this.#mayHaveBom && !this.#skipBom()) return;
    for (;;) {
      const end = this.#findRecordEnd();
      if (end === -1) return;
      if (!this.#isBlank(end)) yield this.#record(end + 1);
      this.#recordStart = this.#position = end + 1;
      this.#size = 0;
      this.#state = CELL_START;
      this.#line = this.#nextLine;
      this.#hasQuotes = false;
      this.#flaw = undefined;
    }
  }

  /** Byte offset behind the last line end there was, a blank line's too. */
  get end(): number {
    return this.#offset + this.#recordStart;
  }

  /** Bytes behind it, and the line in which they begin. */
  get pending(): { readonly bytes: number; readonly line: number } {
    return { bytes: this.#length - this.#recordStart, line: this.#line };
  }

  /** After the last chunk: the bytes behind the last line end as a record, or undefined when there are none. */
  tail(): CsvTail | undefined {
    if (this.#recordStart === this.#length) return undefined;
    if (this.#state === CR_SEEN) this.#noteTextBehindQuote(this.#length);
    this.#endCell(this.#length);
    return Object.assign(this.#record(this.#length), { insideQuotes: this.#state === QUOTED });
  }

  /** Appends the chunk to what is left of the last one. */
  #take(chunk: Buffer): void {
    const left = this.#length - this.#recordStart;
    const needed = left + chunk.length;
    const target = needed <= this.#buffer.length ? this.#buffer : Buffer.allocUnsafe(needed + (left << 1));
    this.#buffer.copy(target, 0, this.#recordStart, this.#length);
    chunk.copy(target, left);
    this.#buffer = target;
    this.#offset += this.#recordStart;
    this.#position -= this.#recordStart;
    this.#recordStart = 0;
    this.#lineEndAt = -1;
    this.#length = needed;
  }

  /** False while there are too few bytes to tell. */
  #skipBom(): boolean {
    const first = this.#buffer.subarray(0, Math.min(this.#length, BOM.length));
    const isBomSoFar = first.equals(BOM.subarray(0, first.length));
    if (isBomSoFar && first.length < BOM.length) return false;
    this.#mayHaveBom = false;
    if (isBomSoFar) this.#recordStart = this.#position = BOM.length;
    return true;
  }

  /**
   * Goes on to the line end that ends the record and returns its place, or -1 when it is not there yet.
   * The hot loop: all its state is in locals.
   */
  #findRecordEnd(): number {
    const buffer = this.#buffer;
    const delimiter = this.#delimiter;
    const lineEnd = this.#lineEnd;
    const length = this.#length;
    let state = this.#state;
    let position = this.#position;
    let quoted = 0;
    for (; position < length; position++) {
      const byte = buffer[position];
      if (state === QUOTED) {
        if (byte === QUOTE) {
          state = QUOTE_SEEN;
          quoted = 0;
        } else if (++quoted > SHORT_CELL) {
          position = this.#skipQuoted(position) - 1;
          quoted = 0;
        } else if (byte === lineEnd) this.#nextLine++;
      } else if (byte === delimiter) {
        if (state === CR_SEEN) this.#noteTextBehindQuote(position);
        this.#endCell(position);
        state = CELL_START;
      } else if (byte === lineEnd) {
        this.#endCell(this.#isCrlf(position) ? position - 1 : position);
        this.#nextLine++;
        this.#state = state;
        return position;
      } else if (state !== PLAIN || byte === QUOTE) {
        state = this.#leave(state, byte ?? 0, position);
      }
    }
    this.#state = state;
    this.#position = position;
    return -1;
  }

  /** The next quote from here on, or the end of the data; counts the line ends before it. */
  #skipQuoted(from: number): number {
    const quote = this.#indexOf(QUOTE, from);
    if (this.#lineEndAt < from) this.#lineEndAt = this.#indexOf(this.#lineEnd, from);
    while (this.#lineEndAt < quote) {
      this.#nextLine++;
      this.#lineEndAt = this.#indexOf(this.#lineEnd, this.#lineEndAt + 1);
    }
    return quote;
  }

  #indexOf(byte: number, from: number): number {
    const index = this.#buffer.indexOf(byte, from);
    return index === -1 || index > this.#length ? this.#length : index;
  }

  /** What comes after a state outside quotes when neither the cell nor the record ends. */
  #leave(state: number, byte: number, position: number): number {
    if (byte === QUOTE) {
      this.#hasQuotes = true;
      if (state === CELL_START || state === QUOTE_SEEN) return QUOTED;
    }
    if (state === QUOTE_SEEN && byte === CR && this.#lineEnd === LF) return CR_SEEN;
    if (state === QUOTE_SEEN || state === CR_SEEN) this.#noteTextBehindQuote(position);
    else if (state === PLAIN) this.#flaw ??= 'quote-in-cell';
    return PLAIN;
  }

  #noteTextBehindQuote(position: number): void {
    if (this.#flaw === 'swallowed') return;
    const start = this.#recordStart + (this.#size === 0 ? 0 : (this.#cellEnds[this.#size - 1] ?? 0) + 1);
    const quoted = this.#buffer.subarray(start, position);
    const isEnd = (byte: number) => byte === this.#delimiter || byte === LF || byte === CR;
    const holdsEnd = quoted.subarray(0, quoted.lastIndexOf(QUOTE)).some(isEnd);
    this.#flaw = holdsEnd ? 'swallowed' : 'text-behind-quote';
  }

  #isCrlf(position: number): boolean {
    return this.#lineEnd === LF && position > this.#recordStart && this.#buffer[position - 1] === CR;
  }

  #endCell(position: number): void {
    this.#cellEnds[this.#size++] = position - this.#recordStart;
  }

  #isBlank(end: number): boolean {
    return this.#size === 1 && this.#cellEnds[0] === 0 && end - this.#recordStart <= 1;
  }

  #record(end: number): RecordView {
    const start = this.#offset + this.#recordStart;
    return new RecordView(this.#cells, start, this.#offset + end, this.#line, this.#size, this.#flaw);
  }

  #byteCells(): string[] {
    const cells: string[] = [];
    const start = this.#recordStart;
    const text = this.#buffer.toString('latin1', start, start + (this.#cellEnds[this.#size - 1] ?? 0));
    for (let index = 0, from = 0; index < this.#size; index++) {
      const end = this.#cellEnds[index] ?? 0;
      const cell = text.slice(from, end);
      cells.push(this.#hasQuotes ? unquote(cell) : cell);
      from = end + 1;
    }
    return cells;
  }

  #cell(index: number): string | undefined {
    const end = index < this.#size ? this.#cellEnds[index] : undefined;
    if (end === undefined) return undefined;
    const start = index === 0 ? 0 : (this.#cellEnds[index - 1] ?? 0) + 1;
    return decodeCell(this.#buffer, this.#recordStart + start, this.#recordStart + end);
  }
}

function decodeCell(buffer: Buffer, start: number, end: number): string {
  const text = buffer.toString('utf8', start, end);
  return buffer[start] === QUOTE ? unquote(text) : text;
}

/** A cell that is not quoted as it should be (`"a"b`) is taken as it stands. */
function unquote(text: string): string {
  if (text.length < 2 || !text.startsWith('"') || !text.endsWith('"')) return text;
  const inner = text.slice(1, -1);
  if (!inner.includes('"')) return inner;
  return inner.replaceAll('""', '').includes('"') ? text : inner.replaceAll('""', '"');
}

function delimiterByte(delimiter: string): number {
  const byte = delimiter.charCodeAt(0);
  if (delimiter.length !== 1 || byte > 0x7e || byte === QUOTE || byte === LF || byte === CR) {
    throw new RangeError(`a delimiter is one ASCII character, not ${JSON.stringify(delimiter)}`);
  }
  return byte;
}
