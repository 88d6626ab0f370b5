import { isDeepStrictEqual } from 'node:util';
import { FatalError, UsageError, messageOf } from '../shared/errors.js';
import { openCsv, openTsv } from './csv-format.js';
import { openFolder } from './folder-format.js';
import { openJson, openJsonl, openList } from './line-formats.js';
import {
  type FormatOptions,
  type ManifestRecord,
  type ManifestSource,
  type OpenFormat,
  type OpenedFormat,
  SAMPLE_RECORDS,
  readAhead,
} from './manifest-format.js';
import { UnreadableError, findSource, parseEncoding } from './manifest-source.js';
import { openParquet } from './parquet-format.js';

interface Format {
  readonly name: string;
  /** Of a manifest's name; `.gz` may follow. */
  readonly endings: readonly string[];
  /** What `--delimiter` may be, where the format takes it. */
  readonly delimiters?: 'any' | '\t';
  /** Whether it takes `--no-header`. */
  readonly hasHeader?: boolean;
  /** Whether it is bytes, and takes no `--encoding`. */
  readonly isBinary?: boolean;
  /** Whether it takes `--records`. */
  readonly hasRecords?: boolean;
  readonly open: OpenFormat;
}

const FORMATS = [
  { name: 'csv', endings: ['.csv'], delimiters: 'any', hasHeader: true, open: openCsv },
  { name: 'tsv', endings: ['.tsv'], delimiters: '\t', hasHeader: true, open: openTsv },
  { name: 'jsonl', endings: ['.jsonl', '.ndjson'], open: openJsonl },
  { name: 'json', endings: ['.json'], hasRecords: true, open: openJson },
  { name: 'parquet', endings: ['.parquet'], isBinary: true, open: openParquet },
  { name: 'list', endings: ['.txt', '.list', '.urls'], open: openList },
  { name: 'folder', endings: [], open: openFolder },
] as const satisfies readonly Format[];

export type { ManifestRecord } from './manifest-format.js';

export type ManifestFormat = (typeof FORMATS)[number]['name'];
type KnownFormat = Format & { readonly name: ManifestFormat };

export interface ManifestOptions extends FormatOptions {
  /** A file, a folder of images, or `-` for `input`. */
  readonly path: string;
  /** Default: what the name's ending says. */
  readonly format?: Exclude<ManifestFormat, 'folder'> | undefined;
  /** Of text without a byte order mark, see `parseEncoding`; UTF-8. */
  readonly encoding?: string | undefined;
  /** What `-` stands for; default: this process's stdin. */
  readonly input?: NodeJS.ReadableStream | undefined;
  /** Ends the opening, which waits for a pipe's first records, with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** A manifest whose header and first records have been read. */
export interface Manifest {
  readonly path: string;
  /** The paths of what it is read from, in order. */
  readonly files: readonly string[];
  /** How messages name it: the path, or `stdin`. */
  readonly name: string;
  readonly format: ManifestFormat;
  readonly columns: readonly string[];
  /** Of a csv or tsv; a comma for the other formats. */
  readonly delimiter: string;
  /** Columns that are left out, see `OpenedFormat`. */
  readonly unnamedColumns: number;
  /** The first records, at most 100; fewer too when one among them cannot be read past. */
  readonly sample: readonly ManifestRecord[];
  /** Bytes on disk (packed, if it is packed); undefined for stdin and pipes. */
  readonly sizeBytes?: number | undefined;
  /** Whether `batches` can be called again. */
  readonly replayable: boolean;
  /**
   * All records from the first, in batches, read as they are asked for. An abort ends the iteration
   * without an error; every end closes the file.
   * @throws {FatalError} where the manifest cannot be read past, after all records before that place
   */
  batches(signal?: AbortSignal): AsyncIterable<readonly ManifestRecord[]>;
  /** Ends whatever reading is going on, and closes the file. */
  close(): Promise<void>;
}

/**
 * Opens a manifest: finds its format and columns, and reads its first records.
 * @throws {UsageError} one line that says what is wrong with it and what to do
 * @throws the signal's reason when it aborts first
 */
export async function openManifest(options: ManifestOptions): Promise<Manifest> {
  const { path, signal } = options;
  const source = await findSource(path, options.input ?? process.stdin, parseEncoding(options.encoding));
  const format = findFormat(source, options.format);
  const delimiter = findDelimiter(format, options.delimiter);
  refuseForeignFlags(format, options);
  const closing = new AbortController();
  const abort = () => closing.abort();
  signal?.addEventListener('abort', abort, { once: true });
  let opened: OpenedFormat | undefined;
  try {
    signal?.throwIfAborted();
    const { header, columns, records } = options;
    const given = { delimiter, header, columns, records };
    opened = await format.open(source, given, closing.signal);
    const { columns: known, close } = opened;
    const { ahead, all } = await readAhead(
      opened.batches,
      (batches) => batches.flat().length >= SAMPLE_RECORDS,
    );
    signal?.throwIfAborted();
    if (ahead.length === 0) {
      throw new UsageError(`${source.name} has no records, only a header or blank lines: add some`);
    }
    if (source.replayable) await close();
    const again = { ...given, known, delimiter: opened.delimiter, records: opened.records };
    // Of a file nothing is kept that was read ahead: each of a hundred shards would hold megabytes.
    const once = source.replayable ? undefined : { ...opened, batches: all };
    const reopen = (ended: AbortSignal) =>
      once === undefined ? format.open(source, again, ended) : Promise.resolve(once);
    return {
      path,
      files: [path],
      name: source.name,
      format: format.name,
      columns: known,
      delimiter: opened.delimiter,
      unnamedColumns: opened.unnamedColumns ?? 0,
      sample: ahead.flat().slice(0, SAMPLE_RECORDS),
      sizeBytes: source.sizeBytes,
      replayable: source.replayable,
      batches: readings(source, known, reopen, closing),
      async close() {
        closing.abort();
        await close();
      },
    };
  } catch (error) {
    closing.abort();
    await opened?.close();
    signal?.throwIfAborted();
    if (error instanceof UnreadableError)
      throw new UsageError(describeUnreadable(source.name, '', error), { cause: error });
    throw error instanceof FatalError ? new UsageError(messageOf(error), { cause: error }) : error;
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

/** @throws {UsageError} for what is of other formats */
function refuseForeignFlags(format: Format, options: ManifestOptions): void {
  if (options.header === false && format.hasHeader !== true) {
    throw new UsageError(
      `--no-header: only csv and tsv have a header, and the manifest's format is ${format.name}`,
    );
  }
  if (options.columns !== undefined && options.header !== false)
    throw new UsageError('--columns names the columns of a manifest without a header: say --no-header too');
  if (options.encoding !== undefined && format.isBinary === true)
    throw new UsageError(
      `--encoding: only text has one, and the manifest's format is ${format.name}: leave it away`,
    );
  if (options.records !== undefined && format.hasRecords !== true)
    throw new UsageError(`--records: only a json has lists to choose from, and the format is ${format.name}`);
}

/**
 * Of a file each reading begins at its first record; of a pipe there is one, and its abort ends the pipe. Every end of a reading
 * closes the file; an abort ends it without an error.
 */
function readings(
  { name, replayable }: ManifestSource,
  columns: readonly string[],
  open: (signal: AbortSignal) => Promise<OpenedFormat>,
  closing: AbortController,
): Manifest['batches'] {
  let isRead = false;
  return async function* (signal) {
    if (isRead && !replayable && !closing.signal.aborted)
      throw new FatalError(`${name} can be read only once`);
    isRead = true;
    const ended = AbortSignal.any([closing.signal, ...(signal === undefined ? [] : [signal])]);
    // A reading that waits for a pipe's bytes ends only by this.
    if (!replayable) ended.addEventListener('abort', () => closing.abort(), { once: true });
    let line = 0;
    let opened: OpenedFormat | undefined;
    try {
      opened = await open(ended);
      // The file may have been replaced since, and then the cells would go to the wrong columns.
      if (!isDeepStrictEqual(opened.columns, columns))
        throw new FatalError(
          `${name}: its header has changed since it was opened: run the same command again`,
        );
      for await (const batch of opened.batches) {
        if (ended.aborted) return;
        line = batch.at(-1)?.line ?? line;
        yield batch;
      }
    } catch (error) {
      if (ended.aborted) return;
      if (!(error instanceof UnreadableError)) throw error;
      const place = line === 0 ? '' : ` past the record at line ${line}`;
      throw new FatalError(describeUnreadable(name, place, error), { cause: error });
    } finally {
      await opened?.close();
    }
  };
}

function describeUnreadable(name: string, place: string, error: UnreadableError): string {
  return `${name} cannot be read${place}: ${messageOf(error)}: make or fetch it again`;
}

/**
 * Tells a manifest's format: the one that is given, else the one of its name's ending.
 * @param path `-` for stdin
 * @throws {UsageError} when there is neither
 */
function findFormat({ path, isFolder }: ManifestSource, given: ManifestFormat | undefined): KnownFormat {
  if (isFolder && given !== undefined)
    throw new UsageError(`--format ${given}: ${path} is a folder of images: leave it away`);
  const ending = /\.[^./\\]+$/.exec(path.replace(/\.(gz|zst)$/i, ''))?.[0].toLowerCase() ?? '';
  const found = FORMATS.find(({ name, endings }: KnownFormat) =>
    isFolder ? name === 'folder' : given === undefined ? endings.includes(ending) : name === given,
  );
  if (found !== undefined) return found;
  const names = FORMATS.flatMap(({ name, endings }: KnownFormat) => (endings.length > 0 ? name : [])).join(
    '|',
  );
  if (path === '-') {
    throw new UsageError(`the manifest comes from stdin: say what it is with --format ${names}`);
  }
  const known = FORMATS.flatMap(({ endings }) => endings).join(' ');
  throw new UsageError(
    `${path}: its name does not tell its format (known: ${known}, each also with .gz): say --format ${names}`,
  );
}

/**
 * Reads `--delimiter`, which also may be spelled `\t` or `tab`.
 * @throws {UsageError} when it is not one character that can delimit
 */
export function parseDelimiter(text: string): string {
  const delimiter = /^(\\t|tab)$/i.test(text) ? '\t' : text;
  if (/^[\t -!#-~]$/.test(delimiter)) return delimiter;
  throw new UsageError(
    `--delimiter ${JSON.stringify(text)}: expected one ASCII character other than a quote, such as ; or tab`,
  );
}

/**
 * The delimiter of a manifest.
 * @returns undefined when none is given
 * @throws {UsageError} when what is given cannot delimit, or does not go with the format
 */
function findDelimiter({ name, delimiters }: Format, given: string | undefined): string | undefined {
  if (given === undefined) return undefined;
  const delimiter = parseDelimiter(given);
  if (delimiters === 'any' || delimiters === delimiter) return delimiter;
  throw new UsageError(
    `--delimiter ${JSON.stringify(given)}: the manifest's format is ${name}, and only csv has a delimiter to choose: leave one of the two away`,
  );
}
