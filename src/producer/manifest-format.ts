import { UsageError } from '../shared/errors.js';
import type { Cells } from '../shared/json-cells.js';

/** What is wrong with a record; what is said of where that is stands between. */
export const NOT_UTF8 = 'not valid UTF-8';
export const TRY_ENCODING = ': say --encoding, such as windows-1252';

/** A record of more bytes than this is taken for broken quoting or for something else than a manifest. */
export const MAX_RECORD_BYTES = 16 * 1024 * 1024;

/** How many records are looked at before anything is done: for columns, and for what these hold. */
export const SAMPLE_RECORDS = 100;

/** One record of a manifest: as many cells as there are columns, in their order. Missing ones of a bad record are empty, surplus ones left out. */
export interface ManifestRecord extends Cells {
  /** The line of the (unpacked) manifest in which it begins, from 1. */
  readonly line: number;
  /** The name of that manifest, where it is one of several. */
  readonly file?: string;
  /** Which record it is, from 1. */
  readonly number: number;
  /** What is wrong with it, when it is a bad record; for people, without the line. */
  readonly problem?: string;
  /** All its cells are empty: what spreadsheets leave behind, and no row. */
  readonly isEmpty?: boolean;
  /** Its keys that are no columns: their values come into no file. */
  readonly unknownKeys?: readonly string[];
  /** Columns, or paths in them, that hold bytes and no text here: they are empty. */
  readonly binary?: readonly string[];
}

export type RecordBatches = AsyncGenerator<readonly ManifestRecord[], void>;

/** What a manifest is said to be, where it does not tell. */
export interface FormatOptions {
  /** Of a csv; default: found in its header. */
  readonly delimiter?: string | undefined;
  /** False when a csv's or tsv's first record does not name its columns: they are `c1`, `c2`, ... then. */
  readonly header?: boolean | undefined;
  /** Their names then; as many as its first record has cells. */
  readonly columns?: readonly string[] | undefined;
  /** Of a json: the path of the list of its records, keys joined by dots; default: the one list of objects in it. */
  readonly records?: string | undefined;
}

/** What a manifest is opened with. */
export interface OpenOptions extends FormatOptions {
  /** Its columns, where an earlier reading has found them: its records have to fit them. */
  readonly known?: readonly string[] | undefined;
}

/** A manifest whose columns are known. */
export interface OpenedFormat {
  readonly columns: readonly string[];
  /** Between the cells of csv and tsv; a comma for the others, whose records have none. */
  readonly delimiter: string;
  /** Where the records of a json were found. */
  readonly records?: string;
  /** Columns of a csv or tsv without a name and without a cell in the first records: they are left out. */
  readonly unnamedColumns?: number;
  /**
   * All records, in batches: those of a piece of its bytes, at least one.
   * @throws {FatalError} where it cannot be read past, after all records before that place
   */
  readonly batches: RecordBatches;
  /** Ends the reading, and closes what it has opened. */
  readonly close: () => Promise<unknown>;
}

/** Where a manifest comes from. */
export interface ManifestSource {
  /** `-` for stdin. */
  readonly path: string;
  /** How messages name it. */
  readonly name: string;
  /** Of its text, where no byte order mark says it. */
  readonly encoding: string;
  readonly isFolder: boolean;
  /** False when it can be read once only: stdin and pipes. */
  readonly replayable: boolean;
  /** Bytes on disk, packed if it is packed; undefined for what is no file. */
  readonly sizeBytes: number | undefined;
  /**
   * Its text as bytes in UTF-8: unpacked if it is gzip (the first bytes tell), without its byte order mark, in pieces of at most
   * 64 KB that are read when they are asked for. Its end, early or not, closes the file; an abort ends it with some error.
   * @throws {UsageError} at the first piece, when it cannot be opened, is empty, or is no text
   * @throws {UnreadableError} when reading or unpacking fails
   */
  read(signal: AbortSignal): AsyncGenerator<Buffer, void>;
}

/**
 * A format: finds the columns of a manifest, and makes its records, reading no further than necessary. What it has opened is
 * closed when it throws.
 * @param signal ends the reading with some error
 * @throws {UsageError} when it is not in this format, or its names cannot be columns
 */
export type OpenFormat = (
  source: ManifestSource,
  options: OpenOptions,
  signal: AbortSignal,
) => Promise<OpenedFormat>;

/** A format that is text in a file or a pipe; `name` is the manifest's, for messages. */
type OpenText = (
  bytes: AsyncGenerator<Buffer, void>,
  options: OpenOptions & { readonly name: string },
) => Promise<Omit<OpenedFormat, 'close'>>;

export function textFormat(open: OpenText): OpenFormat {
  return async (source, options, signal) => {
    if (source.isFolder) throw new UsageError(`${source.path} is a folder: name a file in it`);
    const bytes = source.read(signal);
    const close = () => bytes.return();
    try {
      return { ...(await open(bytes, { ...options, name: source.name })), close };
    } catch (error) {
      await close();
      throw error;
    }
  };
}

/**
 * Takes items off a source until they are enough, or there are no more. An error behind the first one is left to
 * whoever reads on.
 * @returns what was taken, and everything: that, and then the rest
 */
export async function readAhead<Item>(
  source: AsyncGenerator<Item, void>,
  isEnough: (ahead: readonly Item[]) => boolean,
): Promise<{ readonly ahead: readonly Item[]; readonly all: AsyncGenerator<Item, void> }> {
  const ahead: Item[] = [];
  let failure: { readonly error: unknown } | undefined;
  try {
    while (!isEnough(ahead)) {
      const next = await source.next();
      if (next.done === true) break;
      ahead.push(next.value);
    }
  } catch (error) {
    if (ahead.length === 0) throw error;
    failure = { error };
  }
  const all = async function* () {
    yield* ahead;
    if (failure !== undefined) throw failure.error;
    yield* source;
  };
  return { ahead, all: all() };
}
