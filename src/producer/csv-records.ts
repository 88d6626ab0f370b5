import { CsvError, type InfoRecord, Parser } from 'csv-parse';
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

/** What csv-parse hands to `on_record` with the option `raw`, and without. */
type ParsedRecord = readonly string[] | { readonly record: readonly string[] };

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
 * within quotes twice; so the records are taken in `on_record`, and lines are counted by what is in the cells.
 */
class CsvFeed {
  readonly #parser: Parser;
  #records: ByteRecord[] = [];
  /** Line ends in the records so far, one behind each and those within their cells. */
  #lines = 0;

  constructor(
    private readonly dialect: CsvDialect,
    private readonly name: string,
  ) {
    this.#parser = new Parser({
      delimiter: dialect.delimiter,
      record_delimiter: [...dialect.lineEnds],
      // One character for each byte: whether it is UTF-8 is found out later.
      encoding: 'latin1',
      raw: dialect.relaxQuotes,
      relax_quotes: dialect.relaxQuotes,
      relax_column_count: true,
      skip_empty_lines: true,
      max_record_size: MAX_RECORD_BYTES,
      on_record: (record: ParsedRecord, info: InfoRecord) => {
        this.#add('record' in record ? record.record : record, info);
        return null;
      },
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

  #add(cells: readonly string[], info: InfoRecord): void {
    const line = 1 + this.#lines + info.empty_lines;
    if (cells.some((cell) => isSwallowed(cell, this.dialect.delimiter, info.raw))) {
      throw new CsvError('CSV_QUOTE_NOT_CLOSED', 'a cell goes on behind its closing quote');
    }
    this.#records.push({ line, cells });
    this.#lines += 1 + countLineEnds(cells, this.dialect.lineEnds.at(-1) ?? '\n');
  }

  #run(call: (done: (error?: Error | null) => void) => unknown): Promise<FatalError | undefined> {
    return new Promise((resolve) => {
      call((error) => resolve(error ? this.#describe(error) : undefined));
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
function isSwallowed(cell: string, delimiter: string, raw: string | undefined): boolean {
  if (raw === undefined || !cell.startsWith('"')) return false;
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
