import type { HashTable } from '../shared/hash-table.js';

// A file offset takes 48 bits: the first two columns of a table that has one for each entry.

const LOW = 0;
const HIGH = 1;
const TWO_POW_32 = 0x1_0000_0000;

/** The columns of an offset, which come first. */
export const OFFSET_CELLS = [4, 2] as const;

export function setOffset(table: HashTable, entry: number, offset: number): void {
  table.set(entry, LOW, offset % TWO_POW_32);
  table.set(entry, HIGH, Math.floor(offset / TWO_POW_32));
}

export function offsetOf(table: HashTable, entry: number): number {
  return table.get(entry, HIGH) * TWO_POW_32 + table.get(entry, LOW);
}
