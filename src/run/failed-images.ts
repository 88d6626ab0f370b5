import type { Row } from '../producer/row-reader.js';
import type { ResultJobData } from '../shared/jobs.js';
import type { ErrorCode, FailedOutcome } from '../shared/outcome.js';

/** An image that has failed in this run, with the rows that failed with it. */
export interface FailedImage {
  readonly rows: { readonly row: Row; readonly code: ErrorCode }[];
  /** Totals of the image's whole life when it failed. */
  submits: number;
  polls: number;
  maybePaid: number;
}

const KEPT_IMAGES = 1000;
const KEPT_ROWS = 1000;

/**
 * The rows of the images that failed last, as long as the run goes on: whoever watches may put a failed job back,
 * and its prompts need the rows. An image that failed longer ago, or has too many rows, waits for the next run.
 *
 * Invariant: an image is here with all of its rows that have failed, or not at all.
 */
export class FailedImages {
  readonly #images = new Map<string, FailedImage>();
  #hasForgotten = false;

  get(image: string): FailedImage | undefined {
    return this.#images.get(image);
  }

  delete(image: string): void {
    this.#images.delete(image);
  }

  /** An image of this run has failed. */
  add(result: ResultJobData, outcome: FailedOutcome, rows: readonly Row[]): void {
    const { submits, polls, maybePaid } = result;
    const failed = { rows: rows.map((row) => ({ row, code: outcome.code })), submits, polls, maybePaid };
    this.#set(result.image, failed);
  }

  /**
   * One more row fails with an image that failed in this run, or in an earlier one and is not tried again.
   * @param isFirst whether no row of the image can have failed before this one in this run
   */
  addRow(
    row: Row,
    image: string,
    { code }: FailedOutcome,
    { isFirst, ...before }: { isFirst: boolean; submits: number; polls: number },
  ): void {
    // These are about the record and not about its image.
    if (code === 'duplicate-key' || code === 'bad-record') return;
    const known = this.#images.get(image);
    if (known === undefined) {
      if (isFirst && !this.#hasForgotten)
        this.#set(image, { rows: [{ row, code }], ...before, maybePaid: 0 });
      return;
    }
    known.rows.push({ row, code });
    if (known.rows.length > KEPT_ROWS) this.#forget(image);
  }

  #forget(image: string): void {
    this.#images.delete(image);
    this.#hasForgotten = true;
  }

  #set(image: string, failed: FailedImage): void {
    this.#images.set(image, failed);
    const [oldest] = this.#images.keys();
    if (failed.rows.length > KEPT_ROWS) this.#forget(image);
    else if (this.#images.size > KEPT_IMAGES && oldest !== undefined) this.#forget(oldest);
  }
}
