import type { Row } from '../producer/row-reader.js';
import type { DescribedOutcome, FailedOutcome, Outcome, ResultJobData } from '../shared/jobs.js';
import { type LostSubmits, countFailed } from '../shared/run-counts.js';
import type { OutputIndex } from '../writer/output-index.js';
import type { EarlierOutputs } from '../writer/earlier-outputs.js';
import type { FailuresFile } from '../writer/failures.js';
import { GroupCommit } from '../shared/group-commit.js';
import type { OutputFile } from '../writer/output-file.js';
import type { ResultFate } from '../writer/results-consumer.js';
import type { ImageEntry, Ledger } from './ledger.js';
import type { FailingManifest, RunControl } from './run-control.js';

/** Rows of one outcome, which go to disk together. */
interface Batch {
  readonly rows: readonly Row[];
  /**
   * Gives the outcome when these are written, and not before: what is on file already takes a while to be read, and rows
   * that share an image are to keep the manifest's order, by which the next start tells them apart.
   */
  readonly read: () => Outcome | Promise<Outcome>;
  /** The image whose outcome it is; rows that were not submitted have none. */
  readonly image?: string | undefined;
  /** What that has cost; its first row says it. */
  readonly usage?: Pick<ResultJobData, 'inputTokens' | 'outputTokens'> | undefined;
}

interface OutcomeWriterDeps {
  readonly ledger: Ledger;
  readonly onFile: OutputIndex;
  readonly output: OutputFile;
  /** Files whose rows count as done. */
  readonly earlier: EarlierOutputs | undefined;
  readonly failures: FailuresFile;
  /** Keeps what became of submits whose answer was lost, for a receipt that this process may not live to print. */
  keepLostSubmits(counts: LostSubmits, counted?: ResultJobData): Promise<void>;
  /** Fails when the disk does not take rows any more. */
  readonly control: RunControl;
  readonly failing: FailingManifest;
}

/**
 * Brings outcomes to disk, and says so in the ledger.
 *
 * An image stays pending until its outcome is on disk, so that a row that is read in that moment waits for it and is not
 * submitted again.
 */
export class OutcomeWriter {
  readonly #commit = new GroupCommit<Batch>((batches) => this.#flush(batches));
  /** Rows that wait for the disk alone. */
  readonly #writingRows = new Set<Promise<void>>();

  constructor(private readonly deps: OutcomeWriterDeps) {}

  /**
   * Brings a result's rows to disk. Never rejects: a disk that fails ends the run.
   * @returns what is to become of the result
   */
  settle(result: ResultJobData): Promise<ResultFate> {
    const { ledger, onFile } = this.deps;
    const { image, outcome } = result;
    const entry = ledger.get(image);
    // Decided anew when that one is on disk: prompts that follow a failure are not to be thrown away.
    if (entry?.writing !== undefined) return entry.writing.then(() => this.settle(result));
    if (entry?.state === 'pending') return this.#write(result, entry);
    if (onFile.hasImage(image)) return this.#countAgain(result);
    if (ledger.isOver) return Promise.resolve('put-back');
    if (entry?.state !== 'settled') return ledger.hold(result);
    // It failed in this run, and somebody has put its job back.
    if (outcome.status === 'described') ledger.reopen(image);
    return this.#write(result, entry);
  }

  /**
   * A second result of an image that is on disk: its worker died between publishing it and ending the job, or lost the job to
   * another one while the queue was away. Then only the later one knows that the first was perhaps paid for.
   */
  async #countAgain(result: ResultJobData): Promise<ResultFate> {
    const { ledger } = this.deps;
    const isMore = ledger.countLost(result.image, result.maybePaid) > 0;
    if (isMore) await this.deps.keepLostSubmits(ledger.counts, result);
    return 'done';
  }

  /** Makes a row wait for its image. What the queue holds for it already is written at once. */
  takeOn(image: string, row: Row, isReattached: boolean): void {
    const answer = this.deps.ledger.takeOn(image, row, isReattached);
    if (answer !== undefined) void this.settle(answer.result).then(answer.acknowledge);
  }

  /** Writes a failed row that waits for no image. */
  writeFailure(row: Row, outcome: FailedOutcome): void {
    const { ledger } = this.deps;
    ledger.failRow(row, outcome);
    const count = () => countFailed(ledger.counts, outcome.code);
    this.#begin(this.#writeRow(row, () => outcome, count));
  }

  /** Writes a row whose image the output, or an earlier one, holds already. */
  writeCopy(row: Row, image: string): void {
    const count = () => this.deps.ledger.counts.copied++;
    this.#begin(this.#writeRow(row, () => this.#readDescribed(image), count));
  }

  #begin(writing: Promise<void>): void {
    this.#writingRows.add(writing);
    void writing.finally(() => this.#writingRows.delete(writing));
  }

  /** Waits until everything that was to go to disk is there, or has failed to be. */
  async flushed(): Promise<void> {
    await Promise.all(this.#writingRows);
    await this.#commit.settled();
  }

  #write(result: ResultJobData, entry: ImageEntry): Promise<ResultFate> {
    const writing = this.#writeImage(result, entry).finally(() => (entry.writing = undefined));
    entry.writing = writing;
    return writing;
  }

  async #writeImage(result: ResultJobData, entry: ImageEntry): Promise<ResultFate> {
    const { ledger, control, failing } = this.deps;
    const { image, outcome, rescued = 0 } = result;
    // Before it can be acknowledged: a process that is killed prints no receipt.
    if (ledger.countCalls(image, result) > 0) await this.deps.keepLostSubmits(ledger.counts, result);
    if (entry.state === 'settled') return 'done';
    const rows = [...entry.rows];
    try {
      await this.#commit.commit({ rows, read: () => outcome, image, usage: result });
    } catch (error) {
      control.fail(error);
      return 'put-back';
    }
    const late = ledger.settle(result, rows.length);
    // At once: until they are, the run seems to be over.
    for (const row of late) {
      if (outcome.status === 'failed') this.writeFailure(row, outcome);
      else this.writeCopy(row, image);
    }
    if (rescued > 0) {
      // After the row is on disk: a crash may then count a saving too little, never too much.
      ledger.counts.rescued += rescued;
      await this.deps.keepLostSubmits(ledger.counts);
    }
    failing.add(outcome);
    return 'done';
  }

  /** Writes a row that waits for the disk alone. */
  async #writeRow(row: Row, read: Batch['read'], count: () => void): Promise<void> {
    const { ledger, control } = this.deps;
    ledger.addUnwritten(1);
    try {
      await this.#commit.commit({ rows: [row], read });
      count();
      ledger.releaseUnwritten(1);
    } catch (error) {
      control.fail(error);
    }
  }

  async #readDescribed(image: string): Promise<DescribedOutcome> {
    const { onFile, output, earlier } = this.deps;
    const place = onFile.placeOf(image);
    if (place?.file === 0) return await output.readDescribed(place.offset);
    if (earlier === undefined || place === undefined) throw new Error(`no file has the image ${image}`);
    return await earlier.readDescribed(place);
  }

  async #flush(batches: readonly Batch[]): Promise<void> {
    const { output, failures } = this.deps;
    const ready = batches.map(async ({ read, ...batch }) => ({ ...batch, outcome: await read() }));
    const described: Parameters<OutputFile['append']>[0][number][] = [];
    const failed: { row: Row; outcome: FailedOutcome; image: string | undefined }[] = [];
    // Failures first: when the disk takes those and no prompts, the counts and the files still agree.
    for (const { rows, outcome, image, usage } of await Promise.all(ready)) {
      for (const row of rows) {
        if (outcome.status === 'failed') failed.push({ row, outcome, image });
        else described.push({ row, outcome, usage: row === rows[0] ? usage : undefined });
      }
    }
    await failures.append(failed);
    await output.append(described);
  }
}
