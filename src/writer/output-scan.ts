import type { FileHandle } from 'node:fs/promises';
import { UsageError } from '../shared/errors.js';
import type { CsvHeader } from './csv-header.js';
import type { CsvRecord, CsvTail } from '../shared/record-scanner.js';
import { forEachRecord } from './file-records.js';
import { SIMULATED_MESSAGE_PREFIX } from './output-columns.js';
import { OutputIndex } from './output-index.js';

/** How rows are told apart, by the names of the columns that do it. */
export interface RowIdentity {
  readonly urlColumn: string;
  readonly keyColumn?: string | undefined;
  /** The hash of the image that a URL cell means; undefined when it means none. */
  readonly resolveUrl: (raw: string) => string | undefined;
}

/** What one pass over an output tells. */
export interface ScannedOutput {
  readonly index: OutputIndex;
  /** Where the last whole record ends; what follows is torn. */
  readonly end: number;
  /** Bytes of the torn record. */
  readonly tornBytes: number;
  /** The last record is whole but for its line end. */
  readonly lacksLineEnd: boolean;
  /** Whether there are message ids of the simulator, and of a real API. */
  readonly hasSimulated: boolean;
  readonly hasReal: boolean;
}

const TIMESTAMP = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`;
const WHOLE_TIMESTAMP = new RegExp(`^${TIMESTAMP}\r?$`);
const TIMESTAMP_AT_LINE_END = new RegExp(`${TIMESTAMP}"?\r?\n`);

/** An index that several files share, and the place in it of this one's first byte. */
export interface IndexPart {
  readonly index: OutputIndex;
  readonly firstPlace: number;
}

/**
 * Reads an output from its first row to its end and indexes it.
 * @param into the index that gets the rows; a new one where it is not given
 * @throws {UsageError} when a record has not as many cells as the header, with its line
 */
export async function scanOutput(
  path: string,
  handle: FileHandle,
  header: CsvHeader,
  identity: RowIdentity,
  signal?: AbortSignal,
  into?: IndexPart,
): Promise<ScannedOutput> {
  const rows = new RowReader(header, identity, (await handle.stat()).size, into);
  const scanned = await forEachRow(path, handle, header, (record) => rows.read(record), signal);
  const { index, hasSimulated, hasReal } = rows;
  return { ...scanned, index, hasSimulated, hasReal };
}

/**
 * Calls `visit` with each whole row.
 * @returns how the file ends
 * @throws {UsageError} as `scanOutput`
 */
export async function forEachRow(
  path: string,
  handle: FileHandle,
  header: CsvHeader,
  visit: (record: CsvRecord) => void | Promise<void>,
  signal?: AbortSignal,
): Promise<Pick<ScannedOutput, 'end' | 'tornBytes' | 'lacksLineEnd'>> {
  const checkAndVisit = (record: CsvRecord) => {
    assertSize(path, record, header);
    return visit(record);
  };
  const { end, tail } = await forEachRecord(handle, header, checkAndVisit, signal);
  if (tail === undefined) return { end, tornBytes: 0, lacksLineEnd: false };
  if (isWholeRow(tail, header)) {
    await visit(tail);
    return { end: tail.end, tornBytes: 0, lacksLineEnd: true };
  }
  assertTorn(path, tail);
  return { end: tail.start, tornBytes: tail.end - tail.start, lacksLineEnd: false };
}

/** `described_at` is the last cell of an output's row: where it is whole, so is the row. */
function isWholeRow(tail: CsvTail, header: CsvHeader): boolean {
  const last = tail.cell(header.columns.length - 1) ?? '';
  return !tail.insideQuotes && tail.size === header.columns.length && WHOLE_TIMESTAMP.test(last);
}

/**
 * A quote too many makes the whole rest of a file look like one torn record; cutting that would throw away rows that
 * were paid for. A record that was really torn holds no other row's end.
 */
function assertTorn(path: string, tail: CsvTail): void {
  if (!tail.cells().some((cell) => TIMESTAMP_AT_LINE_END.test(cell))) return;
  throw new UsageError(
    `the output ${path} has a quote too many or too few in the record at line ${tail.line}; repair it, or name another output with -o`,
  );
}

function assertSize(path: string, record: CsvRecord, header: CsvHeader): void {
  const wanted = header.columns.length;
  if (record.size === wanted) return;
  throw new UsageError(
    `the output ${path} has ${record.size} cells in the record at line ${record.line}, not ${wanted}; repair or remove it, or name another output with -o`,
  );
}

/** Rows after which it is estimated anew how many there will be. */
const ESTIMATE_EVERY = 1000;

/** Indexes one record after the other. */
class RowReader {
  readonly index: OutputIndex;
  hasSimulated = false;
  hasReal = false;
  readonly #identity: RowIdentity;
  readonly #firstPlace: number;
  readonly #url: number;
  readonly #key: number | undefined;
  readonly #messageId: number;
  #rows = 0;

  constructor(
    header: CsvHeader,
    identity: RowIdentity,
    private readonly fileBytes: number,
    into: IndexPart | undefined,
  ) {
    const { urlColumn, keyColumn } = identity;
    this.#identity = identity;
    this.index = into?.index ?? new OutputIndex({ keyed: keyColumn !== undefined });
    this.#firstPlace = into?.firstPlace ?? 0;
    this.#url = header.columns.indexOf(urlColumn);
    this.#key = keyColumn === undefined ? undefined : header.columns.indexOf(keyColumn);
    this.#messageId = header.columns.indexOf('message_id');
  }

  read(record: CsvRecord): void {
    const image = this.#identity.resolveUrl(record.cell(this.#url) ?? '');
    // A key column that is new to the output has no cell here, and its rows have the key that an empty cell is.
    const key = this.#key === undefined ? undefined : (record.cell(this.#key) ?? '');
    if (++this.#rows % ESTIMATE_EVERY === 0) {
      const left = (this.fileBytes - record.end) * (this.#rows / record.end);
      this.index.expect(this.index.rows + left);
    }
    this.index.addFound({ image, key, offset: this.#firstPlace + record.start });
    const messageId = record.cell(this.#messageId) ?? '';
    if (messageId.startsWith(SIMULATED_MESSAGE_PREFIX)) this.hasSimulated = true;
    else if (messageId !== '') this.hasReal = true;
  }
}
