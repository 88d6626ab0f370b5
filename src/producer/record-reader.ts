/** The most records in a batch. */
export const BATCH_RECORDS = 500;
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
}

/** A manifest's format once its columns are known: makes records of bytes. */
export interface RecordReader {
  readonly columns: readonly string[];
  /** Between the cells of csv and tsv; a comma for the others, whose records have none. */
  readonly delimiter: string;
  /**
   * Reads a manifest from its first byte, in batches of at most `BATCH_RECORDS`.
   * @throws {FatalError} where it cannot be read past, after all records before that place
   */
  read(bytes: AsyncIterable<Buffer>): AsyncGenerator<readonly ManifestRecord[], void>;
}

/** A list in batches. */
export function* inBatches<Item>(items: readonly Item[]): Generator<readonly Item[], void> {
  for (let start = 0; start < items.length; start += BATCH_RECORDS) {
    yield items.slice(start, start + BATCH_RECORDS);
  }
}
