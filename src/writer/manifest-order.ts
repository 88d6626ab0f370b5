import { hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { type NamedRow, nameOf } from '../producer/row-reader.js';
import { FatalError } from '../shared/errors.js';
import type { Cells } from '../shared/json-cells.js';
import { replaceFile } from './durable-file.js';
import { type OutputOptions, keptOf, outputAt } from './output-table.js';
import { type Table, type TableRow, readBytes } from './table.js';

/** Reads the manifest's rows from the first. */
export type ReadManifest = () => AsyncIterable<readonly (NamedRow & Cells)[]>;

/** Of a row that no row of the manifest stands for: it comes behind those that have a place. */
const NO_PLACE = 2 ** 32 - 1;
/** What nobody looks for. */
const NO_HASH = -1;
const PIECE_ROWS = 256;
const PIECE_BYTES = 1 << 20;

/** The rows of a file, numbered as they are in it: some 50 bytes each. */
interface FileRows {
  /** Where each begins, and where the last one ends. */
  readonly offsets: Float64Array;
  /** Of the manifest's cells, and of the key or the image. */
  readonly byCells: Float64Array;
  readonly byName: Float64Array;
}

/**
 * Rewrites an output in the order of its manifest, atomically, unless it is in that order: rows are moved as they are, byte
 * for byte. Rows that the manifest no longer has follow the others.
 * @param handle of the output, whose rows are all in the index of `options`
 * @param signal ends it with its reason, and the output is as it was
 * @throws {FatalError} when the new file cannot be written; the old one is untouched then
 */
export async function putInOrder(
  path: string,
  handle: FileHandle,
  table: Table,
  options: OutputOptions,
  readManifest: ReadManifest,
): Promise<void> {
  const rows = await readFileRows(path, handle, table, options);
  const places = await findPlaces(rows, options, readManifest);
  const order = places.map((_, row) => row);
  order.sort((one, other) => (places[one] ?? 0) - (places[other] ?? 0) || one - other);
  if (order.every((row, place) => row === place)) return;
  await replaceFile(path, async (temp) => {
    await temp.writeFile(await readBytes(handle, 0, rows.offsets[0] ?? 0));
    for await (const piece of readInOrder(path, handle, rows.offsets, order)) {
      options.signal?.throwIfAborted();
      await temp.writeFile(piece);
    }
  });
}

async function readFileRows(
  path: string,
  handle: FileHandle,
  table: Table,
  options: OutputOptions,
): Promise<FileRows> {
  const { index, columns, signal } = options;
  const offsets = new Float64Array(index.rows + 1);
  const byCells = new Float64Array(index.rows);
  const byName = new Float64Array(index.rows);
  let count = 0;
  const visit = (found: readonly TableRow[]) => {
    for (const { cells, offset } of found) {
      offsets[count] = offset;
      byCells[count] = hashOfCells(cells, options);
      byName[count] = hashOfName(nameOf(cells, options), options);
      count++;
    }
  };
  const { end, ending } = await table.forEach(handle, { columns, what: outputAt(path), signal, visit });
  if (count !== index.rows || ending !== 'whole') throw changed(path);
  offsets[count] = end;
  return { offsets, byCells, byName };
}

/**
 * Finds the manifest's row of each row: one with the same cells, and only for what is left then one of the same key or image.
 * Rows that share an image, or a key, keep their own cells so.
 */
async function findPlaces(
  { byCells, byName }: FileRows,
  options: OutputOptions,
  readManifest: ReadManifest,
): Promise<Uint32Array> {
  const places = new Uint32Array(byCells.length).fill(NO_PLACE);
  const find = async (hashes: Float64Array, hashOfRow: (row: NamedRow & Cells) => number) => {
    const taken = places.filter((place) => place !== NO_PLACE).sort();
    const putFirst = placer(hashes, places);
    let [place, met] = [0, 0];
    for await (const rows of readManifest()) {
      options.signal?.throwIfAborted();
      for (const row of rows) {
        if (taken[met] === place) met++;
        else putFirst(hashOfRow(row), place);
        place++;
      }
    }
  };
  await find(byCells, ({ cells }) => hashOfCells(cells, options));
  if (places.includes(NO_PLACE)) await find(byName, (row) => hashOfName(row, options));
  return places;
}

/** Gives places, by their hashes, to the rows that have none: of those that share one to the first in the file. */
function placer(hashes: Float64Array, places: Uint32Array): (hash: number, place: number) => void {
  const rows = places.map((_, row) => row).filter((row) => places[row] === NO_PLACE);
  rows.sort((one, other) => (hashes[one] ?? 0) - (hashes[other] ?? 0) || one - other);
  const hashAt = (at: number) => hashes[rows[at] ?? -1] ?? Infinity;
  /** How many of a hash have theirs, where the first of them is. */
  const placed = new Uint32Array(rows.length);
  return (hash, place) => {
    let [first, end] = [0, rows.length];
    while (first < end) {
      const middle = (first + end) >> 1;
      if (hashAt(middle) < hash) first = middle + 1;
      else end = middle;
    }
    const at = first + (placed[first] ?? 0);
    if (hash === NO_HASH || hashAt(at) !== hash) return;
    places[rows[at] ?? -1] = place;
    placed[first] = at + 1 - first;
  };
}

async function* readInOrder(
  path: string,
  handle: FileHandle,
  offsets: Float64Array,
  order: Uint32Array,
): AsyncGenerator<Buffer, void> {
  const lengthOf = (row: number) => (offsets[row + 1] ?? 0) - (offsets[row] ?? 0);
  for (let start = 0; start < order.length;) {
    let [end, bytes] = [start, 0];
    while (end < order.length && end - start < PIECE_ROWS && bytes < PIECE_BYTES) {
      bytes += lengthOf(order[end++] ?? 0);
    }
    const rows = Array.from(order.subarray(start, end));
    const pieces = rows.map((row) => readBytes(handle, offsets[row] ?? 0, lengthOf(row)));
    const piece = Buffer.concat(await Promise.all(pieces));
    if (piece.length !== bytes) throw changed(path);
    yield piece;
    start = end;
  }
}

function changed(path: string): FatalError {
  return new FatalError(`${outputAt(path)} was changed while the run goes on: it cannot be put in order`);
}

function hashOfCells(cells: readonly string[], options: OutputOptions): number {
  return hashOf(JSON.stringify(keptOf(options, cells)));
}

function hashOfName({ key = '', image }: NamedRow, { index }: OutputOptions): number {
  const name = index.keyed ? key : image;
  return name === undefined ? NO_HASH : hashOf(name);
}

/** As many bits as a number holds: where two texts share one, rows are in another order, and no more. */
function hashOf(text: string): number {
  return Number.parseInt(hash('sha256', text, 'hex').slice(0, 13), 16);
}
