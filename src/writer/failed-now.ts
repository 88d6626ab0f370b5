import { HashTable } from '../shared/hash-table.js';
import type { FailedOutcome } from '../shared/outcome.js';
import { readFailureAt } from './failures-index.js';
import type { OpenFailures } from './failures-reading.js';
import { hashOfImage } from './hashes.js';

const OFFSET_LOW = 0;
const OFFSET_HIGH = 1;
const TWO_POW_32 = 0x1_0000_0000;

/**
 * How images have failed in the run under way. What it says is read from the partial failures file when it is asked
 * for: memory is some 20 bytes an image.
 */
export class FailedNow {
  readonly #places = new HashTable([4, 2]);

  constructor(private readonly file: OpenFailures) {}

  /** The record at this offset, which is on disk, says how the image failed. */
  note(image: string, offset: number): void {
    const entry = this.#places.add(hashOfImage(image));
    this.#places.set(entry, OFFSET_LOW, offset % TWO_POW_32);
    this.#places.set(entry, OFFSET_HIGH, Math.floor(offset / TWO_POW_32));
  }

  has(image: string): boolean {
    return this.#places.find(hashOfImage(image)) !== -1;
  }

  find(image: string): FailedOutcome | undefined {
    const entry = this.#places.find(hashOfImage(image));
    if (entry === -1) return undefined;
    const offset = this.#places.get(entry, OFFSET_HIGH) * TWO_POW_32 + this.#places.get(entry, OFFSET_LOW);
    return readFailureAt(this.file, offset).outcome;
  }

  async close(): Promise<void> {
    await this.file.handle.close();
  }
}
