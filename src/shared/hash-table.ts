/** Bytes of one cell of a payload column: an unsigned integer of that size. */
export type CellBytes = 1 | 2 | 4;

type Column = Uint8Array | Uint16Array | Uint32Array;

interface Shard {
  /** Entries in use, and slots there are. */
  count: number;
  capacity: number;
  /** The hash's two halves. Both 0 marks a free slot. */
  high: Uint32Array;
  low: Uint32Array;
  columns: Column[];
}

/*
 * 64 small tables in place of a large one: a table that grows needs its old and its new self for a
 * moment, and a 64th of the whole for a few milliseconds is affordable where the whole twice is not.
 */
const SHARDS = 64;
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
 * bytes a slot and nothing for the garbage collector to look at. Entries cannot be removed. A hash stands
 * for its key, so two keys with one hash are taken for one: 3 in a million for ten million keys.
 *
 * `find` and `add` return an entry's number, which is valid until the next `add`.
 */
export class HashTable {
  #shards: Shard[];
  #size = 0;
  #expected = 0;

  /**
   * @param cells the size of each payload column; new entries hold 0
   * @param growth how many times its size a full table gets: the less, the tighter, and the more is copied
   */
  constructor(
    private readonly cells: readonly CellBytes[],
    private readonly growth = TIGHT_GROWTH,
  ) {
    this.#shards = makeShards(cells);
  }

  /** Number of entries. */
  get size(): number {
    return this.#size;
  }

  /** Bytes held by the arrays. */
  get bytes(): number {
    let bytes = 0;
    for (const { high, low, columns } of this.#shards) {
      bytes += high.byteLength + low.byteLength;
      for (const column of columns) bytes += column.byteLength;
    }
    return bytes;
  }

  /** Tells about how many entries there will be in the end: it grows towards that in fewer steps. */
  expect(entries: number): void {
    this.#expected = entries;
  }

  /** The entry of a hash, or -1. */
  find(hash: Hash64): number {
    const number = hash.high % SHARDS;
    const shard = this.#shard(number);
    const slot = seek(shard, hash.high, lowOf(hash));
    return isFree(shard, slot) ? -1 : slot * SHARDS + number;
  }

  /** The entry of a hash, made if there is none. */
  add(hash: Hash64): number {
    const number = hash.high % SHARDS;
    const shard = this.#shard(number);
    const low = lowOf(hash);
    let slot = seek(shard, hash.high, low);
    if (isFree(shard, slot)) {
      if (shard.count + 1 > shard.capacity * MAX_LOAD) {
        grow(shard, this.#nextCapacity(shard.capacity));
        slot = seek(shard, hash.high, low);
      }
      shard.high[slot] = hash.high;
      shard.low[slot] = low;
      shard.count++;
      this.#size++;
    }
    return slot * SHARDS + number;
  }

  /** A payload cell of an entry. */
  get(entry: number, column: number): number {
    return this.#column(entry % SHARDS, column)[Math.floor(entry / SHARDS)] ?? 0;
  }

  /** Stores a payload cell; the value must fit the column. */
  set(entry: number, column: number, value: number): void {
    this.#column(entry % SHARDS, column)[Math.floor(entry / SHARDS)] = value;
  }

  /** Forgets all entries, and gives their memory back. */
  clear(): void {
    this.#shards = makeShards(this.cells);
    this.#size = 0;
  }

  /** The hash of an entry. */
  hashOf(entry: number): Hash64 {
    const { high, low } = this.#shard(entry % SHARDS);
    const slot = Math.floor(entry / SHARDS);
    return { high: high[slot] ?? 0, low: low[slot] ?? 0 };
  }

  /** Every entry's number, in no order. The table must not grow meanwhile. */
  *entries(): Generator<number, void> {
    for (const [number, shard] of this.#shards.entries()) {
      for (let slot = 0; slot < shard.capacity; slot++) {
        if (!isFree(shard, slot)) yield slot * SHARDS + number;
      }
    }
  }

  /** Sets one column of all entries to what `change` makes of it. */
  mapColumn(column: number, change: (value: number) => number): void {
    for (let number = 0; number < SHARDS; number++) {
      const cells = this.#column(number, column);
      for (let slot = 0; slot < cells.length; slot++) cells[slot] = change(cells[slot] ?? 0);
    }
  }

  #nextCapacity(capacity: number): number {
    const expected = Math.min(
      ((this.#expected / SHARDS) * UNEVEN) / MAX_LOAD,
      capacity * Math.max(this.growth, EXPECTED_GROWTH),
    );
    return Math.ceil(Math.max(capacity * this.growth, expected)) + 1;
  }

  #shard(number: number): Shard {
    const shard = this.#shards[number];
    if (shard === undefined) throw new RangeError(`no shard ${number}`);
    return shard;
  }

  #column(shard: number, column: number): Column {
    const cells = this.#shard(shard).columns[column];
    if (cells === undefined) throw new RangeError(`no column ${column}`);
    return cells;
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

function makeShards(cells: readonly CellBytes[]): Shard[] {
  return Array.from({ length: SHARDS }, () => makeShard(FIRST_CAPACITY, cells));
}

function makeShard(capacity: number, cells: readonly CellBytes[]): Shard {
  return {
    count: 0,
    capacity,
    high: new Uint32Array(capacity),
    low: new Uint32Array(capacity),
    columns: cells.map((bytes) => makeColumn(bytes, capacity)),
  };
}

function makeColumn(bytes: number, capacity: number): Column {
  if (bytes === 1) return new Uint8Array(capacity);
  return bytes === 2 ? new Uint16Array(capacity) : new Uint32Array(capacity);
}

function isFree(shard: Shard, slot: number): boolean {
  return shard.high[slot] === 0 && shard.low[slot] === 0;
}

/** The slot that holds the hash, or the free one where it belongs. There is always a free slot. */
function seek(shard: Shard, hashHigh: number, hashLow: number): number {
  const { high, low, capacity } = shard;
  // The low half scaled to the capacity; the high half has already chosen the shard.
  let slot = Math.floor((hashLow * capacity) / 0x1_0000_0000);
  while (!((high[slot] === hashHigh && low[slot] === hashLow) || isFree(shard, slot))) {
    slot = slot + 1 === capacity ? 0 : slot + 1;
  }
  return slot;
}

function grow(shard: Shard, capacity: number): void {
  const cells = shard.columns.map((column) => column.BYTES_PER_ELEMENT);
  const old = { ...shard };
  shard.high = new Uint32Array(capacity);
  shard.low = new Uint32Array(capacity);
  shard.columns = cells.map((bytes) => makeColumn(bytes, capacity));
  shard.capacity = capacity;
  for (let from = 0; from < old.capacity; from++) {
    if (isFree(old, from)) continue;
    const to = seek(shard, old.high[from] ?? 0, old.low[from] ?? 0);
    shard.high[to] = old.high[from] ?? 0;
    shard.low[to] = old.low[from] ?? 0;
    for (let index = 0; index < shard.columns.length; index++) {
      const [target, source] = [shard.columns[index], old.columns[index]];
      if (target && source) target[to] = source[from] ?? 0;
    }
  }
}
