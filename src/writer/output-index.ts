import { shortHash } from '../shared/short-hash.js';

/** What the index is told of one row of the output. */
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

/** The rows of one key, or without keys of one image. */
interface Rows {
  /** In the output. */
  held: number;
  /** Of the manifest, that this pass has met: with keys 0 or 1, without them no more than are held. */
  met: number;
}

/** A longer key is hashed; and a piece of a long text, which it may be, holds all of that text in memory. */
const MOST_KEY_LENGTH = 12;

/**
 * What the output holds: image -> place in the file, and which manifest rows are in it. Some 150 bytes a row.
 *
 * A manifest row is in the output when its key is; without a key column rows that share an image are told
 * apart by their order only, so the first n rows of an image are the ones the output holds n of. Questions of
 * identity therefore belong to a pass over the manifest, each begun with `startPass`.
 */
export class OutputIndex {
  readonly keyed: boolean;
  readonly #offsets = new Map<string, number>();
  readonly #rowsOf = new Map<string, Rows>();
  #rows = 0;

  constructor(options: { keyed: boolean }) {
    this.keyed = options.keyed;
  }

  /** Rows of the output. */
  get rows(): number {
    return this.#rows;
  }

  /** Forgets everything, and gives the memory back. */
  clear(): void {
    this.#offsets.clear();
    this.#rowsOf.clear();
    this.#rows = 0;
  }

  /** Takes in a row that the output held before this pass. */
  addFound(row: IndexedRow): void {
    this.#add(row);
  }

  /**
   * Takes in a row that was appended during this pass. It counts as met: it stands for a manifest row
   * that this pass has already been through.
   */
  addAppended(row: IndexedRow): void {
    const rows = this.#add(row);
    // A key was met when its row was.
    if (rows !== undefined && !this.keyed) rows.met++;
  }

  /** Where a row of this image starts, for copying its prompts. */
  offsetOf(image: string): number | undefined {
    return this.#offsets.get(image);
  }

  /** Forgets what was met: the manifest is about to be read from its start. */
  startPass(): void {
    for (const rows of this.#rowsOf.values()) rows.met = 0;
  }

  /** Meets a manifest row: false when this pass has met its key already. Without keys always true. */
  markSeen(row: NamedRow): boolean {
    if (!this.keyed) return true;
    const rows = this.#rowsNamed(row);
    if (rows === undefined || rows.met > 0) return false;
    rows.met = 1;
    return true;
  }

  /**
   * Whether the output holds this manifest row. Without keys it is the next one of its image, and each call uses one of
   * the image's rows up.
   */
  take(row: NamedRow): boolean {
    const rows = this.#rowsOf.get(this.#nameOf(row) ?? '');
    if (rows === undefined || rows.held === 0) return false;
    if (this.keyed) return true;
    if (rows.met === rows.held) return false;
    rows.met++;
    return true;
  }

  /** Whether the output holds a row of this key, without keys of this image. */
  has(row: NamedRow): boolean {
    return (this.#rowsOf.get(this.#nameOf(row) ?? '')?.held ?? 0) > 0;
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
    for (const [name, { held, met }] of this.#rowsOf) {
      const other = earlier === undefined ? undefined : earlier.#rowsOf.get(name);
      const isTaken = other !== undefined && (this.keyed ? other.held > 0 : other.met > 0);
      // A key stands for one row only, wherever that is.
      const mine = this.keyed && (isTaken || held === 0) ? 0 : met;
      matched += mine;
      if (met > 0 || (isTaken && !this.keyed)) twice += held - mine;
    }
    return { extra: this.#rows - matched - twice, twice };
  }

  #add({ offset, ...row }: IndexedRow): Rows | undefined {
    this.#rows++;
    if (row.image !== undefined && !this.#offsets.has(row.image)) this.#offsets.set(row.image, offset);
    const rows = this.#rowsNamed(row);
    if (rows !== undefined) rows.held++;
    return rows;
  }

  /** Made if there are none. */
  #rowsNamed(row: NamedRow): Rows | undefined {
    const name = this.#nameOf(row);
    if (name === undefined) return undefined;
    let rows = this.#rowsOf.get(name);
    if (rows === undefined) this.#rowsOf.set(name, (rows = { held: 0, met: 0 }));
    return rows;
  }

  #nameOf({ key = '', image }: NamedRow): string | undefined {
    if (!this.keyed) return image;
    return key.length > MOST_KEY_LENGTH ? shortHash(key) : key;
  }
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

  /** Whether any row of this image is described, so that its prompts can be copied. */
  hasImage(image: string): boolean {
    return this.own.offsetOf(image) !== undefined || this.earlier?.offsetOf(image) !== undefined;
  }

  /** The output's rows that no manifest row stands for, see `OutputIndex.surplus`; not those of earlier files. */
  surplus(): { extra: number; twice: number } {
    return this.own.surplus(this.earlier);
  }
}
