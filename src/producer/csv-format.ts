import { Readable } from 'node:stream';
import {
  type CsvDialect,
  type CsvFlaw,
  type CsvRecord,
  CsvSyntaxError,
  USUAL_DELIMITERS,
  readCsv,
} from '../shared/csv.js';
import { FatalError, UsageError } from '../shared/errors.js';
import { checkColumnNames, listNames } from './columns.js';
import {
  type FormatOptions,
  MAX_RECORD_BYTES,
  type ManifestRecord,
  type OpenFormat,
  type OpenedFormat,
  type RecordBatches,
  inBatches,
  readAhead,
} from './manifest-format.js';

/** A header does not take more. */
const MAX_HEADER_BYTES = 1024 * 1024;

const LF = 0x0a;
const CR = 0x0d;
const QUOTE = 0x22;

const REASONS: Readonly<Record<CsvFlaw, string>> = {
  'quote-in-cell': 'a cell has a quote in it and is not quoted',
  'text-behind-quote': 'a quoted cell has a quote in it that is not doubled, or is not closed before it',
  'quote-not-closed':
    'a cell begins with a quote that is not closed (or is part of its text, and not doubled)',
  'record-too-long': `it is longer than ${MAX_RECORD_BYTES / 1024 ** 2} MB, probably for a quote that is not closed`,
};

/** A csv. Its header tells the delimiter where the options do not. */
export const openCsv: OpenFormat = (bytes, options) => open(bytes, options, false);

/** A tsv: quotes within a cell are ordinary characters, unless they close one that the cell begins with. */
export const openTsv: OpenFormat = (bytes, options) => open(bytes, { ...options, delimiter: '\t' }, true);

async function open(
  bytes: AsyncGenerator<Buffer, void>,
  { name, delimiter, columns: known }: FormatOptions,
  relaxQuotes: boolean,
): Promise<OpenedFormat> {
  // The first of equals is taken.
  const candidates = delimiter === undefined ? USUAL_DELIMITERS : [delimiter];
  const { all, header, lineEnd } = await takeHeader(bytes, candidates, name);
  const dialects = candidates.map((candidate) => ({
    delimiter: candidate,
    lineEnd,
    relaxQuotes,
    maxRecordBytes: MAX_RECORD_BYTES,
    keepMark: true,
  }));
  const { dialect, columns } = await readHeader(header, dialects, name);
  if (known === undefined) checkColumnNames(columns, name);
  // The file may have been replaced since, and then the cells would go to the wrong columns.
  else if (JSON.stringify(columns) !== JSON.stringify(known)) {
    throw new FatalError(`${name}: its header has changed since it was opened: run the same command again`);
  }
  const batches = readRecords(all, dialect, columns, name);
  return { columns, delimiter: dialect.delimiter, batches };
}

async function* readRecords(
  bytes: AsyncIterable<Buffer>,
  dialect: CsvDialect,
  columns: readonly string[],
  name: string,
): RecordBatches {
  // The header is none.
  let number = -1;
  try {
    for await (const records of readCsv(bytes, dialect)) {
      const numbered = records.map((record) => toManifestRecord(record, ++number, columns));
      yield* inBatches(numbered[0]?.number === 0 ? numbered.slice(1) : numbered);
    }
  } catch (error) {
    throw error instanceof CsvSyntaxError ? new FatalError(explain(error, name), { cause: error }) : error;
  }
}

function toManifestRecord(record: CsvRecord, number: number, columns: readonly string[]): ManifestRecord {
  const { line, cells, invalidCell } = record;
  if (cells.length !== columns.length) {
    const problem = `${cells.length} ${cells.length === 1 ? 'cell' : 'cells'} where the header has ${columns.length}`;
    return { line, number, cells: columns.map((_, index) => cells[index] ?? ''), problem };
  }
  if (invalidCell === undefined) return { line, number, cells };
  const column = listNames([columns[invalidCell] ?? '']);
  return { line, number, cells, problem: `not valid UTF-8 in column ${column}` };
}

/** Reads no more bytes than it takes to find the header's end. */
async function takeHeader(bytes: AsyncGenerator<Buffer, void>, delimiters: readonly string[], name: string) {
  let head = Buffer.alloc(0);
  let found: ReturnType<typeof findHeaderEnd>;
  const { all } = await readAhead(bytes, (pieces) => {
    const last = pieces.at(-1);
    if (last !== undefined) head = Buffer.concat([head, last]);
    found = findHeaderEnd(head, delimiters);
    return found !== undefined || head.length > MAX_HEADER_BYTES;
  });
  if (found === undefined && head.length > MAX_HEADER_BYTES) {
    throw new UsageError(
      `${name}: its header does not end within 1 MB: is a quote not closed, or is it no csv?`,
    );
  }
  const { end, lineEnd } = found ?? { end: head.length, lineEnd: '\n' };
  return { all, header: head.subarray(0, end), lineEnd };
}

/**
 * Finds the first line end outside quotes that is behind some text. CR alone ends lines only where it ends the header:
 * elsewhere it may be part of a cell.
 * @returns undefined when it is not in these bytes
 */
function findHeaderEnd(
  head: Buffer,
  delimiters: readonly string[],
): { readonly end: number; readonly lineEnd: '\n' | '\r' } | undefined {
  const cellsBegin = new Set([QUOTE, LF, CR, ...delimiters.map((delimiter) => delimiter.charCodeAt(0))]);
  let before = LF;
  let isQuoted = false;
  let isBlank = true;
  for (const [position, byte] of head.entries()) {
    const isLineEnd = byte === LF || byte === CR;
    if (byte === QUOTE && (isQuoted || cellsBegin.has(before))) isQuoted = !isQuoted;
    if (isLineEnd && !isQuoted && !isBlank) {
      if (byte === LF) return { end: position + 1, lineEnd: '\n' };
      // It may be half of a CRLF.
      if (position + 1 === head.length) return undefined;
      return head[position + 1] === LF
        ? { end: position + 2, lineEnd: '\n' }
        : { end: position + 1, lineEnd: '\r' };
    }
    if (!isLineEnd) isBlank = false;
    before = byte;
  }
  return undefined;
}

/** Reads the header in each way that is possible, and takes the one that makes the most columns of it. */
async function readHeader(header: Buffer, dialects: readonly CsvDialect[], name: string) {
  const readings = await Promise.all(
    dialects.map(async (dialect) => ({ dialect, ...(await readFirstRecord(header, dialect)) })),
  );
  const size = ({ record }: (typeof readings)[number]) => record?.cells.length ?? 0;
  const { dialect, record, error } = readings.reduce((best, next) => (size(next) > size(best) ? next : best));
  if (error !== undefined) throw new UsageError(explain(error, name), { cause: error });
  if (record === undefined) {
    throw new UsageError(
      `${name} has blank lines only: give a manifest with a header and a record for each image`,
    );
  }
  if (record.invalidCell !== undefined) {
    throw new UsageError(`${name}: its header is not UTF-8: convert it to UTF-8 (iconv -f LATIN1 -t UTF-8)`);
  }
  return { dialect, columns: record.cells };
}

async function readFirstRecord(
  header: Buffer,
  dialect: CsvDialect,
): Promise<{ readonly record?: CsvRecord | undefined; readonly error?: CsvSyntaxError }> {
  try {
    for await (const [record] of readCsv(Readable.from([header]), dialect)) if (record) return { record };
    return {};
  } catch (error) {
    if (error instanceof CsvSyntaxError) return { error };
    throw error;
  }
}

function explain({ line, flaw }: CsvSyntaxError, name: string): string {
  return `${name}, line ${line}: cannot be read past the record that begins here: ${REASONS[flaw]}: correct it there`;
}
