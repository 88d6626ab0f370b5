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
import { holdsUrls } from './image-url.js';
import {
  MAX_RECORD_BYTES,
  NOT_UTF8,
  SAMPLE_RECORDS,
  TRY_ENCODING,
  type ManifestRecord,
  type OpenOptions,
  type OpenedFormat,
  type RecordBatches,
  readAhead,
  textFormat,
} from './manifest-format.js';

/** A header does not take more. */
const MAX_HEADER_BYTES = 1024 * 1024;

/** Taken only where the others find one column. */
const PIPE = '|';

const REASONS: Readonly<Record<CsvFlaw, string>> = {
  'quote-in-cell': 'a cell has a quote in it and is not quoted',
  'text-behind-quote': 'a quoted cell has a quote in it that is not doubled, or is not closed before it',
  'quote-not-closed':
    'a cell begins with a quote that is not closed (or is part of its text, and not doubled)',
  'record-too-long': `it is longer than ${MAX_RECORD_BYTES / 1024 ** 2} MB, probably for a quote that is not closed`,
};

/** A csv. Its header tells the delimiter where the options do not. */
export const openCsv = textFormat((bytes, options) => open(bytes, options, false));

/** A tsv: quotes within a cell are ordinary characters, unless they close one that the cell begins with. */
export const openTsv = textFormat((bytes, options) => open(bytes, { ...options, delimiter: '\t' }, true));

async function open(
  bytes: AsyncGenerator<Buffer, void>,
  options: OpenOptions & { readonly name: string },
  relaxQuotes: boolean,
): Promise<Omit<OpenedFormat, 'close'>> {
  const { name, delimiter, header: hasHeader = true, columns: names, known } = options;
  const { all, header, lineEnd, separator } = await takeHeader(bytes, delimiter, name);
  const given = delimiter ?? separator;
  // A URL in a row may have a pipe in it.
  const candidates = hasHeader ? USUAL_DELIMITERS : USUAL_DELIMITERS.filter((one) => one !== PIPE);
  const dialects = (given === undefined ? candidates : [given]).map((candidate) => ({
    delimiter: candidate,
    lineEnd,
    relaxQuotes,
    maxRecordBytes: MAX_RECORD_BYTES,
  }));
  const { dialect, cells } = await readHeader(header, dialects, name);
  const before = (separator === undefined ? 0 : 1) + (hasHeader ? 1 : 0);
  const { ahead, all: records } = await readAhead(
    readCsv(all, dialect),
    (pieces) => known !== undefined || pieces.flat().length >= before + SAMPLE_RECORDS,
  );
  const head = ahead.flat().slice(before, before + SAMPLE_RECORDS);
  const layout = hasHeader
    ? layOut(cells, (index) =>
        known === undefined
          ? head.some((record) => !isBlank(record.cells[index]))
          : known.includes(nameOf(index)),
      )
    : { width: cells.length, kept: [...cells.keys()], columns: namesOf(cells.length, names, name) };
  // Of a later reading, whoever reads says what has changed.
  if (known === undefined) {
    if (hasHeader) refuseUrls(cells, name);
    checkColumnNames(layout.columns, name);
  }
  const batches = readRecords(records, before, layout, name);
  const unnamedColumns = layout.width - layout.columns.length;
  return { columns: layout.columns, delimiter: dialect.delimiter, unnamedColumns, batches };
}

/** @throws {UsageError} when there are not as many names as cells */
function namesOf(count: number, names: readonly string[] | undefined, name: string): readonly string[] {
  if (names === undefined) return Array.from({ length: count }, (_, index) => `c${index + 1}`);
  if (names.length === count) return names;
  throw new UsageError(
    `--columns: ${name} has ${count} cells in its first record, and ${names.length} names are given`,
  );
}

/** Which of a record's cells are whose. */
interface Layout {
  /** Cells of a record. */
  readonly width: number;
  /** Those that have a column. */
  readonly kept: readonly number[];
  readonly columns: readonly string[];
}

/** A column without a name gets one of ours where something is in it, such as a data frame's index; else it is left out. */
function layOut(header: readonly string[], isUsed: (index: number) => boolean): Layout {
  const kept = [...header.keys()].filter((index) => !isBlank(header[index]) || isUsed(index));
  const columns = kept.map((index) => (isBlank(header[index]) ? nameOf(index) : (header[index] ?? '')));
  return { width: header.length, kept, columns };
}

function nameOf(index: number): string {
  return `column_${index + 1}`;
}

function isBlank(cell = ''): boolean {
  return cell.trim() === '';
}

function refuseUrls(header: readonly string[], name: string): void {
  const url = header.find(holdsUrls);
  if (url === undefined) return;
  throw new UsageError(
    `${name}: its first line holds a URL (${url.slice(0, 80)}), so it is no header: say --no-header, and the columns are c1, c2, ...`,
  );
}

async function* readRecords(
  pieces: AsyncIterable<readonly CsvRecord[]>,
  before: number,
  layout: Layout,
  name: string,
): RecordBatches {
  let number = -before;
  try {
    for await (const records of pieces) {
      const numbered = records.map((record) => toManifestRecord(record, ++number, layout));
      const batch = numbered.filter((record) => record.number > 0);
      if (batch.length > 0) yield batch;
    }
  } catch (error) {
    throw error instanceof CsvSyntaxError ? new FatalError(explain(error, name), { cause: error }) : error;
  }
}

/** Cells that are missing at the end are empty, as are those that are too many. */
function toManifestRecord(record: CsvRecord, number: number, layout: Layout): ManifestRecord {
  const { line, invalidCell } = record;
  const { width, kept, columns } = layout;
  const isPlain = record.cells.length === width && kept.length === width;
  const cells = isPlain ? record.cells : kept.map((index) => record.cells[index] ?? '');
  if (record.cells.every(isBlank)) return { line, number, cells, isEmpty: true };
  const isWhole = record.cells.length <= width && kept.length === width;
  const surplus = isWhole
    ? -1
    : record.cells.findIndex((cell, index) => !isBlank(cell) && !kept.includes(index));
  if (surplus >= width) {
    return { line, number, cells, problem: `${record.cells.length} cells where the header has ${width}` };
  }
  if (surplus !== -1) {
    return { line, number, cells, problem: `text in column ${surplus + 1}, which has no name` };
  }
  if (invalidCell === undefined) return { line, number, cells };
  const column = listNames([columns[kept.indexOf(invalidCell)] ?? '']);
  return { line, number, cells, problem: `${NOT_UTF8} in column ${column}${TRY_ENCODING}` };
}

/** Reads no more bytes than it takes to find the header's end. */
async function takeHeader(bytes: AsyncGenerator<Buffer, void>, delimiter: string | undefined, name: string) {
  let head = '';
  let found = findHeader(head, delimiter);
  const { all } = await readAhead(bytes, (pieces) => {
    head += pieces.at(-1)?.toString('latin1') ?? '';
    found = findHeader(head, delimiter);
    return found.isWhole || head.length > MAX_HEADER_BYTES;
  });
  if (!found.isWhole && head.length > MAX_HEADER_BYTES) {
    throw new UsageError(
      `${name}: its header does not end within 1 MB: is a quote not closed, or is it no csv?`,
    );
  }
  return { all, ...found };
}

/**
 * Finds the first line with text, up to its end outside quotes. CR alone ends lines only where it ends the header: elsewhere it
 * may be part of a cell, and at the end of these bytes it may be half of a CRLF. Excel's first line, `sep=;`, says what
 * the delimiter is.
 * @param head one character for each byte
 */
function findHeader(head: string, delimiter: string | undefined) {
  const [line = '', separator] = /^"?sep=([\t -!#-~])"?\r*\n/i.exec(head) ?? [];
  const text = head.slice(line.length);
  const given = delimiter ?? separator;
  const delimiters = (given === undefined ? USUAL_DELIMITERS : [given]).map(
    (one) => `\\x${one.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
  // A quote opens a cell only where one begins, and behind a quoted one: it is a quote in that one.
  const inCell = `[^\\r\\n"${delimiters.join('')}]`;
  const header = new RegExp(
    `^[\\r\\n]*(?:(?<!${inCell})"[^"]*"|(?<=${inCell})"|[^\\r\\n"])+(\\r*\\n|\\r(?=\\r*[^\\r\\n]))`,
  );
  const found = header.exec(text);
  const lineEnd = found?.[1] === '\r' ? '\r' : '\n';
  return {
    header: Buffer.from(found?.[0] ?? text, 'latin1'),
    isWhole: found !== null,
    lineEnd,
    separator,
  } as const;
}

/** Reads the header in each way that is possible, and takes the one that makes the most columns of it. */
async function readHeader(header: Buffer, dialects: readonly CsvDialect[], name: string) {
  const readings = await Promise.all(
    dialects.map(async (dialect) => ({ dialect, ...(await readFirstRecord(header, dialect)) })),
  );
  const size = ({ record }: (typeof readings)[number]) => record?.cells.length ?? 0;
  const usual = readings.filter((reading) => reading.dialect.delimiter !== PIPE);
  const { dialect, record, error } = (usual.some((reading) => size(reading) > 1) ? usual : readings).reduce(
    (best, next) => (size(next) > size(best) ? next : best),
  );
  if (error !== undefined) throw new UsageError(explain(error, name), { cause: error });
  if (record === undefined) {
    throw new UsageError(
      `${name} has blank lines only: give a manifest with a header and a record for each image`,
    );
  }
  if (record.invalidCell !== undefined) {
    throw new UsageError(`${name}: its header is ${NOT_UTF8}${TRY_ENCODING}`);
  }
  return { dialect, cells: record.cells };
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
