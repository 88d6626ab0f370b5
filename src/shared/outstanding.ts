import { Bell } from './bell.js';

const LOOK_EVERY_MS = 1000;

/** An image that has been handed to the queue, and the rows that wait for its outcome. */
export interface PendingImage<Row> {
  readonly rows: Row[];
  /** HTTP calls made for it before this run began, so that they are not counted as this run's. */
  submitsBefore: number;
  pollsBefore: number;
  /** True when it was in flight since an earlier run. */
  readonly reattached: boolean;
}

/**
 * The rows between being read and being on disk: what bounds a home's memory and its share of the queue,
 * and what tells when a run is over. A row counts from `add` or `attach` until `release`, or from `hold` until `unhold`.
 */
export class Outstanding<Row> {
  readonly #images = new Map<string, PendingImage<Row>>();
  readonly #changed = new Bell();
  #rows = 0;
  #held = 0;

  /** Rows outstanding. */
  get rows(): number {
    return this.#rows;
  }

  /** Those of them that wait for the disk alone. */
  get held(): number {
    return this.#held;
  }

  /** Images that wait for an outcome, with their rows. */
  get images(): ReadonlyMap<string, PendingImage<Row>> {
    return this.#images;
  }

  add(image: string, pending: PendingImage<Row>): void {
    this.#images.set(image, pending);
    this.#rows += pending.rows.length;
  }

  /** Lets a row wait for an image that is outstanding already; false when it is not. */
  attach(image: string, row: Row): boolean {
    const pending = this.#images.get(image);
    if (pending === undefined) return false;
    pending.rows.push(row);
    this.#rows++;
    return true;
  }

  /** Counts rows that wait for the disk alone. */
  hold(rows: number): void {
    this.#rows += rows;
    this.#held += rows;
  }

  /** Held rows that are on disk now. */
  unhold(rows: number): void {
    this.#held -= rows;
    this.release(rows);
  }

  /** Takes an image's rows out, to be written; they count until they are released. */
  take(image: string): PendingImage<Row> | undefined {
    const pending = this.#images.get(image);
    this.#images.delete(image);
    return pending;
  }

  /** Rows that are on disk now, or that are given up. */
  release(rows: number): void {
    this.#rows -= rows;
    this.wake();
  }

  /** Makes whoever waits look again. */
  wake(): void {
    this.#changed.ring();
  }

  /**
   * Waits until `ready()` is true; it is asked after every change, and each second.
   * @returns false when the signal aborted first
   */
  async until(ready: () => boolean, signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted) {
      if (ready()) return true;
      await this.#changed.wait(LOOK_EVERY_MS, signal);
    }
    return false;
  }
}
