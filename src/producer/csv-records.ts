import { FatalError } from '../shared/errors.js';
import { type CsvRecord, type QuoteFlaw, RecordScanner } from '../shared/record-scanner.js';
import { MAX_RECORD_BYTES } from './record-reader.js';

/** A record whose cells have one character for each byte, see `decodeByteString`. */
export interface ByteRecord {
  readonly line: number;
  readonly cells: readonly string[];
}

export interface CsvDialect {
  readonly delimiter: string;
  /** CR: where that alone ends lines. */
  readonly lineEnd: '\n' | '\r';
  /** tsv: quotes within a cell are ordinary characters, unless they close one that the cell begins with. */
  readonly relaxQuotes: boolean;
}

const NOT_CLOSED = 'a cell begins with a quote that is not closed (or is part of its text, and not doubled)';
const TOO_LONG = `it is longer than ${MAX_RECORD_BYTES / 1024 ** 2} MB, probably for a quote that is not closed`;
const FLAWS: Readonly<Record<QuoteFlaw, string>> = {
  'quote-in-cell': 'a cell has a quote in it and is not quoted',
  'text-behind-quote': 'a quoted cell has a quote in it that is not doubled',
  swallowed: NOT_CLOSED,
};

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
  const scanner = new RecordScanner({ ...dialect, skipsMark: false });
  const fail = (line: number, reason: string) =>
    new FatalError(
      `${name}, line ${line}: cannot be read past the record that begins here: ${reason}: correct it there`,
    );
  for await (const chunk of bytes) {
    const records: ByteRecord[] = [];
    for (const record of scanner.push(chunk)) {
      const reason = findFlaw(record, dialect);
      if (reason !== undefined) {
        yield records;
        throw fail(record.line, reason);
      }
      records.push({ line: record.line, cells: record.byteCells() });
    }
    yield records;
    const { bytes, line } = scanner.pending;
    if (bytes > MAX_RECORD_BYTES) throw fail(line, TOO_LONG);
  }
  const tail = scanner.tail();
  if (tail === undefined) return;
  const reason = findFlaw(tail, dialect) ?? (tail.insideQuotes ? NOT_CLOSED : undefined);
  if (reason !== undefined) throw fail(tail.line, reason);
  yield [{ line: tail.line, cells: tail.byteCells() }];
}

/** Why a record cannot be read past. */
function findFlaw(record: CsvRecord, { relaxQuotes }: CsvDialect): string | undefined {
  if (record.end - record.start > MAX_RECORD_BYTES) return TOO_LONG;
  if (record.flaw === undefined || (relaxQuotes && record.flaw !== 'swallowed')) return undefined;
  return FLAWS[record.flaw];
}
