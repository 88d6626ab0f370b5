import { type Hash64, HashTable, hashOfImage, hashOfText } from '../shared/hash-table.js';

/* Columns of the image table. */
/** Where a row of the image starts. */
const OFFSET = 0;
/** Only without a key column: rows of the image in the output, and how many of them this pass has met. */
const ROWS = 1;
const MET = 2;
/* The key table's only column: 15 bits of how many rows of the output have the key, and whether this pass met it. */
const KEY = 0;
const KEY_ROWS = 0x7fff;
const KEY_SEEN = 0x8000;

/** What the index is told of one row of the output. */
export interface IndexedRow {
  /** The image's hash; undefined when the row's URL cannot be read any more. */
  readonly image: string | undefined;
  /** The key column's value; only in an index with keys. */
  readonly key?: string | undefined;
  /** Where the row's record starts. */
  readonly offset: number;
}

/**
 * What the output holds: image -> place in the file, and which manifest rows are in it. At most 31 bytes a
 * row, since an output may have ten million.
 *
 * A manifest row is in the output when its key is; without a key column rows that share an image are told
 * apart by their order only, so the first n rows of an image are the ones the output holds n of. Questions of
 * identity therefore belong to a pass over the manifest, each begun with `startPass`.
 */
export class OutputIndex {
  readonly keyed: boolean;
  readonly #images: HashTable;
  readonly #keys: HashTable | undefined;
  #rows = 0;

  constructor(options: { keyed: boolean }) {
    this.keyed = options.keyed;
    this.#images = new HashTable(options.keyed ? [6] : [6, 4, 4]);
    this.#keys = options.keyed ? new HashTable([2]) : undefined;
  }

  /** Rows of the output. */
  get rows(): number {
    return this.#rows;
  }

  /** Bytes that the index takes. */
  get bytes(): number {
    return this.#images.bytes + (this.#keys?.bytes ?? 0);
  }

  /** Forgets everything, and gives the memory back. */
  clear(): void {
    this.#images.clear();
    this.#keys?.clear();
    this.#rows = 0;
  }

  /** Tells about how many rows there will be when all of the output is read. */
  expect(rows: number): void {
    this.#images.expect(rows);
    this.#keys?.expect(rows);
  }

  /** Takes in a row that the output held before this pass. */
  addFound(row: IndexedRow): void {
    this.#add(row, 0);
  }

  /**
   * Takes in a row that was appended during this pass. It counts as met: it stands for a manifest row
   * that this pass has already been through.
   */
  addAppended(row: IndexedRow): void {
    this.#add(row, 1);
  }

  /** Where a row of this image starts, for copying its prompts. */
  offsetOf(image: string): number | undefined {
    const entry = this.#images.find(hashOfImage(image));
    return entry === -1 ? undefined : this.#images.get(entry, OFFSET);
  }

  /** Forgets what was met and seen: the manifest is about to be read from its start. */
  startPass(): void {
    if (this.#keys) this.#keys.mapColumn(KEY, (value) => value & KEY_ROWS);
    else this.#images.mapColumn(MET, () => 0);
  }

  /**
   * Meets the next manifest row of this image: true when it is one that the output holds. Each call uses one of
   * the image's rows up. Only in an index without keys.
   */
  takeOccurrence(image: string): boolean {
    if (this.keyed) throw new Error('rows with keys are told apart by their keys');
    const entry = this.#images.find(hashOfImage(image));
    if (entry === -1) return false;
    const met = this.#images.get(entry, MET);
    if (met >= this.#images.get(entry, ROWS)) return false;
    this.#images.set(entry, MET, met + 1);
    return true;
  }

  /** Whether the output holds a row with this key. */
  keyInOutput(key: string): boolean {
    const keys = this.#keyTable();
    const entry = keys.find(hashOfText(key));
    return entry !== -1 && (keys.get(entry, KEY) & KEY_ROWS) > 0;
  }

  /** Meets a manifest row's key: false when this pass has seen it already. */
  markKeySeen(key: string): boolean {
    const keys = this.#keyTable();
    const entry = keys.add(hashOfText(key));
    const value = keys.get(entry, KEY);
    keys.set(entry, KEY, value | KEY_SEEN);
    return (value & KEY_SEEN) === 0;
  }

  /**
   * After a pass over the whole manifest: the output's rows that no manifest row stands for. `twice`: beyond what the
   * manifest has of their key or image; `extra`: the manifest has none like them.
   * (A key's rows are counted up to 32,767.)
   * @param earlier of other files, through which the same pass went first: a manifest row that they hold is not held
   *   here as well without being there twice
   */
  surplus(earlier?: OutputIndex): { extra: number; twice: number } {
    let matched = 0;
    let twice = 0;
    const table = this.#keys ?? this.#images;
    for (const entry of table.entries()) {
      const [rows, met] = this.#rowsAndMet(table, entry);
      const isTaken = earlier !== undefined && earlier.#hasTaken(table.hashOf(entry));
      // A key stands for one row only, wherever that is.
      const mine = isTaken && this.keyed ? 0 : met;
      matched += mine;
      if (met > 0 || (isTaken && !this.keyed)) twice += rows - mine;
    }
    return { extra: this.#rows - matched - twice, twice };
  }

  /** Whether a manifest row with this key or image is one of this index's. */
  #hasTaken(hash: Hash64): boolean {
    const table = this.#keys ?? this.#images;
    const entry = table.find(hash);
    if (entry === -1) return false;
    const [rows, met] = this.#rowsAndMet(table, entry);
    return this.keyed ? rows > 0 : met > 0;
  }

  #rowsAndMet(table: HashTable, entry: number): [rows: number, met: number] {
    if (table === this.#images) return [table.get(entry, ROWS), table.get(entry, MET)];
    const value = table.get(entry, KEY);
    const rows = value & KEY_ROWS;
    return [rows, rows > 0 && (value & KEY_SEEN) !== 0 ? 1 : 0];
  }

  #add({ image, key, offset }: IndexedRow, met: 0 | 1): void {
    this.#rows++;
    if (image !== undefined) this.#addImage(image, offset, met);
    if (key !== undefined) this.#addKey(key);
  }

  #addImage(image: string, offset: number, met: 0 | 1): void {
    const known = this.#images.size;
    const entry = this.#images.add(hashOfImage(image));
    if (this.#images.size > known) this.#images.set(entry, OFFSET, offset);
    if (this.keyed) return;
    this.#images.set(entry, ROWS, this.#images.get(entry, ROWS) + 1);
    this.#images.set(entry, MET, this.#images.get(entry, MET) + met);
  }

  #addKey(key: string): void {
    const keys = this.#keyTable();
    const entry = keys.add(hashOfText(key));
    const value = keys.get(entry, KEY);
    if ((value & KEY_ROWS) < KEY_ROWS) keys.set(entry, KEY, value + 1);
  }

  #keyTable(): HashTable {
    if (!this.#keys) throw new Error('this index has no keys');
    return this.#keys;
  }
}

/** How a row or its image is called in an index. */
export interface NamedRow {
  /** Only with a key column. */
  readonly key?: string | undefined;
  readonly image?: string | undefined;
}

/**
 * The rows that an output and the earlier files beside it hold together. Of rows that share an image the earlier files
 * hold the first, and the output the next.
 */
export class DescribedRows {
  #fromEarlier = 0;

  /** @param earlier of all earlier files; undefined where there are none */
  constructor(
    private readonly own: OutputIndex,
    private readonly earlier: OutputIndex | undefined,
  ) {}

  /** Manifest rows that this pass has met and earlier files hold. */
  get fromEarlier(): number {
    return this.#fromEarlier;
  }

  /** The manifest is about to be read from its start. */
  startPass(): void {
    this.#fromEarlier = 0;
    this.own.startPass();
    this.earlier?.startPass();
  }

  /** Meets a manifest row's key: false when this pass has seen it already. Without keys always true. */
  markSeen({ key }: NamedRow): boolean {
    return !this.own.keyed || this.own.markKeySeen(key ?? '');
  }

  /** Meets the next manifest row: true when it is one that is described. Without keys each call uses one up. */
  take(row: NamedRow): boolean {
    if (this.earlier !== undefined && takeFrom(this.earlier, row)) {
      this.#fromEarlier++;
      return true;
    }
    return takeFrom(this.own, row);
  }

  /** Whether a row of this key is described; in a manifest without keys, whether one of this image is. */
  has(row: NamedRow): boolean {
    return this.own.keyed
      ? this.own.keyInOutput(row.key ?? '') || this.earlier?.keyInOutput(row.key ?? '') === true
      : row.image !== undefined && this.hasImage(row.image);
  }

  /** Whether any row of this image is described, so that its prompts can be copied. */
  hasImage(image: string): boolean {
    return this.own.offsetOf(image) !== undefined || this.earlier?.offsetOf(image) !== undefined;
  }

  /** The output's rows that no manifest row stands for, see `OutputIndex.surplus`; not those of earlier files. */
  surplus(): { extra: number; twice: number } {
    return this.own.surplus(this.earlier);
  }
}

function takeFrom(index: OutputIndex, { key, image }: NamedRow): boolean {
  if (index.keyed) return index.keyInOutput(key ?? '');
  return image !== undefined && index.takeOccurrence(image);
}
