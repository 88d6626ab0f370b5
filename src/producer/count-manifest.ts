import { FatalError, messageOf } from '../shared/errors.js';
import { HashTable, hashOfImage, hashOfText } from '../shared/hash-table.js';
import type { Manifest } from './manifest.js';
import { type Row, type RowPlan, readRows, toRow } from './row-reader.js';

/** Reading more than this takes longer than anybody waits for a preview. */
const MOST_BYTES = 1024 ** 3;

/**
 * What is known of a row: the output holds it, or only its image; it failed for good before; or nothing. Asked once for
 * each row that has a URL, in the manifest's order, so that occurrences can be counted.
 */
export type IsKnown = (row: {
  readonly key?: string;
  readonly url: string;
  readonly image: string;
}) => 'resumed' | 'copied' | 'failed' | 'new';

/** rows = resumed + copied + failedBefore + newImages + badUrls + badRecords + duplicateKeys */
export interface ManifestCounts {
  /** Only the first records were counted: the manifest is a pipe, or over 1 GB on disk. */
  sampled: boolean;
  rows: number;
  /** Distinct ones. */
  images: number;
  resumed: number;
  /** Rows that share an image with a described row, or with an earlier one that is to be described. */
  copied: number;
  /** Rows that failed in an earlier run in a way that another submit would not change. */
  failedBefore: number;
  /** Their images. */
  failedImages: number;
  /** What is to be paid for. */
  newImages: number;
  /** Rows without a URL, or with one that is none. */
  badUrls: number;
  badRecords: number;
  /** Rows with a key that an earlier one has. */
  duplicateKeys: number;
  firstUrl?: string;
  /** Why the rest was not counted: the manifest cannot be read past some place. */
  unreadable?: string;
}

/**
 * Counts what there is to do, by the rules by which the rows are produced. Memory: 10 to 15 bytes for each
 * distinct image, and for each key.
 * @param options `signal` ends the counting early; `unfinished` gets the rows that the output does not hold
 */
export async function previewManifest(
  manifest: Manifest,
  plan: RowPlan,
  options: {
    readonly isKnown: IsKnown;
    readonly signal?: AbortSignal | undefined;
    readonly unfinished?: UnfinishedRows | undefined;
  },
): Promise<ManifestCounts> {
  const { isKnown, signal, unfinished } = options;
  const counter = new RowCounter(isKnown, plan.keyColumn !== undefined);
  const { counts } = counter;
  counts.sampled = !manifest.replayable || (manifest.sizeBytes ?? 0) > MOST_BYTES;
  if (counts.sampled) {
    for (const record of manifest.sample) counter.count(toRow(record, plan));
    return counts;
  }
  try {
    for await (const rows of readRows(manifest, plan, signal)) {
      for (const row of rows) {
        const kind = counter.count(row);
        if (kind !== 'resumed') unfinished?.add(row, kind === 'repeated');
      }
    }
    if (signal?.aborted !== true) unfinished?.end(counts.rows);
  } catch (error) {
    if (!(error instanceof FatalError)) throw error;
    // The run comes to the same place, and takes on what is before it.
    counts.unreadable = messageOf(error);
  }
  return counts;
}

const NEW_IMAGE = 1;
const FAILED_IMAGE = 2;
/** These tables live for as long as the counting takes: time counts for more than a few bytes. */
const GROWTH = 1.5;

class RowCounter {
  readonly counts: ManifestCounts = {
    sampled: false,
    rows: 0,
    images: 0,
    resumed: 0,
    copied: 0,
    failedBefore: 0,
    failedImages: 0,
    newImages: 0,
    badUrls: 0,
    badRecords: 0,
    duplicateKeys: 0,
  };
  readonly #keys = new HashTable([], GROWTH);
  /** The payload says whether the image has been counted as new, or as failed. */
  readonly #images = new HashTable([2], GROWTH);

  constructor(
    private readonly isKnown: IsKnown,
    private readonly isKeyed: boolean,
  ) {}

  /** Counts a row in one place. */
  count(row: Row): ReturnType<IsKnown> | 'bad' | 'repeated' {
    const { counts } = this;
    counts.rows++;
    if (row.url === undefined || row.image === undefined) {
      if (row.problem?.code === 'bad-record') counts.badRecords++;
      else counts.badUrls++;
      return 'bad';
    }
    if (this.isKeyed && !this.#isFirst(row.key ?? '')) {
      counts.duplicateKeys++;
      return 'repeated';
    }
    return this.#countImage({ key: row.key, url: row.url, image: row.image });
  }

  #isFirst(key: string): boolean {
    const before = this.#keys.size;
    this.#keys.add(hashOfText(key));
    return this.#keys.size > before;
  }

  #countImage(row: Parameters<IsKnown>[0]): ReturnType<IsKnown> {
    const { counts } = this;
    counts.firstUrl ??= row.url;
    const entry = this.#images.add(hashOfImage(row.image));
    counts.images = this.#images.size;
    const known = this.isKnown(row);
    if (known === 'resumed') {
      counts.resumed++;
    } else if (known === 'copied' || this.#images.get(entry, 0) === NEW_IMAGE) {
      counts.copied++;
    } else if (known === 'failed') {
      counts.failedBefore++;
      if (this.#images.get(entry, 0) !== FAILED_IMAGE) counts.failedImages++;
      this.#images.set(entry, 0, FAILED_IMAGE);
    } else {
      this.#images.set(entry, 0, NEW_IMAGE);
      counts.newImages++;
    }
    return known;
  }
}

/** A row that a pass over the manifest has met, and the output does not hold. */
export interface UnfinishedRow {
  readonly row: Row;
  /** Whether an earlier row has its key. */
  readonly isRepeated: boolean;
}

/** Beyond either of these the manifest is read again in place of keeping its rows in memory. */
const MOST_ROWS = 10_000;
const MOST_CHARACTERS = 4 * 1024 * 1024;
/** What a cell takes beside its text. */
const CELL_CHARACTERS = 16;

/**
 * The rows that are left to do, kept from the pass that counts a manifest for the preview. Where they are few, as when
 * a large output is resumed or a nightly manifest has grown a little, the manifest is not read a second time.
 */
export class UnfinishedRows {
  #rows: UnfinishedRow[] = [];
  #characters = 0;
  #isTooMuch = false;
  #total: number | undefined;

  /** Rows of the whole manifest. */
  get total(): number {
    return this.#total ?? 0;
  }

  /** In the manifest's order. */
  get rows(): readonly UnfinishedRow[] {
    return this.#rows;
  }

  /** Whether these are all: the pass went to the manifest's end, and they were few enough. */
  get isWhole(): boolean {
    return this.#total !== undefined && !this.#isTooMuch;
  }

  add(row: Row, isRepeated: boolean): void {
    if (this.#isTooMuch) return;
    this.#characters += row.cells.reduce((sum, cell) => sum + CELL_CHARACTERS + cell.length, 0);
    this.#rows.push({ row, isRepeated });
    if (this.#rows.length <= MOST_ROWS && this.#characters <= MOST_CHARACTERS) return;
    this.#isTooMuch = true;
    this.#rows = [];
  }

  /** The pass has come to the manifest's end. */
  end(total: number): void {
    this.#total = total;
  }
}
