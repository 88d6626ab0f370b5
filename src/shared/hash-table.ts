import { hash } from 'node:crypto';

/** Bytes of one cell of a payload column: an unsigned integer of that size. */
export type CellBytes = 2 | 4 | 6;

interface Shard {
  /** Entries in use, and slots there are. */
  count: number;
  capacity: number;
  /** The slots one after the other: the hash's four words, all 0 in a free one, and then the payload. */
  words: Uint16Array;
}

/** Where in a slot a payload column is, in words. */
interface Column {
  readonly at: number;
  readonly words: number;
}

/*
 * 64 small tables in place of a large one: a table that grows needs its old and its new self for a
 * moment, and a 64th of the whole for a few milliseconds is affordable where the whole twice is not.
 */
const SHARDS = 64;
const HASH_WORDS = 4;
const WORD = 0x1_0000;
const FIRST_CAPACITY = 8;
const MAX_LOAD = 0.9;
/** Right after growing a shard is 0.9 / 1.15 = 78 % full: a slot costs at most 1.28 times its bytes. */
const TIGHT_GROWTH = 1.15;
/** On the way to a size that is known before; the larger the steps, the less is copied. */
const EXPECTED_GROWTH = 1.5;
/** Hashes are not spread quite evenly over the shards: the fullest of them has so many times its share. */
const UNEVEN = 1.03;

/**
 * A map from 64-bit hashes to a few unsigned integers, in typed arrays, with open addressing: (8 + cells)
 * bytes a slot and nothing for the garbage collector to look at. What belongs to an entry lies together: with millions of
 * them each look at another place in memory takes longer than all that is done with what is there. Entries cannot be removed. A hash stands
 * for its key, so two keys with one hash are taken for one: 3 in a million for ten million keys.
 *
 * `find` and `add` return an entry's number, which is valid until the next `add`.
 */
export class HashTable {
  #shards: Shard[];
  #size = 0;
  #expected = 0;
  readonly #columns: readonly Column[];
  /** Words of a slot. */
  readonly #stride: number;

  /**
   * @param cells the size of each payload column; new entries hold 0
   * @param growth how many times its size a full table gets: the less, the tighter, and the more is copied
   */
  constructor(
    cells: readonly CellBytes[],
    private readonly growth = TIGHT_GROWTH,
  ) {
    const { columns, stride } = placeColumns(cells);
    this.#columns = columns;
    this.#stride = stride;
    this.#shards = makeShards(stride);
  }

  /** Number of entries. */
  get size(): number {
    return this.#size;
  }

  /** Bytes held by the arrays. */
  get bytes(): number {
    return this.#shards.reduce((bytes, { words }) => bytes + words.byteLength, 0);
  }

  /** Tells about how many entries there will be in the end: it grows towards that in fewer steps. */
  expect(entries: number): void {
    this.#expected = entries;
  }

  /** The entry of a hash, or -1. */
  find(hash: Hash64): number {
    const number = hash.high % SHARDS;
    const shard = this.#shard(number);
    const slot = seek(shard, this.#stride, hash.high, lowOf(hash));
    return isFree(shard, slot * this.#stride) ? -1 : slot * SHARDS + number;
  }

  /** The entry of a hash, made if there is none. */
  add(hash: Hash64): number {
    const number = hash.high % SHARDS;
    const shard = this.#shard(number);
    const stride = this.#stride;
    const low = lowOf(hash);
    let slot = seek(shard, stride, hash.high, low);
    if (isFree(shard, slot * stride)) {
      if (shard.count + 1 > shard.capacity * MAX_LOAD) {
        grow(shard, this.#nextCapacity(shard.capacity), stride);
        slot = seek(shard, stride, hash.high, low);
      }
      write32(shard.words, slot * stride, hash.high);
      write32(shard.words, slot * stride + 2, low);
      shard.count++;
      this.#size++;
    }
    return slot * SHARDS + number;
  }

  /** A payload cell of an entry. */
  get(entry: number, column: number): number {
    const { at, words } = this.#column(column);
    const place = this.#slotOf(entry) + at;
    const shard = this.#shard(entry % SHARDS);
    let value = 0;
    for (let word = 0; word < words; word++) value = value * WORD + (shard.words[place + word] ?? 0);
    return value;
  }

  /** Stores a payload cell; the value must fit the column. */
  set(entry: number, column: number, value: number): void {
    const { at, words } = this.#column(column);
    const place = this.#slotOf(entry) + at;
    const shard = this.#shard(entry % SHARDS);
    for (let word = words - 1, left = value; word >= 0; word--, left = Math.floor(left / WORD)) {
      shard.words[place + word] = left;
    }
  }

  /** Forgets all entries, and gives their memory back. */
  clear(): void {
    this.#shards = makeShards(this.#stride);
    this.#size = 0;
  }

  /** The hash of an entry. */
  hashOf(entry: number): Hash64 {
    const { words } = this.#shard(entry % SHARDS);
    const slot = this.#slotOf(entry);
    return { high: read32(words, slot), low: read32(words, slot + 2) };
  }

  /** Every entry's number, in no order. The table must not grow meanwhile. */
  *entries(): Generator<number, void> {
    for (const [number, shard] of this.#shards.entries()) {
      for (let slot = 0; slot < shard.capacity; slot++) {
        if (!isFree(shard, slot * this.#stride)) yield slot * SHARDS + number;
      }
    }
  }

  /** Sets one column of all entries to what `change` makes of it. */
  mapColumn(column: number, change: (value: number) => number): void {
    for (const entry of this.entries()) this.set(entry, column, change(this.get(entry, column)));
  }

  #nextCapacity(capacity: number): number {
    const expected = Math.min(
      ((this.#expected / SHARDS) * UNEVEN) / MAX_LOAD,
      capacity * Math.max(this.growth, EXPECTED_GROWTH),
    );
    return Math.ceil(Math.max(capacity * this.growth, expected)) + 1;
  }

  /** Where in its shard's words the slot of an entry begins. */
  #slotOf(entry: number): number {
    return Math.floor(entry / SHARDS) * this.#stride;
  }

  #shard(number: number): Shard {
    const shard = this.#shards[number];
    if (shard === undefined) throw new RangeError(`no shard ${number}`);
    return shard;
  }

  #column(number: number): Column {
    const column = this.#columns[number];
    if (column === undefined) throw new RangeError(`no column ${number}`);
    return column;
  }
}

/** A 64-bit hash as two unsigned 32-bit halves: numbers are cheaper than a bigint. */
export interface Hash64 {
  readonly high: number;
  readonly low: number;
}

/** Both halves 0 mean a free slot, so that one hash in 2^64 takes its neighbour's place. */
function lowOf({ high, low }: Hash64): number {
  return high === 0 && low === 0 ? 1 : low;
}

function placeColumns(cells: readonly CellBytes[]): { columns: Column[]; stride: number } {
  const columns: Column[] = [];
  let stride = HASH_WORDS;
  for (const bytes of cells) {
    const words = bytes / 2;
    columns.push({ at: stride, words });
    stride += words;
  }
  return { columns, stride };
}

function makeShards(stride: number): Shard[] {
  return Array.from({ length: SHARDS }, () => ({
    count: 0,
    capacity: FIRST_CAPACITY,
    words: new Uint16Array(FIRST_CAPACITY * stride),
  }));
}

function read32(words: Uint16Array, at: number): number {
  return (words[at] ?? 0) * WORD + (words[at + 1] ?? 0);
}

function write32(words: Uint16Array, at: number, value: number): void {
  words[at] = value >>> 16;
  words[at + 1] = value;
}

function isFree({ words }: Shard, at: number): boolean {
  return words[at] === 0 && words[at + 1] === 0 && words[at + 2] === 0 && words[at + 3] === 0;
}

/** The slot that holds the hash, or the free one where it belongs. There is always a free slot. */
function seek(shard: Shard, stride: number, high: number, low: number): number {
  const { words, capacity } = shard;
  // The low half scaled to the capacity; the high half has already chosen the shard.
  let slot = Math.floor((low * capacity) / 0x1_0000_0000);
  for (;;) {
    const at = slot * stride;
    const isSame = read32(words, at) === high && read32(words, at + 2) === low;
    if (isSame || isFree(shard, at)) return slot;
    slot = slot + 1 === capacity ? 0 : slot + 1;
  }
}

function grow(shard: Shard, capacity: number, stride: number): void {
  const old = { ...shard };
  shard.words = new Uint16Array(capacity * stride);
  shard.capacity = capacity;
  for (let from = 0; from < old.words.length; from += stride) {
    if (isFree(old, from)) continue;
    const slot = seek(shard, stride, read32(old.words, from), read32(old.words, from + 2));
    const to = slot * stride;
    for (let word = 0; word < stride; word++) shard.words[to + word] = old.words[from + word] ?? 0;
  }
}

/** The six bits of each base64url digit, by its character code. */
const BITS = new Uint8Array(128);
for (const [bits, digit] of Array.from(
  'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_',
).entries()) {
  BITS[digit.charCodeAt(0)] = bits;
}

/**
 * The first 64 bits of an image's hash, which is 16 bytes of sha256 as 22 characters of base64url. Taken from the
 * characters: to have Buffer decode them takes ten times as long, and it is done four times for each row of a resumed output.
 */
export function hashOfImage(image: string): Hash64 {
  const bits = (place: number) => BITS[image.charCodeAt(place)] ?? 0;
  const shared = bits(5);
  const high =
    (bits(0) << 26) | (bits(1) << 20) | (bits(2) << 14) | (bits(3) << 8) | (bits(4) << 2) | (shared >> 4);
  const low =
    (shared << 28) | (bits(6) << 22) | (bits(7) << 16) | (bits(8) << 10) | (bits(9) << 4) | (bits(10) >> 2);
  return { high: high >>> 0, low: low >>> 0 };
}

/** The first 64 bits of a text's sha256. */
export function hashOfText(text: string): Hash64 {
  const digest = hash('sha256', text, 'buffer');
  return { high: digest.readUInt32BE(0), low: digest.readUInt32BE(4) };
}
