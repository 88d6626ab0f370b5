import type { Lookup } from '../producer/produce.js';
import type { Row } from '../producer/row-reader.js';
import type { PreviousFailure } from '../shared/jobs.js';
import type { OutputIndex } from '../writer/output-index.js';
import type { FailuresFile, KnownFailures } from '../writer/failures.js';
import type { Ledger } from './ledger.js';

interface RowLookupDeps {
  readonly ledger: Ledger;
  readonly onFile: OutputIndex;
  readonly failures: FailuresFile;
  /** How rows failed before, by this output and earlier ones. */
  readonly failedBefore: KnownFailures;
  readonly retriesAll: boolean;
}

/** What a run knows of a row when the producer decides on it. */
export class RowLookup implements Lookup {
  /** Names of rows that failed before. */
  readonly #leftFailed = new Set<string>();

  constructor(
    private readonly deps: RowLookupDeps,
    private readonly onlyFailed = false,
  ) {}

  readonly markSeen = (row: Row) => this.deps.onFile.markSeen(row);
  readonly isInOutput = (row: Row) => this.deps.onFile.take(row);
  readonly isDescribed = (image: string) => this.deps.onFile.hasImage(image);
  readonly isPending = (image: string) => this.deps.ledger.isPending(image);
  readonly failedNow = (image: string) => this.deps.failures.failedNow(image);

  previousFailure(row: Row): PreviousFailure | undefined {
    const { ledger, failedBefore } = this.deps;
    const newest = row.image === undefined ? undefined : ledger.oldFailure(row.image);
    return newest ?? failedBefore.get(this.#nameOf(row) ?? '');
  }

  isTakenUp(image: string): boolean {
    const { ledger, retriesAll } = this.deps;
    return retriesAll || ledger.isAnswered(image) || (ledger.jobOf(image)?.state ?? 'failed') !== 'failed';
  }

  isLeftUnlessFailed(image: string): boolean {
    const { ledger } = this.deps;
    // What is in the queue is in flight, has its result, or has failed there.
    return this.onlyFailed && ledger.jobOf(image) === undefined && !ledger.isAnswered(image);
  }

  /** A row is left for the next run; one that failed before stays failed until then. */
  leave(row: Row): void {
    const name = this.#nameOf(row);
    if (name !== undefined && this.deps.failedBefore.has(name)) this.#leftFailed.add(name);
  }

  /** Whether a row that failed before was left as it is; by its key, without keys by its image. */
  isLeftFailed(name = ''): boolean {
    return this.#leftFailed.has(name);
  }

  #nameOf(row: Row): string | undefined {
    return this.deps.onFile.keyed ? row.key : row.image;
  }
}
