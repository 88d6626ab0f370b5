import type { Row } from '../producer/row-reader.js';
import type { PreviousFailure } from '../shared/jobs.js';
import type { Ledger } from './ledger.js';
import type { OutcomeWriter } from './outcome-writer.js';
import type { Decision, RowDecisions } from './row-decisions.js';
import { type NewImage, type RunJobs, newImageOf } from './run-jobs.js';

interface ProducerDeps {
  readonly decisions: RowDecisions;
  readonly ledger: Ledger;
  readonly writer: Pick<OutcomeWriter, 'takeOn' | 'writeFailure' | 'writeCopy'>;
  readonly jobs: Pick<RunJobs, 'add'>;
  /** Rows that may be under way at the moment. */
  readonly windowRows: () => number;
  /** Whether nothing of a row's image is to be submitted. */
  readonly isLeft?: ((row: Row) => boolean) | undefined;
}

/**
 * Rows that failed before are kept back until the new ones are in, and with them the rows that share their images; beyond
 * this many they wait no longer.
 */
const MOST_KEPT_BACK = 5000;
const ADD_AT_ONCE = 500;
/** Rows that wait for the disk alone. More would only grow old in memory: it takes them in groups as fast as it can. */
const MOST_UNWRITTEN = 500;

/**
 * Turns a manifest's rows into jobs, as many at a time as the window allows, each image once. Ends when
 * every row has been taken on or given up, or when the signal aborts.
 */
export class Producer {
  #adding: NewImage[] = [];
  /** By their image, whose rows keep the manifest's order: the next start takes the first ones for those on file. */
  readonly #keptBack = new Map<string, Row[]>();
  #keptRows = 0;

  constructor(
    private readonly deps: ProducerDeps,
    private readonly signal: AbortSignal,
  ) {}

  /** After the signal has aborted: images that are pending and were never added to the queue. */
  get notAdded(): readonly string[] {
    return this.#adding.map(({ image }) => image);
  }

  /** From the manifest's first row. */
  async produce(batches: AsyncIterable<readonly Row[]>): Promise<void> {
    for await (const rows of batches) {
      for (const read of rows) {
        if (this.signal.aborted) return;
        this.deps.ledger.counts.rows++;
        const row = this.deps.decisions.asPaidFor(read);
        await this.#place(row, this.deps.decisions.decide(row), false);
      }
      await this.#flush();
    }
    // Every row has been met: what failed before comes last.
    for (const rows of this.#keptBack.values()) await this.#placeLast(rows);
    if (!this.signal.aborted) await this.#flush();
  }

  async #placeLast(rows: readonly Row[]): Promise<void> {
    for (const row of rows) {
      if (this.signal.aborted) return;
      await this.#place(row, this.deps.decisions.decideImage(row), true);
    }
  }

  async #keepBack(row: Row, image: string): Promise<void> {
    const before = this.#keptBack.get(image) ?? [];
    if (this.#keptRows < MOST_KEPT_BACK) {
      this.#keptBack.set(image, before);
      before.push(row);
      this.#keptRows++;
      return;
    }
    this.#keptBack.delete(image);
    this.#keptRows -= before.length;
    await this.#placeLast([...before, row]);
  }

  async #place(row: Row, decision: Decision, isLast: boolean): Promise<void> {
    const { decisions, ledger, writer } = this.deps;
    if (decision.action === 'resume') {
      ledger.counts.resumed++;
      return;
    }
    if (decision.action === 'leave') {
      decisions.leave(row);
      return;
    }
    if (!isLast && decision.action !== 'fail' && this.#keptBack.has(decision.image)) {
      await this.#keepBack(row, decision.image);
      return;
    }
    if (!(await this.#waitForRoom())) return;
    switch (decision.action) {
      case 'fail':
        writer.writeFailure(row, decision.outcome);
        return;
      case 'copy':
        writer.writeCopy(row, decision.image);
        return;
      case 'attach':
        // Its outcome may have come while this row waited for room.
        if (ledger.attach(decision.image, row)) return;
        await this.#place(row, decisions.decideImage(row), isLast);
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
    const { decisions, ledger, writer } = this.deps;
    const queued = ledger.jobOf(image);
    if (queued?.state === 'paid' || ledger.isAnswered(image)) {
      writer.takeOn(image, row, true);
      return;
    }
    if (this.deps.isLeft?.(row) === true) {
      decisions.leave(row);
      return;
    }
    const isWaiting = queued?.state === 'waiting';
    if (previous !== undefined && !isWaiting && !isLast) {
      await this.#keepBack(row, image);
      return;
    }
    if (!(await this.#waitForBudget())) {
      decisions.leave(row);
      return;
    }
    writer.takeOn(image, row, false);
    this.#adding.push({ ...newImageOf(image, row), previous, queued });
    if (this.#adding.length >= ADD_AT_ONCE) await this.#flush();
  }

  /** Waits until another row may be under way; false when the run is being stopped. */
  async #waitForRoom(): Promise<boolean> {
    const { ledger, windowRows } = this.deps;
    const hasRoom = () => ledger.rows < windowRows() && ledger.unwritten < MOST_UNWRITTEN;
    if (hasRoom()) return true;
    await this.#flush();
    return ledger.waitUntil(hasRoom, this.signal);
  }

  /** Takes a place of `--limit`; a place that is taken may become free again, when its image fails. */
  async #waitForBudget(): Promise<boolean> {
    const { ledger } = this.deps;
    const { budget } = ledger;
    if (budget.take()) return true;
    await this.#flush();
    await ledger.waitUntil(() => budget.hasRoom || budget.isSpent, this.signal);
    return !this.signal.aborted && budget.take();
  }

  async #flush(): Promise<void> {
    if (this.#adding.length === 0) return;
    const images = this.#adding;
    this.#adding = [];
    await this.deps.jobs.add(images);
  }
}
