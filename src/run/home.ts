import type { Lookup } from '../producer/decide-row.js';
import type { PayBudget, QueuedJob } from '../producer/produce.js';
import type { Row } from '../producer/row-reader.js';
import type { ResultJobData } from '../shared/jobs.js';
import type { DescribedOutcome, FailedOutcome, PreviousFailure } from '../shared/outcome.js';
import { GroupCommit } from '../shared/group-commit.js';
import { HashTable } from '../shared/hash-table.js';
import { Outstanding, type PendingImage } from '../shared/outstanding.js';
import { type LostSubmits, countFailed, createRunCounts, uncountFailed } from '../shared/run-counts.js';
import { DescribedRows } from '../writer/output-index.js';
import type { EarlierFailures, FailuresFile } from '../writer/failures.js';
import type { EarlierOutputs } from '../writer/earlier-outputs.js';
import { identityOfName } from '../writer/failures-table.js';
import type { OutputFile } from '../writer/output-file.js';
import type { StoredPrompts } from '../writer/csv-output.js';
import type { Disposal } from '../writer/results-consumer.js';
import { type FailedImage, FailedImages } from './failed-images.js';

/** Rows that go to disk together with others. */
interface Entry {
  readonly described: readonly { readonly row: Row; readonly outcome: DescribedOutcome }[];
  readonly failed: readonly { readonly row: Row; readonly outcome: FailedOutcome }[];
  /** The image whose outcome the failed ones have; rows that were not submitted have none. */
  readonly failedImage?: string | undefined;
}

/** A result whose row has not been read yet: it stays unacknowledged. */
interface EarlyResult {
  readonly result: ResultJobData;
  /** It was there before this run began. */
  readonly isOld: boolean;
  readonly resolve: (disposal: Disposal) => void;
}

export interface HomeTools {
  readonly output: OutputFile;
  /** Files whose rows count as done. */
  readonly earlier?: EarlierOutputs | undefined;
  /** How rows of those files failed, where this output knows nothing of it. */
  readonly earlierFailures?: Pick<EarlierFailures, 'previous'> | undefined;
  readonly failures: FailuresFile;
  readonly budget: PayBudget;
  /** The disk does not take rows any more. */
  onBroken(error: unknown): void;
  /** Keeps what became of submits whose answer was lost, for a receipt that this process may not live to print. */
  keepLostSubmits(counts: LostSubmits): Promise<void>;
  /** An image's outcome is on disk. */
  onOutcome(result: ResultJobData): void;
  /** HTTP calls made before this run for an image that failed then. */
  callsBefore?(image: string): { readonly submits: number; readonly polls: number } | undefined;
}

/**
 * The process that has the manifest and the output: it knows which rows wait for which image, and brings
 * producer and writer together. Completion is counted here and nowhere else.
 *
 * An image stays outstanding until its outcome is on disk, so that a row which is read in that moment
 * waits for it and is not submitted again.
 */
export class Home {
  readonly outstanding = new Outstanding<Row>();
  readonly counts = createRunCounts();
  /** The rows on file, of the output and earlier ones; this run's pass over the manifest. */
  readonly onFile: DescribedRows;
  readonly #commit: GroupCommit<Entry>;
  readonly #early = new Map<string, EarlyResult>();
  readonly #writing = new Map<string, Promise<Disposal>>();
  /** By `identityOfName`: as many as rows have failed before. */
  readonly #leftFailed = new HashTable([]);
  readonly #failedImages = new FailedImages();
  readonly #keyed: boolean;
  #hasBegun = false;
  #isOver = false;

  constructor(private readonly tools: HomeTools) {
    this.#commit = new GroupCommit((entries) => this.#flush(entries));
    this.#keyed = tools.output.index.keyed;
    this.onFile = new DescribedRows(tools.output.index, tools.earlier?.index);
    this.onFile.startPass();
  }

  /** What the producer asks before it decides on a row. */
  readonly lookup: Omit<Lookup, 'isTakenUp' | 'isLeftUnlessFailed'> = {
    markSeen: (row) => this.onFile.markSeen(row),
    isInOutput: (row) => this.onFile.take(row),
    isDescribed: (image) => this.onFile.hasImage(image),
    isOutstanding: (image) => this.outstanding.images.has(image),
    failedNow: (image) => this.tools.failures.failedNow(image),
    previousFailure: (row) =>
      this.#lateFailure(row.image) ?? this.#failureOnFile(row) ?? this.#earlierFailure(row),
  };

  /** True while something waits for an outcome or for the disk. */
  get isBusy(): boolean {
    return this.outstanding.rows > 0;
  }

  /** From here on workers of this run are at work: a failure that comes now is not tried again in this run. */
  begin(): void {
    this.#hasBegun = true;
  }

  /** Whether an image that is taken on now has its result already; not one that is to be tried again. */
  hasEarlyResult(image: string): boolean {
    const early = this.#early.get(image);
    return early !== undefined && !isTriedAgain(early);
  }

  /**
   * Writes a result that was there before its row; the row is outstanding now. A failure that is tried again
   * has been used up by that.
   * @param queued the image's job, in case its result was acknowledged and the row lost since
   */
  settleEarlyResult(image: string, queued: QueuedJob | undefined): void {
    const early = this.#early.get(image);
    this.#early.delete(image);
    if (early !== undefined && isTriedAgain(early)) early.resolve('done');
    const held = early === undefined || isTriedAgain(early) ? undefined : early;
    const result = held?.result ?? queued?.result;
    if (result === undefined) return;
    const pending = this.outstanding.images.get(image);
    const isFromBefore = held === undefined || held.isOld || queued === undefined;
    if (pending !== undefined && isFromBefore) {
      pending.submitsBefore = result.submits;
      pending.pollsBefore = result.polls;
    }
    void this.settle(result).then(held?.resolve);
  }

  /**
   * Brings a result's rows to disk. Never rejects: a disk that fails is told to `onBroken`.
   * @returns what is to become of the result
   */
  settle(result: ResultJobData): Promise<Disposal> {
    const { image } = result;
    const writing = this.#writing.get(image);
    // Decided anew when that one is on disk: prompts that follow a failure are not to be thrown away.
    if (writing !== undefined) return writing.then(() => this.settle(result));
    const pending = this.outstanding.images.get(image);
    if (pending !== undefined) return this.#startWriting(image, this.#settleImage(result, pending));
    // A second result of an image that is on disk: its worker died between handing it over and ending the job.
    if (this.lookup.isDescribed(image)) return Promise.resolve('done');
    if (this.#isOver) return Promise.resolve('put-back');
    const failed = this.#failedImages.get(image);
    if (failed !== undefined) return this.#startWriting(image, this.#settleAgain(result, failed));
    return this.#hold(result);
  }

  /** Of two results for one image prompts count, whichever came first. */
  #hold(result: ResultJobData): Promise<Disposal> {
    const held = this.#early.get(result.image);
    if (held?.result.outcome.status === 'described') return Promise.resolve('done');
    held?.resolve('done');
    return new Promise((resolve) => {
      this.#early.set(result.image, { result, isOld: !this.#hasBegun, resolve });
    });
  }

  /**
   * The run is over and no row came for these results. They stay in the queue: prompts are paid for, and their row
   * may come back.
   * @param isWhole whether every row was read and taken on: then nobody will ask for the failures
   */
  releaseEarlyResults(isWhole: boolean): void {
    this.#isOver = true;
    for (const [image, { result, resolve }] of this.#early) {
      const isUseless = isWhole && result.outcome.status === 'failed';
      resolve(isUseless || this.lookup.isDescribed(image) ? 'done' : 'put-back');
    }
    this.#early.clear();
  }

  /** A row is left for the next run; one that failed before stays failed until then. */
  leave(row: Row): void {
    const name = this.#keyed ? row.key : row.image;
    if (name !== undefined && this.#failureOnFile(row) !== undefined)
      this.#leftFailed.add(identityOfName(name));
  }

  /** A failure that came home while no home was there: newer than what the file says. */
  #lateFailure(image: string | undefined): PreviousFailure | undefined {
    const early = image === undefined ? undefined : this.#early.get(image);
    if (early?.isOld !== true || early.result.outcome.status !== 'failed') return undefined;
    return { outcome: early.result.outcome, image };
  }

  #failureOnFile(row: Row): PreviousFailure | undefined {
    return this.tools.failures.previous(this.#keyed ? row.key : row.image);
  }

  #earlierFailure(row: Row): PreviousFailure | undefined {
    return this.tools.earlierFailures?.previous(this.#keyed ? row.key : row.image);
  }

  /** Whether a row that failed before was left as it is; by its key, without keys by its image. */
  isLeftFailed(name: string | undefined): boolean {
    return name !== undefined && this.#leftFailed.find(identityOfName(name)) !== -1;
  }

  /** Writes a failed row that waits for no image. */
  writeFailure(row: Row, outcome: FailedOutcome): void {
    if (row.image !== undefined) {
      const { submits, polls } = this.tools.callsBefore?.(row.image) ?? { submits: 0, polls: 0 };
      const isFirst = !this.tools.failures.hasFailedNow(row.image);
      this.#failedImages.addRow(row, row.image, outcome, { isFirst, submits, polls });
    }
    this.outstanding.hold(1);
    void this.#write({ described: [], failed: [{ row, outcome }] }, () => {
      countFailed(this.counts, outcome.code);
      this.outstanding.unhold(1);
    });
  }

  /** Writes a row whose image the output, or an earlier one, holds already. */
  writeCopy(row: Row, image: string): void {
    this.outstanding.hold(1);
    void this.#copy(row, image);
  }

  /** Waits until everything that was handed to the disk is there, or has failed to be. */
  async flushed(): Promise<void> {
    await this.#commit.settled();
  }

  async #copy(row: Row, image: string): Promise<void> {
    try {
      const outcome: DescribedOutcome = { status: 'described', ...(await this.#readPrompts(image)) };
      await this.#write({ described: [{ row, outcome }], failed: [] }, () => {
        this.counts.copied++;
        this.outstanding.unhold(1);
      });
    } catch (error) {
      this.tools.onBroken(error);
    }
  }

  async #readPrompts(image: string): Promise<StoredPrompts> {
    const { output, earlier } = this.tools;
    const offset = output.index.offsetOf(image);
    if (offset !== undefined) return await output.readPromptsAt(offset);
    const place = earlier?.index.offsetOf(image);
    if (earlier === undefined || place === undefined) throw new Error(`no index has the image ${image}`);
    return await earlier.readPromptsAt(place);
  }

  #startWriting(image: string, settled: Promise<Disposal>): Promise<Disposal> {
    const written = settled.finally(() => this.#writing.delete(image));
    this.#writing.set(image, written);
    return written;
  }

  /**
   * An image that failed in this run has another outcome: somebody has put its job back. Prompts take the place of the
   * failure, whose record goes when the failures file is replaced.
   */
  async #settleAgain(result: ResultJobData, failed: FailedImage): Promise<Disposal> {
    const { image, outcome } = result;
    const maybePaid = result.maybePaid - failed.maybePaid;
    if (maybePaid > 0) await this.#keepMaybePaid(maybePaid);
    failed.maybePaid = result.maybePaid;
    if (outcome.status === 'failed') {
      this.#countCalls(result, failed);
      return 'done';
    }
    const rows = failed.rows.map(({ row }) => row);
    this.outstanding.hold(rows.length);
    const isWritten = await this.#write(entryOf(rows, outcome), () => {
      this.#failedImages.delete(image);
      this.#countCalls(result, failed);
      for (const { code } of failed.rows) uncountFailed(this.counts, code);
      this.counts.described++;
      this.counts.copied += rows.length - 1;
      this.tools.budget.take();
      this.tools.budget.spend();
      this.outstanding.unhold(rows.length);
    });
    if (!isWritten) return 'put-back';
    if (result.rescued !== undefined) await this.#keepRescued(result.rescued);
    // Rows that were read, and failed as well, while the first ones went to disk.
    for (const { row } of failed.rows.slice(rows.length)) this.writeCopy(row, image);
    this.tools.onOutcome(result);
    return 'done';
  }

  #countCalls(result: ResultJobData, failed: FailedImage): void {
    this.counts.submits += Math.max(0, result.submits - failed.submits);
    this.counts.polls += Math.max(0, result.polls - failed.polls);
    failed.submits = result.submits;
    failed.polls = result.polls;
  }

  /**
   * The image's job has left the queue before anybody submitted it: its rows remain.
   * @param calls that were made for it all the same, over its whole life
   * @returns false when its outcome is on the way to the disk
   */
  giveUp(image: string, calls: { submits: number; polls: number; maybePaid: number }): boolean {
    if (this.#writing.has(image)) return false;
    const pending = this.outstanding.take(image);
    if (pending === undefined) return false;
    this.counts.submits += Math.max(0, calls.submits - pending.submitsBefore);
    this.counts.polls += Math.max(0, calls.polls - pending.pollsBefore);
    this.counts.maybePaidTwice += calls.maybePaid;
    for (const row of pending.rows) this.leave(row);
    this.outstanding.release(pending.rows.length);
    return true;
  }

  async #settleImage(result: ResultJobData, pending: PendingImage<Row>): Promise<Disposal> {
    const { image, outcome } = result;
    // Before it can be acknowledged: a process that is killed prints no receipt.
    if (result.maybePaid > 0) await this.#keepMaybePaid(result.maybePaid);
    const rows = [...pending.rows];
    const isWritten = await this.#write({ ...entryOf(rows, outcome), failedImage: image }, () => {
      this.outstanding.take(image);
      this.#count(result, pending, rows.length);
      this.outstanding.release(rows.length);
    });
    if (!isWritten) return 'put-back';
    if (result.rescued !== undefined) await this.#keepRescued(result.rescued);
    // Rows that were read while the first ones went to disk.
    for (const row of pending.rows.slice(rows.length)) {
      this.outstanding.release(1);
      if (outcome.status === 'failed') this.writeFailure(row, outcome);
      else this.writeCopy(row, image);
    }
    this.tools.onOutcome(result);
    return 'done';
  }

  async #keepMaybePaid(count: number): Promise<void> {
    this.counts.maybePaidTwice += count;
    await this.tools.keepLostSubmits(this.counts);
  }

  /** After the row is on disk: a crash may then count a saving too little, never too much. */
  async #keepRescued(count: number): Promise<void> {
    this.counts.rescued += count;
    await this.tools.keepLostSubmits(this.counts);
  }

  #count(result: ResultJobData, pending: PendingImage<Row>, rows: number): void {
    const { outcome } = result;
    this.counts.submits += Math.max(0, result.submits - pending.submitsBefore);
    this.counts.polls += Math.max(0, result.polls - pending.pollsBefore);
    if (outcome.status === 'described') {
      this.counts.described++;
      this.counts.copied += rows - 1;
      if (!pending.reattached) this.tools.budget.spend();
      return;
    }
    this.#failedImages.add(result, outcome, pending.rows.slice(0, rows));
    for (let row = 0; row < rows; row++) countFailed(this.counts, outcome.code);
    if (!pending.reattached) this.tools.budget.giveBack();
  }

  /**
   * @param onWritten once the rows are on disk, which then are not to be outstanding any more
   * @returns whether they are
   */
  async #write(entry: Entry, onWritten: () => void): Promise<boolean> {
    try {
      await this.#commit.commit(entry);
    } catch (error) {
      this.tools.onBroken(error);
      return false;
    }
    onWritten();
    return true;
  }

  async #flush(entries: readonly Entry[]): Promise<void> {
    const { output, failures } = this.tools;
    // Failures first: when the disk takes those and no prompts, the counts and the files still agree.
    for (const { failed, failedImage } of entries) {
      for (const failure of failed) failures.add(failure, failedImage);
    }
    await failures.flush();
    const described = entries.flatMap((entry) => entry.described);
    const records = described.map(({ row, outcome }) => [
      ...row.cells,
      ...outcome.prompts,
      outcome.messageId,
      outcome.describedAt,
    ]);
    const { offsets } = await output.append(records);
    for (const [position, { row }] of described.entries()) {
      output.index.addAppended({ image: row.image, key: row.key, offset: offsets[position] ?? 0 });
    }
  }
}

/** Failures from before this run are tried again by it; what has failed in it is not. */
function isTriedAgain({ isOld, result }: EarlyResult): boolean {
  return isOld && result.outcome.status === 'failed';
}

function entryOf(rows: readonly Row[], outcome: ResultJobData['outcome']): Entry {
  if (outcome.status === 'failed') return { described: [], failed: rows.map((row) => ({ row, outcome })) };
  return { described: rows.map((row) => ({ row, outcome })), failed: [] };
}
