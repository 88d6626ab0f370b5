import { type Row, placeOf } from '../producer/row-reader.js';
import { type FailedOutcome, type PreviousFailure, isPermanent } from '../shared/jobs.js';
import { type OutputIndex, nameOfKey } from '../writer/output-index.js';
import type { FailuresFile, KnownFailures } from '../writer/failures.js';
import type { Ledger } from './ledger.js';
import type { QueuedJob } from './run-jobs.js';

interface RowDecisionsDeps {
  readonly ledger: Ledger;
  readonly onFile: OutputIndex;
  readonly failures: Pick<FailuresFile, 'failedNow'>;
  /** How rows failed before, by this output and earlier ones. */
  readonly failedBefore: KnownFailures;
  readonly retriesAll: boolean;
}

/** What is to become of a row. */
export type Decision =
  | { readonly action: 'fail'; readonly outcome: FailedOutcome }
  | { readonly action: 'resume' }
  | { readonly action: 'copy'; readonly image: string }
  | { readonly action: 'attach'; readonly image: string }
  /** Another run takes it on. */
  | { readonly action: 'leave' }
  /** To be submitted; `previous` when it failed before, and is taken up after the new rows. */
  | { readonly action: 'submit'; readonly image: string; readonly previous?: PreviousFailure | undefined };

function failBeforeSubmit(code: FailedOutcome['code'], reason: string): Decision {
  return { action: 'fail', outcome: { status: 'failed', code, reason, attempts: 0 } };
}

/** What a run knows of a row, and what is to become of it by that. */
export class RowDecisions {
  /** Names of rows that failed before. */
  readonly #leftFailed = new Set<string>();
  /** Images that an earlier start has paid for, by what their rows are called. */
  readonly #paidByKey = new Map<string, string>();
  /** Images of rows in the place of which others were paid for. */
  readonly #paidAs = new Map<string, string>();

  constructor(
    private readonly deps: RowDecisionsDeps,
    private readonly onlyFailed = false,
  ) {}

  /** An earlier start has left a job of the image in the queue. */
  find(image: string, job: QueuedJob): void {
    this.deps.ledger.find(image, job);
    if (job.state === 'paid' && job.key !== undefined) this.#paidByKey.set(job.key, image);
  }

  /**
   * A row with the image that an earlier start has paid for under its key: its URL may have been signed anew since. So are
   * the rows that share its new image. What is known of that itself counts first.
   */
  asPaidFor(row: Row): Row {
    const { ledger } = this.deps;
    const { key, image } = row;
    if (key === undefined || image === undefined) return row;
    const isKnown = this.isDescribed(image) || ledger.get(image) !== undefined;
    const paid = this.#paidAs.get(image) ?? (isKnown ? undefined : this.#paidUnder(nameOfKey(key)));
    if (paid === undefined) return row;
    this.#paidAs.set(image, paid);
    return { ...row, image: paid };
  }

  /** The image that an earlier start has paid for under a key, while no row waits for it; not one that has failed since. */
  #paidUnder(key: string): string | undefined {
    const image = this.#paidByKey.get(key) ?? '';
    const { state, held } = this.deps.ledger.get(image) ?? {};
    const isThere = state === 'found' || state === 'answered';
    return isThere && held?.result.outcome.status !== 'failed' ? image : undefined;
  }

  /** Decides on a row that is met for the first time in this pass. Uses its occurrence up. */
  decide(row: Row): Decision {
    const { onFile } = this.deps;
    if (row.problem !== undefined) return failBeforeSubmit(row.problem.code, row.problem.reason);
    if (!onFile.markSeen(row)) {
      return failBeforeSubmit(
        'duplicate-key',
        `${placeOf(row)}: an earlier row has the key ${row.key ?? ''}`,
      );
    }
    return onFile.take(row) ? { action: 'resume' } : this.decideImage(row);
  }

  /** Decides by the row's image alone: for rows that are not in the output. May be asked again. */
  decideImage(row: Row): Decision {
    const { image } = row;
    if (image === undefined) return failBeforeSubmit('invalid-url', 'no URL');
    // While its first rows are on disk and not settled yet as well: those that have come since go before this one.
    if (this.deps.ledger.isPending(image)) return { action: 'attach', image };
    if (this.isDescribed(image)) return { action: 'copy', image };
    const now = this.deps.failures.failedNow(image);
    if (now !== undefined) return { action: 'fail', outcome: now };
    const previous = this.previousFailure(row);
    if (previous === undefined && this.isLeftUnlessFailed(image)) return { action: 'leave' };
    if (previous === undefined || previous.image !== image) return { action: 'submit', image };
    if (isPermanent(previous.outcome.code) && !this.isTakenUp(image))
      return { action: 'fail', outcome: previous.outcome };
    return { action: 'submit', image, previous };
  }

  isDescribed(image: string): boolean {
    return this.deps.onFile.hasImage(image);
  }

  /** Whether nobody needs what is in the queue of an image: it is on file, or its row is, from another URL. */
  isDone(image: string, { key }: Pick<QueuedJob, 'key'>): boolean {
    return this.isDescribed(image) || (key !== undefined && this.deps.onFile.hasNamed(key));
  }

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
