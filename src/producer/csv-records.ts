import { CsvError, type Options, Parser } from 'csv-parse';
import { FatalError } from '../shared/errors.js';
import { MAX_RECORD_BYTES } from './record-reader.js';

/** A record whose cells have one character for each byte, see `decodeByteString`. */
export interface ByteRecord {
  readonly line: number;
  readonly cells: readonly string[];
}

export interface CsvDialect {
  readonly delimiter: string;
  readonly lineEnds: readonly string[];
  /** tsv: quotes within a cell that does not begin with one are ordinary characters. */
  readonly relaxQuotes: boolean;
}

/** csv-parse's codes for what it cannot read past. */
const REASONS: Readonly<Record<string, string>> = {
  CSV_QUOTE_NOT_CLOSED:
    'a cell begins with a quote that is not closed (or is part of its text, and not doubled)',
  CSV_INVALID_CLOSING_QUOTE: 'a quoted cell has a quote in it that is not doubled',
  INVALID_OPENING_QUOTE: 'a cell has a quote in it and is not quoted',
  CSV_MAX_RECORD_SIZE: `it is longer than ${MAX_RECORD_BYTES / 1024 ** 2} MB, probably for a quote that is not closed`,
};

/** What csv-parse pushes with the option `raw`, and without. */
type ParsedRecord = readonly string[] | { readonly record: readonly string[]; readonly raw: string };

/**
 * A parser that hands its records over in the moment in which it has them. `on_record` would do that too, and make an
 * object of statistics for each: a third of all the time that reading a million rows takes.
 */
class RecordParser extends Parser {
  constructor(
    options: Options,
    private readonly onRecord: (record: ParsedRecord) => void,
  ) {
    super(options);
  }

  override push(record: ParsedRecord | null): boolean {
    if (record !== null) this.onRecord(record);
    return true;
  }
}

/**
 * Splits the bytes of a csv or tsv into records; blank lines are left out. Gives the records of each piece of bytes
 * together, and takes the next piece when it is asked to go on.
 * @param name the manifest, for messages
 * @throws {FatalError} at quoting that cannot be read past, and at a record longer than `MAX_RECORD_BYTES`, with the
 *   line in which the record begins; all records before it have been given
 */
export async function* readCsvRecords(
  bytes: AsyncIterable<Buffer>,
  dialect: CsvDialect,
  name: string,
): AsyncGenerator<readonly ByteRecord[], void> {
  const feed = new CsvFeed(dialect, name);
  try {
    for await (const chunk of bytes) {
      const failure = await feed.write(chunk);
      yield feed.take();
      if (failure !== undefined) throw failure;
    }
    const failure = await feed.end();
    yield feed.take();
    if (failure !== undefined) throw failure;
  } finally {
    feed.close();
  }
}

/**
 * csv-parse, fed by hand. As a stream it would drop the records before an error, and its line numbers count a CRLF
 * within quotes twice; so the records are taken as they are pushed, and lines are counted by what is in the cells.
 */
class CsvFeed {
  readonly #parser: RecordParser;
  #records: ByteRecord[] = [];
  /** Line ends in the records so far, one behind each and those within their cells. */
  #lines = 0;

  constructor(
    private readonly dialect: CsvDialect,
    private readonly name: string,
  ) {
    const options: Options = {
      delimiter: dialect.delimiter,
      record_delimiter: [...dialect.lineEnds],
      // One character for each byte: whether it is UTF-8 is found out later.
      encoding: 'latin1',
      raw: dialect.relaxQuotes,
      relax_quotes: dialect.relaxQuotes,
      relax_column_count: true,
      skip_empty_lines: true,
      max_record_size: MAX_RECORD_BYTES,
    };
    this.#parser = new RecordParser(options, (record) => {
      if ('raw' in record) this.#add(record.record, record.raw);
      else this.#add(record);
    });
    // Errors come out of the callbacks of write and end.
    this.#parser.on('error', () => undefined);
  }

  /** @returns what is wrong with a record in these bytes; the ones before it can be taken */
  write(chunk: Buffer): Promise<FatalError | undefined> {
    return this.#run((done) => this.#parser.write(chunk, done));
  }

  end(): Promise<FatalError | undefined> {
    return this.#run((done) => this.#parser.end(done));
  }

  take(): readonly ByteRecord[] {
    const records = this.#records;
    this.#records = [];
    return records;
  }

  close(): void {
    this.#parser.destroy();
  }

  #add(cells: readonly string[], raw?: string): void {
    const line = 1 + this.#lines + this.#parser.info.empty_lines;
    if (raw !== undefined && cells.some((cell) => isSwallowed(cell, this.dialect.delimiter, raw))) {
      throw new CsvError('CSV_QUOTE_NOT_CLOSED', 'a cell goes on behind its closing quote');
    }
    this.#records.push({ line, cells });
    this.#lines += 1 + countLineEnds(cells, this.dialect.lineEnds.at(-1) ?? '\n');
  }

  #run(call: (done: (error?: Error | null) => void) => unknown): Promise<FatalError | undefined> {
    return new Promise((resolve) => {
      try {
        call((error) => resolve(error ? this.#describe(error) : undefined));
      } catch (error) {
        // Of our own, while the record was taken; those of csv-parse come by the callback.
        if (!(error instanceof CsvError)) throw error;
        resolve(this.#describe(error));
      }
    });
  }

  #describe(error: Error): FatalError {
    const line = 1 + this.#lines + this.#parser.info.empty_lines;
    const reason = REASONS[error instanceof CsvError ? error.code : ''] ?? error.message;
    return new FatalError(
      `${this.name}, line ${line}: cannot be read past the record that begins here: ${reason}: correct it there`,
      { cause: error },
    );
  }
}

/**
 * Whether a cell of a tsv began with an ordinary quote, and was read on up to the next one, over the ends of cells
 * or lines. Such a cell comes with its quote, and not in the way in which a quoted cell would be written.
 */
function isSwallowed(cell: string, delimiter: string, raw: string): boolean {
  if (!cell.startsWith('"')) return false;
  if (!cell.includes(delimiter) && !/[\r\n]/.test(cell)) return false;
  return !raw.includes(`"${cell.replaceAll('"', '""')}"`);
}

function countLineEnds(cells: readonly string[], lineEnd: string): number {
  let count = 0;
  for (const cell of cells) {
    for (let at = cell.indexOf(lineEnd); at !== -1; at = cell.indexOf(lineEnd, at + 1)) count++;
  }
  return count;
}
