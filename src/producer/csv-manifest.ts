import { FatalError, UsageError, messageOf } from '../shared/errors.js';
import { checkColumnNames, listNames } from './column-names.js';
import { type CsvHeader, findCsvHeader } from './csv-header.js';
import { type ByteRecord, type CsvDialect, readCsvRecords } from './csv-records.js';
import { type ManifestRecord, type RecordReader, inBatches } from './record-reader.js';
import { decodeByteString, isAscii } from './utf8.js';

/** A header does not take more. */
const MAX_HEADER_BYTES = 1024 * 1024;

/**
 * Reads the header of a csv or tsv.
 * @param head the manifest from its first byte; it is not read further than necessary
 * @param options the delimiter, when the header does not have to tell it
 * @throws {UsageError} when there is no header that can be read, or its names cannot be columns
 */
export async function openCsv(
  head: AsyncIterable<Buffer>,
  options: { readonly format: 'csv' | 'tsv'; readonly delimiter: string | undefined; readonly name: string },
): Promise<RecordReader> {
  const { name } = options;
  const { bytes, header } = await readHeader(head, options.delimiter, name);
  const dialect: CsvDialect = {
    delimiter: header.delimiter,
    lineEnd: header.lineEnd,
    relaxQuotes: options.format === 'tsv',
  };
  const columns = await readColumns(bytes.subarray(header.start, header.end), dialect, name);
  checkColumnNames(columns, name);
  return csvReader(columns, dialect, name);
}

function csvReader(columns: readonly string[], dialect: CsvDialect, name: string): RecordReader {
  return {
    columns,
    delimiter: dialect.delimiter,
    async *read(bytes) {
      let number = -1;
      for await (const records of readCsvRecords(bytes, dialect, name)) {
        let data = records;
        if (number === -1 && records[0] !== undefined) {
          assertSameHeader(records[0], columns, name);
          data = records.slice(1);
          number = 0;
        }
        yield* inBatches(data.map((record) => recordOf(record, ++number, columns)));
      }
    },
  };
}

function recordOf(record: ByteRecord, number: number, columns: readonly string[]): ManifestRecord {
  // Most records are as they should be, and ASCII: a million of them are not to be copied cell by cell.
  if (record.cells.length === columns.length && record.cells.every(isAscii)) {
    return { line: record.line, number, cells: record.cells };
  }
  const decoded = record.cells.slice(0, columns.length).map(decodeByteString);
  const cells = columns.map((_, index) => decoded[index]?.text ?? '');
  const { line } = record;
  if (record.cells.length !== columns.length) {
    const found = `${record.cells.length} ${record.cells.length === 1 ? 'cell' : 'cells'}`;
    return { line, number, cells, problem: `${found} where the header has ${columns.length}` };
  }
  const invalid = decoded.findIndex(({ isValid }) => !isValid);
  if (invalid === -1) return { line, number, cells };
  return { line, number, cells, problem: `not valid UTF-8 in column ${listNames([columns[invalid] ?? ''])}` };
}

async function readHeader(
  head: AsyncIterable<Buffer>,
  delimiter: string | undefined,
  name: string,
): Promise<{ bytes: Buffer; header: CsvHeader }> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of head) {
    chunks.push(chunk);
    length += chunk.length;
    const bytes = Buffer.concat(chunks);
    const header = findCsvHeader(bytes, false, delimiter);
    if (header !== undefined) return { bytes, header };
    if (length > MAX_HEADER_BYTES) {
      throw new UsageError(
        `${name}: its header does not end within 1 MB: is a quote not closed, or is it no csv?`,
      );
    }
  }
  const bytes = Buffer.concat(chunks);
  const header = findCsvHeader(bytes, true, delimiter);
  if (header === undefined || header.start === header.end) {
    throw new UsageError(
      `${name} has blank lines only: give a manifest with a header and a record for each image`,
    );
  }
  return { bytes, header };
}

async function readColumns(header: Buffer, dialect: CsvDialect, name: string): Promise<string[]> {
  const record = await firstRecord(header, dialect, name);
  const names = record.map(decodeByteString);
  if (names.some(({ isValid }) => !isValid)) {
    throw new UsageError(`${name}: its header is not UTF-8: convert it to UTF-8 (iconv -f LATIN1 -t UTF-8)`);
  }
  return names.map(({ text }) => text);
}

async function firstRecord(header: Buffer, dialect: CsvDialect, name: string): Promise<readonly string[]> {
  try {
    for await (const [first] of readCsvRecords(once(header), dialect, name)) if (first) return first.cells;
  } catch (error) {
    throw error instanceof FatalError ? new UsageError(messageOf(error), { cause: error }) : error;
  }
  throw new UsageError(`${name}: its header cannot be read`);
}

// eslint-disable-next-line @typescript-eslint/require-await -- a stream of one chunk
async function* once(chunk: Buffer): AsyncGenerator<Buffer, void> {
  yield chunk;
}

/** The file may have been replaced since it was opened, and then the cells would go to the wrong columns. */
function assertSameHeader(record: ByteRecord, columns: readonly string[], name: string): void {
  const found = record.cells.map((cell) => decodeByteString(cell).text);
  if (found.length === columns.length && found.every((column, index) => column === columns[index])) return;
  throw new FatalError(`${name}: its header has changed since it was opened: run the same command again`);
}
