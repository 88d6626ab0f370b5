import type { Lookup } from '../producer/decide-row.js';
import type { Row } from '../producer/row-reader.js';
import type { FailedOutcome, PreviousFailure } from '../shared/jobs.js';
import type { DescribedRows } from '../writer/output-index.js';
import type { FailuresFile, KnownFailures } from '../writer/failures.js';
import type { OutputFile } from '../writer/output-file.js';
import type { Ledger } from './ledger.js';
import type { RunOptions } from './run-options.js';

interface RowLookupDeps {
  readonly ledger: Ledger;
  readonly onFile: DescribedRows;
  readonly failures: FailuresFile;
  /** How rows of earlier files failed, where this output knows nothing of it. */
  readonly earlierFailures: KnownFailures | undefined;
  readonly output: OutputFile;
}

/** What a run knows of a row when the producer decides on it. */
export class RowLookup implements Lookup {
  /** Whether permanent failures are taken up too. */
  retriesAll: boolean;
  /** Names of rows that failed before. */
  readonly #leftFailed = new Set<string>();

  constructor(
    private readonly deps: RowLookupDeps,
    private readonly options: Pick<RunOptions, 'retryAll' | 'onlyFailed'>,
  ) {
    this.retriesAll = options.retryAll === true;
  }

  markSeen(row: Row): boolean {
    return this.deps.onFile.markSeen(row);
  }

  isInOutput(row: Row): boolean {
    return this.deps.onFile.take(row);
  }

  isDescribed(image: string): boolean {
    return this.deps.onFile.hasImage(image);
  }

  isPending(image: string): boolean {
    return this.deps.ledger.isPending(image);
  }

  failedNow(image: string): FailedOutcome | undefined {
    return this.deps.failures.failedNow(image);
  }

  previousFailure(row: Row): PreviousFailure | undefined {
    const { ledger, failures, earlierFailures } = this.deps;
    const newest = row.image === undefined ? undefined : ledger.oldFailure(row.image);
    const name = this.#nameOf(row) ?? '';
    return newest ?? failures.previous.get(name) ?? earlierFailures?.get(name);
  }

  isTakenUp(image: string): boolean {
    const { ledger } = this.deps;
    return (
      this.retriesAll || ledger.isAnswered(image) || (ledger.jobOf(image)?.state ?? 'failed') !== 'failed'
    );
  }

  isLeftUnlessFailed(image: string): boolean {
    const { ledger } = this.deps;
    // What is in the queue is in flight, has its result, or has failed there.
    return this.options.onlyFailed === true && ledger.jobOf(image) === undefined && !ledger.isAnswered(image);
  }

  /** A row is left for the next run; one that failed before stays failed until then. */
  leave(row: Row): void {
    const name = this.#nameOf(row);
    if (name !== undefined && this.deps.failures.previous.has(name)) this.#leftFailed.add(name);
  }

  /** Whether a row that failed before was left as it is; by its key, without keys by its image. */
  isLeftFailed(name = ''): boolean {
    return this.#leftFailed.has(name);
  }

  #nameOf(row: Row): string | undefined {
    return this.deps.output.index.keyed ? row.key : row.image;
  }
}
