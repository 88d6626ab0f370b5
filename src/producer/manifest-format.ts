/** A record of more bytes than this is taken for broken quoting or for something else than a manifest. */
export const MAX_RECORD_BYTES = 16 * 1024 * 1024;

/** One record of a manifest. */
export interface ManifestRecord {
  /** The line of the (unpacked) manifest in which it begins, from 1. */
  readonly line: number;
  /** Which record it is, from 1. */
  readonly number: number;
  /** As many as there are columns, in their order: missing ones of a bad record are empty, surplus ones left out. */
  readonly cells: readonly string[];
  /** What is wrong with it, when it is a bad record; for people, without the line. */
  readonly problem?: string;
  /** All its cells are empty: what spreadsheets leave behind, and no row. */
  readonly isEmpty?: boolean;
  /** Its keys that are no columns: their values come into no file. */
  readonly unknownKeys?: readonly string[];
}

export type RecordBatches = AsyncGenerator<readonly ManifestRecord[], void>;

export interface FormatOptions {
  /** The manifest, for messages. */
  readonly name: string;
  /** Of a csv, where the header does not have to tell it. */
  readonly delimiter?: string | undefined;
  /** Whether a csv's or tsv's first record names its columns (the default); they are `c1`, `c2`, ... otherwise. */
  readonly header?: boolean | undefined;
  /** Those that an earlier reading has found: its records have to fit them. */
  readonly columns?: readonly string[] | undefined;
}

/** A manifest whose columns are known. */
export interface OpenedFormat {
  readonly columns: readonly string[];
  /** Between the cells of csv and tsv; a comma for the others, whose records have none. */
  readonly delimiter: string;
  /** Columns of a csv or tsv without a name and without a cell in the first records: they are left out. */
  readonly unnamedColumns?: number;
  /**
   * All records, in batches: those of a piece of its bytes, at least one.
   * @throws {FatalError} where it cannot be read past, after all records before that place
   */
  readonly batches: RecordBatches;
}

/**
 * A format: finds the columns of a manifest, and makes records of its bytes.
 * @param bytes the manifest's text from its first byte, read no further than necessary; whoever opens ends them too
 * @throws {UsageError} when it is not in this format, or its names cannot be columns
 */
export type OpenFormat = (
  bytes: AsyncGenerator<Buffer, void>,
  options: FormatOptions,
) => Promise<OpenedFormat>;

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
