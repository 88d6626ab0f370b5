import type { ResultJobData } from '../shared/jobs.js';
import type { FailedOutcome, PreviousFailure } from '../shared/outcome.js';
import type { Outstanding } from '../shared/outstanding.js';
import type { RunCounts } from '../shared/run-counts.js';
import { type Decision, type Lookup, decideImage, decideRow, decideUnfinished } from './decide-row.js';
import type { Row } from './row-reader.js';
import type { UnfinishedRows } from './count-manifest.js';

/** A job of this run that was in the queue when the run started. */
export interface QueuedJob {
  /**
   * paid: it has been submitted, perhaps completed: it is taken over, not paid for again.
   * waiting: nobody has submitted it yet. failed: it is replaced by a new one.
   */
  readonly state: 'paid' | 'waiting' | 'failed';
  readonly submits: number;
  readonly polls: number;
  readonly lastMessageId?: string | undefined;
  /** Of a completed job. */
  readonly result?: ResultJobData | undefined;
}

/** An image that is to be added to the queue. */
export interface NewImage {
  readonly image: string;
  readonly url: string;
  readonly row: number;
  readonly previous?: PreviousFailure | undefined;
  /** The failed job that it takes the place of. */
  readonly replaces?: QueuedJob | undefined;
}

/** What the producer works with. */
export interface ProducerDeps {
  readonly lookup: Lookup;
  readonly outstanding: Outstanding<Row>;
  readonly counts: RunCounts;
  readonly budget: PayBudget;
  /** Rows that may be outstanding at the moment. */
  windowRows(): number;
  /** A job of this run that is still in the queue from an earlier one. */
  queuedJob(image: string): QueuedJob | undefined;
  /** Whether the image's result came before its row did. */
  hasEarlyResult(image: string): boolean;
  /**
   * Hands such a result, or that of a completed job, to the writer. To be told of each image that is taken on: a
   * failure that it has had in the queue is over now.
   */
  settleEarlyResult(image: string): void;
  /** The row is left for the next run. */
  leave(row: Row): void;
  addImages(images: readonly NewImage[]): Promise<void>;
  /** Both count the row as outstanding until it is on disk, and do not wait for that. */
  writeFailure(row: Row, outcome: FailedOutcome): void;
  writeCopy(row: Row, image: string): void;
}

/** Rows that failed before are kept back until the new ones are in; beyond this many they wait no longer. */
const MOST_KEPT_BACK = 5000;
const ADD_AT_ONCE = 500;
/** Rows that wait for the disk alone. More would only grow old in memory: it takes them in groups as fast as it can. */
const MOST_HELD = 500;

/**
 * Turns a manifest's rows into jobs, as many at a time as the window allows, each image once. Ends when
 * every row has been taken on or given up, or when the signal aborts.
 */
export class Producer {
  readonly #deps: ProducerDeps;
  readonly #signal: AbortSignal;
  #adding: NewImage[] = [];
  #keptBack: Row[] = [];

  constructor(deps: ProducerDeps, signal: AbortSignal) {
    this.#deps = deps;
    this.#signal = signal;
  }

  /** After the signal has aborted: images that are outstanding and were never added to the queue. */
  get notAdded(): readonly string[] {
    return this.#adding.map(({ image }) => image);
  }

  /** From the manifest's first row. */
  async produce(batches: AsyncIterable<readonly Row[]>): Promise<void> {
    for await (const rows of batches) {
      for (const row of rows) {
        if (this.#signal.aborted) return;
        this.#deps.counts.rows++;
        await this.#place(row, decideRow(row, this.#deps.lookup), false);
      }
      await this.#flush();
    }
    await this.#endPass();
  }

  /** The same without reading the manifest: all rows but the unfinished ones are in the output. */
  async produceUnfinished(unfinished: UnfinishedRows): Promise<void> {
    const { counts, lookup } = this.#deps;
    for (const [before, met] of unfinished.rows.entries()) {
      if (this.#signal.aborted) return;
      counts.rows = met.row.number;
      counts.resumed = met.row.number - 1 - before;
      await this.#place(met.row, decideUnfinished(met, lookup), false);
    }
    counts.rows = unfinished.total;
    counts.resumed = unfinished.total - unfinished.rows.length;
    await this.#endPass();
  }

  /** Every row has been met: what failed before comes last. */
  async #endPass(): Promise<void> {
    for (const row of this.#keptBack) {
      if (this.#signal.aborted) return;
      await this.#place(row, decideImage(row, this.#deps.lookup), true);
    }
    await this.#flush();
  }

  async #place(row: Row, decision: Decision, isLast: boolean): Promise<void> {
    const deps = this.#deps;
    if (decision.action === 'resume') {
      deps.counts.resumed++;
      return;
    }
    if (decision.action === 'leave') {
      deps.leave(row);
      return;
    }
    if (!(await this.#waitForRoom())) return;
    switch (decision.action) {
      case 'fail':
        deps.writeFailure(row, decision.outcome);
        return;
      case 'copy':
        deps.writeCopy(row, decision.image);
        return;
      case 'attach':
        // Its outcome may have come while this row waited for room.
        if (deps.outstanding.attach(decision.image, row)) return;
        await this.#place(row, decideImage(row, deps.lookup), isLast);
        return;
      case 'submit':
        await this.#submit(row, decision.image, decision.previous, isLast);
    }
  }

  async #submit(
    row: Row,
    image: string,
    previous: PreviousFailure | undefined,
    isLast: boolean,
  ): Promise<void> {
    const { outstanding, counts } = this.#deps;
    const queued = this.#deps.queuedJob(image);
    // A job that takes the place of a failed one counts its calls from nothing.
    const taken = queued?.state === 'failed' ? undefined : queued;
    const before = { submitsBefore: taken?.submits ?? 0, pollsBefore: taken?.polls ?? 0 };
    if (queued?.state === 'paid' || this.#deps.hasEarlyResult(image)) {
      counts.reattached++;
      outstanding.add(image, { rows: [row], ...before, reattached: true });
      this.#deps.settleEarlyResult(image);
      return;
    }
    const isNew = queued?.state !== 'waiting';
    if (previous !== undefined && isNew && !isLast && this.#keptBack.length < MOST_KEPT_BACK) {
      this.#keptBack.push(row);
      return;
    }
    if (!(await this.#waitForBudget())) {
      this.#deps.leave(row);
      return;
    }
    outstanding.add(image, { rows: [row], ...before, reattached: false });
    this.#deps.settleEarlyResult(image);
    if (!isNew) return;
    this.#adding.push({ image, url: row.url ?? '', row: row.number, previous, replaces: queued });
    if (this.#adding.length >= ADD_AT_ONCE) await this.#flush();
  }

  /** Waits until another row may be outstanding; false when the run is being stopped. */
  async #waitForRoom(): Promise<boolean> {
    const { outstanding } = this.#deps;
    const hasRoom = () => outstanding.rows < this.#deps.windowRows() && outstanding.held < MOST_HELD;
    if (hasRoom()) return true;
    await this.#flush();
    return outstanding.until(hasRoom, this.#signal);
  }

  /** Takes a place of `--limit`; a place that is taken may become free again, when its image fails. */
  async #waitForBudget(): Promise<boolean> {
    const { budget, outstanding } = this.#deps;
    if (budget.take()) return true;
    await this.#flush();
    await outstanding.until(() => budget.hasRoom || budget.isSpent, this.#signal);
    return !this.#signal.aborted && budget.take();
  }

  async #flush(): Promise<void> {
    if (this.#adding.length === 0) return;
    const images = this.#adding;
    this.#adding = [];
    await this.#deps.addImages(images);
  }
}

/** How many images a run may pay for (`--limit`). What fails was not paid for, and gives its place back. */
export class PayBudget {
  #taken = 0;
  #spent = 0;

  /** @param limit images; Infinity without `--limit` */
  constructor(private readonly limit: number) {}

  /** Takes a place for an image that is to be submitted; false when there is none at the moment. */
  take(): boolean {
    if (this.#taken >= this.limit) return false;
    this.#taken++;
    return true;
  }

  /** The image was described: its place is used up. */
  spend(): void {
    this.#spent++;
  }

  /** The image failed: its place is free again. */
  giveBack(): void {
    this.#taken--;
  }

  get hasRoom(): boolean {
    return this.#taken < this.limit;
  }

  /** True when no place can become free any more. */
  get isSpent(): boolean {
    return this.#spent >= this.limit;
  }
}
