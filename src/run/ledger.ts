import type { Row } from '../producer/row-reader.js';
import { Notifier } from '../shared/waiting.js';
import {
  type ErrorCode,
  type FailedOutcome,
  type PreviousFailure,
  type ResultJobData,
  isOfRecord,
} from '../shared/jobs.js';
import { countFailed, createRunCounts, uncountFailed } from '../shared/run-counts.js';
import type { ResultFate } from '../writer/results-consumer.js';
import type { PayBudget } from './budget.js';
import type { Calls, QueuedJob } from './run-jobs.js';

export type ImageState = 'found' | 'answered' | 'pending' | 'settled';

/** A result that has not been acknowledged yet. */
interface HeldResult {
  readonly result: ResultJobData;
  /** It was there before this run began. */
  readonly isOld: boolean;
  readonly acknowledge: (fate: ResultFate) => void;
}

/** What a run knows of an image. */
export interface ImageEntry {
  state: ImageState;
  /** Rows that wait for the outcome. */
  rows: Row[];
  /** Rows that have failed with the image in this run. */
  failed: { readonly row: Row; readonly code: ErrorCode }[];
  /** Calls that are counted already, or were made before this run. */
  counted: Partial<Record<(typeof COUNTED_CALLS)[number], number>>;
  /** It was in flight before this run, and takes no place of `--limit`. */
  reattached: boolean;
  /** What an earlier run has left in the queue, until the image is taken on. */
  job?: QueuedJob | undefined;
  held?: HeldResult | undefined;
  /** Its outcome is on the way to the disk. */
  writing?: Promise<ResultFate> | undefined;
}

/** How much is remembered of images that have failed. */
const MOST_REMEMBERED = { images: 1000, rowsOfOne: 1000 };
const COUNTED_CALLS = ['submits', 'polls', 'inputTokens', 'outputTokens'] as const;
const NO_CALLS: Calls = { submits: 0, polls: 0 };

/**
 * All that a run knows of its images and of the rows under way: the run is over when none is pending.
 *
 *   found     an earlier start has left its job in the queue; no row of it has been read
 *   answered  its result is there, unacknowledged; no row of it has been read
 *   pending   rows wait for its outcome, or for the disk
 *   settled   it has failed, now or in an earlier start; its rows are remembered for a while
 *
 *   unknown               find ----> found
 *   unknown, found        hold ----> answered
 *   any but pending       takeOn --> pending   a row was read
 *   any but pending       failRow -> settled   a row was read that fails by what an earlier run knew
 *   settled               reopen --> pending   prompts have come: somebody has put the failed job back
 *   pending               settle --> unknown   described: the output's index knows it now
 *   pending               settle --> settled   failed
 *   pending               giveUp --> unknown   its rows remain for the next run
 *
 * What is pending is bounded by the producer's window, and what is settled by `MOST_REMEMBERED`: an image that failed longer
 * ago, or has too many rows, is forgotten. Prompts that come for it are held, and wait for the next run.
 */
export class Ledger {
  readonly counts = createRunCounts();
  /** How many lost submits of an image are counted, by this start or by one before it whose rows may not be written. */
  lost = new Map<string, number>();
  readonly #images = new Map<string, ImageEntry>();
  /** Those that are settled, the oldest first. */
  readonly #settled = new Set<string>();
  readonly #changed = new Notifier();
  /** Rows under way: they wait for an outcome or for the disk. */
  rows = 0;
  /** Those of them that wait for the disk alone. */
  unwritten = 0;
  /** Whether every row of the manifest was read. */
  isRead = false;
  /** Results are taken no more. */
  isOver = false;
  #hasBegun = false;
  #hasForgotten = false;

  constructor(
    readonly budget: PayBudget,
    private readonly most = MOST_REMEMBERED,
  ) {}

  get(image: string): ImageEntry | undefined {
    return this.#images.get(image);
  }

  /** What an earlier run has left in the queue of an image, until it is taken on. */
  jobOf(image: string): QueuedJob | undefined {
    return this.#images.get(image)?.job;
  }

  isPending(image: string): boolean {
    return this.#images.get(image)?.state === 'pending';
  }

  /** Images that wait for an outcome. */
  pending(): string[] {
    return [...this.#images.keys()].filter((image) => this.isPending(image));
  }

  /** An earlier run has left a job of the image in the queue. */
  find(image: string, job: QueuedJob): void {
    this.#entry(image, 'found').job = job;
  }

  /** From here on workers of this run are at work: a failure that comes now is not tried again in this run. */
  begin(): void {
    this.#hasBegun = true;
  }

  /**
   * Keeps a result whose row has not been read yet. Of two results of one image prompts count, whichever came first.
   * @returns what is to become of the result, once that is known
   */
  hold(result: ResultJobData): Promise<ResultFate> {
    const entry = this.#entry(result.image, 'answered');
    if (entry.held?.result.outcome.status === 'described') return Promise.resolve('done');
    entry.held?.acknowledge('done');
    entry.state = 'answered';
    return new Promise((acknowledge) => {
      entry.held = { result, isOld: !this.#hasBegun, acknowledge };
    });
  }

  /** Whether an image that is taken on now has its result already; not one that is to be tried again. */
  isAnswered(image: string): boolean {
    const held = this.#images.get(image)?.held;
    // Failures from before this run are tried again by it; what has failed in it is not.
    return held !== undefined && !(held.isOld && held.result.outcome.status === 'failed');
  }

  /** How the image failed while no run of this output went on: that is newer than what the failures file says. */
  oldFailure(image: string): PreviousFailure | undefined {
    const held = this.#images.get(image)?.held;
    if (held?.isOld !== true || held.result.outcome.status !== 'failed') return undefined;
    return { outcome: held.result.outcome, image };
  }

  /**
   * A row waits for the image from now on. A failure that is tried again has been used up by that.
   * @param isReattached whether it was in flight before this run
   * @returns the result that is there already: a held one, or that of a completed job whose row was lost
   */
  takeOn(image: string, row: Row, isReattached: boolean): Omit<HeldResult, 'isOld'> | undefined {
    const entry = this.#entry(image, 'pending');
    const { job, held } = entry;
    const isAnswered = this.isAnswered(image);
    if (!isAnswered) held?.acknowledge('done');
    const result = isAnswered ? held?.result : job?.result;
    // A job that takes the place of a failed one counts its calls from nothing.
    const left = job?.state === 'failed' ? undefined : job;
    const isFromBefore = isAnswered && (held?.isOld === true || job === undefined);
    const before = isFromBefore ? result : left;
    const { submits, polls } = before ?? NO_CALLS;
    if (before === undefined) this.lost.delete(image);
    this.#settled.delete(image);
    this.#images.set(image, {
      state: 'pending',
      rows: [row],
      failed: [],
      counted: { submits, polls },
      reattached: isReattached,
    });
    this.rows++;
    if (isReattached) this.counts.reattached++;
    return result && { result, acknowledge: (fate) => isAnswered && held?.acknowledge(fate) };
  }

  /** Lets a row wait for an image that is pending already; false when it is not. */
  attach(image: string, row: Row): boolean {
    const entry = this.#images.get(image);
    if (entry?.state !== 'pending') return false;
    entry.rows.push(row);
    this.rows++;
    return true;
  }

  /** Prompts have come for an image that failed: its failed rows wait for the disk again. */
  reopen(image: string): void {
    const entry = this.#images.get(image);
    if (entry?.state !== 'settled') return;
    this.#settled.delete(image);
    // The result that it failed with may still be held: its rows are on disk.
    entry.held?.acknowledge('done');
    entry.held = undefined;
    entry.state = 'pending';
    // Beyond the budget it is paid for all the same, by whoever has put it back.
    entry.reattached = !this.budget.take();
    entry.rows = entry.failed.map(({ row }) => row);
    this.rows += entry.rows.length;
  }

  /**
   * The outcome of a pending image is on disk.
   * @param written how many of its rows are there
   * @returns rows that were read while the first ones went to disk; they are not under way any more
   */
  settle(result: ResultJobData, written: number): readonly Row[] {
    const entry = this.#images.get(result.image);
    if (entry?.state !== 'pending') return [];
    const { image, outcome } = result;
    const { rows } = entry;
    if (outcome.status === 'described') {
      this.#images.delete(image);
      this.counts.described++;
      this.counts.copied += written - 1;
      for (const { code } of entry.failed) uncountFailed(this.counts, code);
      if (!entry.reattached) this.budget.spend();
    } else {
      const { code } = outcome;
      for (const row of rows.slice(0, written)) {
        countFailed(this.counts, code);
        entry.failed.push({ row, code });
      }
      entry.rows = [];
      // An answer that cannot be used was paid for as well.
      const isPaid = outcome.answer !== undefined;
      if (!entry.reattached) this.budget[isPaid ? 'spend' : 'giveBack']();
      this.#remember(image, entry);
    }
    this.#release(rows.length);
    return rows.slice(written);
  }

  /** A row is about to fail with its image, which has failed in this run, or in an earlier one and is not tried again. */
  failRow(row: Row, outcome: FailedOutcome): void {
    const { image } = row;
    if (image === undefined || isOfRecord(outcome)) return;
    const known = this.#images.get(image);
    if (known?.state === 'pending' || (known?.state !== 'settled' && this.#hasForgotten)) return;
    const entry = this.#entry(image, 'settled');
    const { submits, polls } = entry.job ?? NO_CALLS;
    if (known?.state !== 'settled') entry.counted = { submits, polls };
    entry.failed.push({ row, code: outcome.code });
    this.#remember(image, entry);
  }

  /**
   * Counts what was called for an image since it was counted last.
   * @returns how many more submits may have been paid for twice
   */
  countCalls(image: string, calls: Calls): number {
    const more = this.countLost(image, calls.maybePaid ?? 0);
    const entry = this.#images.get(image);
    if (entry === undefined) return more;
    const counted = { ...entry.counted };
    for (const call of COUNTED_CALLS) {
      const before = counted[call] ?? 0;
      // A job that was taken for lost knows of no calls.
      const now = Math.max(before, calls[call] ?? 0);
      counted[call] = now;
      this.counts[call] += now - before;
    }
    entry.counted = counted;
    return more;
  }

  /** As `countCalls`, of lost submits alone. */
  countLost(image: string, maybePaid: number): number {
    const more = Math.max(0, maybePaid - (this.lost.get(image) ?? 0));
    if (more > 0) this.lost.set(image, maybePaid);
    this.counts.maybePaidTwice += more;
    return more;
  }

  /**
   * The image's job has left the queue before anybody submitted it.
   * @param calls that were made for it all the same
   * @returns its rows, which remain; none when its outcome is on the way to the disk
   */
  giveUp(image: string, calls: Calls = NO_CALLS): readonly Row[] {
    const entry = this.#images.get(image);
    if (entry?.state !== 'pending' || entry.writing !== undefined) return [];
    this.countCalls(image, calls);
    this.#images.delete(image);
    this.#release(entry.rows.length);
    return entry.rows;
  }

  /**
   * The run is over and no row came for the results that are held. They stay in the queue: prompts are paid for, and
   * their row may come back.
   * @param isWhole whether every row was read and taken on: then nobody will ask for the failures
   */
  end(isWhole: boolean, isDescribed: (image: string) => boolean): void {
    this.isOver = true;
    for (const [image, { held }] of this.#images) {
      const isUseless = isWhole && held?.result.outcome.status === 'failed';
      held?.acknowledge(isUseless || isDescribed(image) ? 'done' : 'put-back');
    }
  }

  /** Rows wait for the disk alone from now on. */
  addUnwritten(rows: number): void {
    this.rows += rows;
    this.unwritten += rows;
  }

  /** Such rows are on disk. */
  releaseUnwritten(rows: number): void {
    this.unwritten -= rows;
    this.#release(rows);
  }

  /** See `Notifier.waitUntil`. */
  waitUntil(ready: () => boolean, signal: AbortSignal): Promise<boolean> {
    return this.#changed.waitUntil(ready, signal);
  }

  #release(rows: number): void {
    this.rows -= rows;
    this.#changed.notify();
  }

  /** @param state of a new one */
  #entry(image: string, state: ImageState): ImageEntry {
    const known = this.#images.get(image);
    if (known !== undefined) return known;
    const entry = { state, rows: [], failed: [], counted: NO_CALLS, reattached: false };
    this.#images.set(image, entry);
    return entry;
  }

  #remember(image: string, entry: ImageEntry): void {
    entry.state = 'settled';
    this.#settled.add(image);
    const [oldest = image] = this.#settled;
    if (entry.failed.length > this.most.rowsOfOne) this.#forget(image);
    else if (this.#settled.size > this.most.images) this.#forget(oldest);
  }

  #forget(image: string): void {
    this.#hasForgotten = true;
    this.#settled.delete(image);
    const entry = this.#images.get(image);
    this.#images.delete(image);
    // What was in the queue before its rows failed is there still.
    if (entry?.held === undefined && entry?.job === undefined) return;
    this.#images.set(image, { ...entry, state: entry.held ? 'answered' : 'found', failed: [] });
  }
}
