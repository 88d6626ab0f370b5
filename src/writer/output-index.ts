import type { NamedRow } from '../producer/row-reader.js';
import { shortHash } from '../shared/short-hash.js';

/** Where a row is: in which file, 0 for the output itself, and at which byte. */
interface Place {
  readonly file: number;
  readonly offset: number;
}

/** Another key is hashed: a piece of a long text, which it may be, holds all of that text in memory. */
const SHORT_KEY = /^[ -~]{0,12}$/;
/** A place as one number: no file is larger, and there are fewer than 8,192 of them. */
const FILE_SPAN = 2 ** 40;

/** By the number of a name: how many rows there are, and how many manifest rows of this pass stand for them. */
interface Rows {
  total: number;
  readonly held: number[];
  readonly met: number[];
}

/**
 * What the output and the earlier files beside it hold: image -> place in a file, and which manifest rows are in them.
 * Some 100 bytes a row: numbers in arrays of their own take half of what an object for each row would.
 *
 * A manifest row is on file when its key is; without a key column rows that share an image are told apart by their order
 * only, so the first n rows of an image are the ones that the files hold n of: the earlier files the first, and the output
 * the next. Questions of identity therefore belong to a pass over the manifest, each begun with `startPass`.
 *
 * Earlier files are to be added before the output.
 */
export class OutputIndex {
  readonly keyed: boolean;
  readonly #images = new Map<string, number>();
  /** By the number of an image. */
  readonly #places: (number | undefined)[] = [];
  /** Of keys; without keys those of images. */
  readonly #names: Map<string, number>;
  /** Of a key one row at most is met, wherever it is. */
  readonly #own: Rows = { total: 0, held: [], met: [] };
  readonly #earlier: Rows = { total: 0, held: [], met: [] };
  /** By the number of an image that was there when this pass began: 1 when the pass has met it. */
  #isMet = new Uint8Array(0);
  #fromEarlier = 0;

  constructor(options: { keyed: boolean }) {
    this.keyed = options.keyed;
    this.#names = options.keyed ? new Map<string, number>() : this.#images;
  }

  /** Rows of the output. */
  get rows(): number {
    return this.#own.total;
  }

  /** Rows of all earlier files. */
  get earlierRows(): number {
    return this.#earlier.total;
  }

  /** Manifest rows that this pass has met and earlier files hold. */
  get fromEarlier(): number {
    return this.#fromEarlier;
  }

  /** The output is about to be read anew. */
  forgetOwn(): void {
    this.#own.total = 0;
    this.#own.held.fill(0);
    for (const [image, place] of this.#places.entries()) {
      if (place !== undefined && place < FILE_SPAN) this.#places[image] = undefined;
    }
  }

  /** Takes in a row that a file held before this pass. */
  addFound(row: NamedRow & Place): void {
    this.#add(row, row.file === 0 ? this.#own : this.#earlier, 0);
  }

  /**
   * Takes in a row that was appended to the output during this pass. It counts as met: it stands for a manifest row
   * that this pass has already been through.
   */
  addAppended(row: NamedRow & { readonly offset: number }): void {
    // A key was met when its row was.
    this.#add({ ...row, file: 0 }, this.#own, this.keyed ? 0 : 1);
  }

  /** Where a row of this image is, for copying its prompts. */
  placeOf(image: string): Place | undefined {
    const place = this.#places[this.#images.get(image) ?? -1];
    return place === undefined
      ? undefined
      : { file: Math.floor(place / FILE_SPAN), offset: place % FILE_SPAN };
  }

  /** Whether any row of this image is described. */
  hasImage(image: string): boolean {
    return this.placeOf(image) !== undefined;
  }

  /** Forgets what was met: the manifest is about to be read from its start. */
  startPass(): void {
    this.#fromEarlier = 0;
    this.#own.met.fill(0);
    this.#earlier.met.fill(0);
    this.#isMet = new Uint8Array(this.#images.size);
  }

  /**
   * Meets an image: whether this pass does so for the first time; undefined when it is not described. For the images that
   * were there when the pass began.
   */
  meetImage(image: string): boolean | undefined {
    const number = this.#images.get(image);
    if (number === undefined || this.#places[number] === undefined) return undefined;
    const isFirst = this.#isMet[number] !== 1;
    this.#isMet[number] = 1;
    return isFirst;
  }

  /** Meets a manifest row: false when this pass has met its key already. Without keys always true. */
  markSeen(row: NamedRow): boolean {
    if (!this.keyed) return true;
    const number = this.#numberOf(this.#nameOf(row) ?? '');
    if (this.#own.met[number] !== 0) return false;
    this.#own.met[number] = 1;
    return true;
  }

  /**
   * Whether this manifest row is on file. Without keys it is the next one of its image, and each call uses one of
   * the image's rows up.
   */
  take(row: NamedRow): boolean {
    const number = this.#names.get(this.#nameOf(row) ?? '');
    if (number === undefined) return false;
    if (!this.#takeFrom(this.#earlier, number)) return this.#takeFrom(this.#own, number);
    this.#fromEarlier++;
    return true;
  }

  /** Whether a row of this key is on file, without keys of this image. */
  has(row: NamedRow): boolean {
    return this.hasNamed(this.#nameOf(row) ?? '');
  }

  /** The same by what `nameOfKey` gives. */
  hasNamed(name: string): boolean {
    const number = this.#names.get(name) ?? -1;
    return (this.#own.held[number] ?? 0) > 0 || (this.#earlier.held[number] ?? 0) > 0;
  }

  /**
   * After a pass over the whole manifest: the output's rows that no manifest row stands for. `twice`: beyond what the
   * manifest and the earlier files leave of their key or image; `extra`: the manifest has none like them.
   */
  surplus(): { extra: number; twice: number } {
    let matched = 0;
    let twice = 0;
    for (const number of this.#names.values()) {
      const held = this.#own.held[number] ?? 0;
      const met = this.#own.met[number] ?? 0;
      const isTaken = ((this.keyed ? this.#earlier.held : this.#earlier.met)[number] ?? 0) > 0;
      // A key stands for one row only, wherever that is.
      const mine = this.keyed && (isTaken || held === 0) ? 0 : met;
      matched += mine;
      if (met > 0 || (isTaken && !this.keyed)) twice += held - mine;
    }
    return { extra: this.rows - matched - twice, twice };
  }

  #takeFrom({ held, met }: Rows, number: number): boolean {
    const isHeld = (held[number] ?? 0) > 0;
    if (!isHeld || this.keyed) return isHeld;
    const taken = met[number] ?? 0;
    if (taken === held[number]) return false;
    met[number] = taken + 1;
    return true;
  }

  #add(row: NamedRow & Place, rows: Rows, met: 0 | 1): void {
    rows.total++;
    const name = this.#nameOf(row);
    if (name !== undefined) {
      const number = this.#numberOf(name);
      rows.held[number] = (rows.held[number] ?? 0) + 1;
      rows.met[number] = (rows.met[number] ?? 0) + met;
    }
    if (row.image !== undefined) {
      this.#places[numberIn(this.#images, row.image)] ??= row.file * FILE_SPAN + row.offset;
    }
  }

  #numberOf(name: string): number {
    const number = numberIn(this.#names, name);
    // No gaps: the engine would make a slow and large table of the list.
    if (number === this.#own.held.length) {
      this.#own.held.push(0);
      this.#own.met.push(0);
    }
    return number;
  }

  #nameOf({ key = '', image }: NamedRow): string | undefined {
    return this.keyed ? nameOfKey(key) : image;
  }
}

/** What a row is called by its key: short, and what every queue can hold. */
export function nameOfKey(key: string): string {
  return SHORT_KEY.test(key) ? key : shortHash(key);
}

/** The number of a name; the next one for a name that is new. */
function numberIn(numbers: Map<string, number>, name: string): number {
  const known = numbers.get(name);
  if (known !== undefined) return known;
  const next = numbers.size;
  numbers.set(name, next);
  return next;
}
