import { HashTable } from '../shared/hash-table.js';
import type { FailedOutcome } from '../shared/outcome.js';
import { readFailureAt } from './failures-index.js';
import type { OpenFailures } from './failures-reading.js';
import { hashOfImage } from '../shared/hashes.js';
import { OFFSET_CELLS, offsetOf, setOffset } from './table-offsets.js';

/**
 * How images have failed in the run under way. What it says is read from the partial failures file when it is asked
 * for: memory is some 20 bytes an image.
 */
export class FailedNow {
  readonly #places = new HashTable(OFFSET_CELLS);

  constructor(private readonly file: OpenFailures) {}

  /** The record at this offset, which is on disk, says how the image failed. */
  note(image: string, offset: number): void {
    setOffset(this.#places, this.#places.add(hashOfImage(image)), offset);
  }

  has(image: string): boolean {
    return this.#places.find(hashOfImage(image)) !== -1;
  }

  find(image: string): FailedOutcome | undefined {
    const entry = this.#places.find(hashOfImage(image));
    if (entry === -1) return undefined;
    return readFailureAt(this.file, offsetOf(this.#places, entry)).outcome;
  }

  async close(): Promise<void> {
    await this.file.handle.close();
  }
}
