import { shortHash } from '../shared/short-hash.js';

/** What the index knows of one row of the output. */
export interface IndexedRow {
  /** The image's hash; undefined when the row's URL cannot be read any more. */
  readonly image: string | undefined;
  /** The key column's value; only in an index with keys. */
  readonly key?: string | undefined;
  /** Where the row's record starts. */
  readonly offset: number;
}

/** How a row or its image is called in an index. */
export interface NamedRow {
  /** Only with a key column. */
  readonly key?: string | undefined;
  readonly image?: string | undefined;
}

/** A longer key is hashed; and a piece of a long text, which it may be, holds all of that text in memory. */
const MOST_KEY_LENGTH = 12;

/**
 * What the output holds: image -> place in the file, and which manifest rows are in it. Some 100 bytes a row: numbers
 * in arrays of their own take half of what an object for each row would.
 *
 * A manifest row is in the output when its key is; without a key column rows that share an image are told
 * apart by their order only, so the first n rows of an image are the ones the output holds n of. Questions of
 * identity therefore belong to a pass over the manifest, each begun with `startPass`.
 */
export class OutputIndex {
  readonly keyed: boolean;
  readonly #images = new Map<string, number>();
  /** By the number of an image: where a row of it starts. */
  readonly #offsets: number[] = [];
  /** Of keys; without keys those of images. */
  readonly #names: Map<string, number>;
  /** By the number of a name: rows of the output, and manifest rows that this pass has met (of a key one at most). */
  readonly #held: number[] = [];
  readonly #met: number[] = [];
  /** By the number of an image that was there when this pass began: 1 when the pass has met it. */
  #isMet = new Uint8Array(0);
  #rows = 0;

  constructor(options: { keyed: boolean }) {
    this.keyed = options.keyed;
    this.#names = options.keyed ? new Map<string, number>() : this.#images;
  }

  /** Rows of the output. */
  get rows(): number {
    return this.#rows;
  }

  /** Forgets everything, and gives the memory back. */
  clear(): void {
    for (const map of [this.#images, this.#names]) map.clear();
    for (const list of [this.#offsets, this.#held, this.#met]) list.length = 0;
    this.#isMet = new Uint8Array(0);
    this.#rows = 0;
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
    // A key was met when its row was.
    this.#add(row, this.keyed ? 0 : 1);
  }

  /** Where a row of this image starts, for copying its prompts. */
  offsetOf(image: string): number | undefined {
    const number = this.#images.get(image);
    return number === undefined ? undefined : this.#offsets[number];
  }

  /** Forgets what was met: the manifest is about to be read from its start. */
  startPass(): void {
    this.#met.fill(0);
    this.#isMet = new Uint8Array(this.#images.size);
  }

  /**
   * Meets an image: whether this pass does so for the first time; undefined when the output does not hold it. For the
   * images that it held when the pass began.
   */
  meetImage(image: string): boolean | undefined {
    const number = this.#images.get(image);
    if (number === undefined || this.#offsets[number] === undefined) return undefined;
    const isFirst = this.#isMet[number] !== 1;
    this.#isMet[number] = 1;
    return isFirst;
  }

  /** Meets a manifest row: false when this pass has met its key already. Without keys always true. */
  markSeen(row: NamedRow): boolean {
    if (!this.keyed) return true;
    const number = numberIn(this.#names, this.#nameOf(row) ?? '');
    if ((this.#met[number] ?? 0) > 0) return false;
    this.#held[number] ??= 0;
    this.#met[number] = 1;
    return true;
  }

  /**
   * Whether the output holds this manifest row. Without keys it is the next one of its image, and each call uses one of
   * the image's rows up.
   */
  take(row: NamedRow): boolean {
    const number = this.#names.get(this.#nameOf(row) ?? '');
    if (number === undefined || this.keyed) return this.#heldOf(number) > 0;
    const met = this.#met[number] ?? 0;
    if (met === this.#heldOf(number)) return false;
    this.#met[number] = met + 1;
    return true;
  }

  /** Whether the output holds a row of this key, without keys of this image. */
  has(row: NamedRow): boolean {
    return this.#heldOf(this.#names.get(this.#nameOf(row) ?? '')) > 0;
  }

  /**
   * After a pass over the whole manifest: the output's rows that no manifest row stands for. `twice`: beyond what the
   * manifest has of their key or image; `extra`: the manifest has none like them.
   * @param earlier of other files, through which the same pass went first: a manifest row that they hold is not held
   *   here as well without being there twice
   */
  surplus(earlier?: OutputIndex): { extra: number; twice: number } {
    let matched = 0;
    let twice = 0;
    for (const [name, number] of this.#names) {
      const held = this.#heldOf(number);
      const met = this.#met[number] ?? 0;
      const isTaken = earlier !== undefined && earlier.#hasTaken(name);
      // A key stands for one row only, wherever that is.
      const mine = this.keyed && (isTaken || held === 0) ? 0 : met;
      matched += mine;
      if (met > 0 || (isTaken && !this.keyed)) twice += held - mine;
    }
    return { extra: this.#rows - matched - twice, twice };
  }

  /** Whether a manifest row with this key or image is one of this index's. */
  #hasTaken(name: string): boolean {
    const number = this.#names.get(name);
    return this.keyed ? this.#heldOf(number) > 0 : number !== undefined && (this.#met[number] ?? 0) > 0;
  }

  #heldOf(number: number | undefined): number {
    return number === undefined ? 0 : (this.#held[number] ?? 0);
  }

  #add(row: IndexedRow, met: 0 | 1): void {
    this.#rows++;
    if (row.image !== undefined) this.#offsets[numberIn(this.#images, row.image)] ??= row.offset;
    const name = this.#nameOf(row);
    if (name === undefined) return;
    const number = numberIn(this.#names, name);
    this.#held[number] = (this.#held[number] ?? 0) + 1;
    this.#met[number] = (this.#met[number] ?? 0) + met;
  }

  #nameOf({ key = '', image }: NamedRow): string | undefined {
    if (!this.keyed) return image;
    return key.length > MOST_KEY_LENGTH ? shortHash(key) : key;
  }
}

/** The number of a name; the next one for a name that is new. */
function numberIn(numbers: Map<string, number>, name: string): number {
  const known = numbers.get(name);
  if (known !== undefined) return known;
  const next = numbers.size;
  numbers.set(name, next);
  return next;
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

  /** See `OutputIndex.markSeen`. */
  markSeen(row: NamedRow): boolean {
    return this.own.markSeen(row);
  }

  /** See `OutputIndex.take`. */
  take(row: NamedRow): boolean {
    if (this.earlier?.take(row) !== true) return this.own.take(row);
    this.#fromEarlier++;
    return true;
  }

  /** Whether a row of this key is described; in a manifest without keys, whether one of this image is. */
  has(row: NamedRow): boolean {
    return this.own.has(row) || this.earlier?.has(row) === true;
  }

  /** See `OutputIndex.meetImage`. */
  meetImage(image: string): boolean | undefined {
    return this.own.meetImage(image) ?? this.earlier?.meetImage(image);
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
