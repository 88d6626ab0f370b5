import { type FailedOutcome, type PreviousFailure, type ResultJobData, isPermanent } from '../shared/jobs.js';
import type { RunCounts } from '../shared/run-counts.js';
import type { Row } from './row-reader.js';

/** A job of this run that was in the queue when the run started. */
export interface QueuedJob {
  /**
   * paid: it has been submitted, perhaps completed: it is taken over, not paid for again.
   * waiting: it has no message, and is held until its row is read. failed: it is replaced by a new one.
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
  readonly prompt?: string | undefined;
  readonly row: number;
  readonly previous?: PreviousFailure | undefined;
  /** Its job that is there: a failed one is replaced, one that waits goes on. */
  readonly queued?: QueuedJob | undefined;
}

/** The account of the rows under way. */
export interface RowLedger {
  readonly counts: RunCounts;
  readonly budget: PayBudget;
  /** Rows under way: they wait for an outcome or for the disk. */
  readonly rows: number;
  /** Those of them that wait for the disk alone. */
  readonly unwritten: number;
  /** A job of this run that is still in the queue from an earlier one. */
  jobOf(image: string): QueuedJob | undefined;
  /** Whether an image that is taken on now has its result already. */
  isAnswered(image: string): boolean;
  /** Lets a row wait for an image that is pending already; false when it is not. */
  attach(image: string, row: Row): boolean;
  /** Asks after every change whether it is time; false when the signal aborted first. */
  waitUntil(ready: () => boolean, signal: AbortSignal): Promise<boolean>;
}

/** What brings rows to disk. Each call counts the row as under way until it is there, and does not wait for that. */
export interface RowWriter {
  /**
   * Makes a row wait for its image; a result that is there already is written.
   * @param isReattached whether the image was in flight, or had its result, before this run
   */
  takeOn(image: string, row: Row, isReattached: boolean): void;
  writeFailure(row: Row, outcome: FailedOutcome): void;
  writeCopy(row: Row, image: string): void;
}

/** What the producer works with. */
export interface ProducerDeps {
  readonly lookup: Lookup & {
    /** The row is left for the next run. */
    leave(row: Row): void;
  };
  readonly ledger: RowLedger;
  readonly writer: RowWriter;
  readonly jobs: { add(images: readonly NewImage[]): Promise<void> };
  /** Rows that may be under way at the moment. */
  readonly windowRows: () => number;
}

/** Rows that failed before are kept back until the new ones are in; beyond this many they wait no longer. */
const MOST_KEPT_BACK = 5000;
const ADD_AT_ONCE = 500;
/** Rows that wait for the disk alone. More would only grow old in memory: it takes them in groups as fast as it can. */
const MOST_UNWRITTEN = 500;

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

  /** After the signal has aborted: images that are pending and were never added to the queue. */
  get notAdded(): readonly string[] {
    return this.#adding.map(({ image }) => image);
  }

  /** From the manifest's first row. */
  async produce(batches: AsyncIterable<readonly Row[]>): Promise<void> {
    for await (const rows of batches) {
      for (const row of rows) {
        if (this.#signal.aborted) return;
        this.#deps.ledger.counts.rows++;
        await this.#place(row, decideRow(row, this.#deps.lookup), false);
      }
      await this.#flush();
    }
    // Every row has been met: what failed before comes last.
    for (const row of this.#keptBack) {
      if (this.#signal.aborted) return;
      await this.#place(row, decideImage(row, this.#deps.lookup), true);
    }
    await this.#flush();
  }

  async #place(row: Row, decision: Decision, isLast: boolean): Promise<void> {
    const { lookup, ledger, writer } = this.#deps;
    if (decision.action === 'resume') {
      ledger.counts.resumed++;
      return;
    }
    if (decision.action === 'leave') {
      lookup.leave(row);
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
        await this.#place(row, decideImage(row, lookup), isLast);
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
    const { lookup, ledger, writer } = this.#deps;
    const queued = ledger.jobOf(image);
    if (queued?.state === 'paid' || ledger.isAnswered(image)) {
      writer.takeOn(image, row, true);
      return;
    }
    const isWaiting = queued?.state === 'waiting';
    if (previous !== undefined && !isWaiting && !isLast && this.#keptBack.length < MOST_KEPT_BACK) {
      this.#keptBack.push(row);
      return;
    }
    if (!(await this.#waitForBudget())) {
      lookup.leave(row);
      return;
    }
    writer.takeOn(image, row, false);
    const { url = '', prompt, number } = row;
    this.#adding.push({ image, url, prompt, row: number, previous, queued });
    if (this.#adding.length >= ADD_AT_ONCE) await this.#flush();
  }

  /** Waits until another row may be under way; false when the run is being stopped. */
  async #waitForRoom(): Promise<boolean> {
    const { ledger, windowRows } = this.#deps;
    const hasRoom = () => ledger.rows < windowRows() && ledger.unwritten < MOST_UNWRITTEN;
    if (hasRoom()) return true;
    await this.#flush();
    return ledger.waitUntil(hasRoom, this.#signal);
  }

  /** Takes a place of `--limit`; a place that is taken may become free again, when its image fails. */
  async #waitForBudget(): Promise<boolean> {
    const { ledger } = this.#deps;
    const { budget } = ledger;
    if (budget.take()) return true;
    await this.#flush();
    await ledger.waitUntil(() => budget.hasRoom || budget.isSpent, this.#signal);
    return !this.#signal.aborted && budget.take();
  }

  async #flush(): Promise<void> {
    if (this.#adding.length === 0) return;
    const images = this.#adding;
    this.#adding = [];
    await this.#deps.jobs.add(images);
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

/** What is known of rows and images; the output's index and the failures file stand behind it. */
export interface Lookup {
  /** False when this pass has met the row's key before. Without a key column always true. */
  markSeen(row: Row): boolean;
  /** Whether the output holds this very row. Without a key column each call uses one of its rows up. */
  isInOutput(row: Row): boolean;
  /** Whether the output holds a row with this image. */
  isDescribed(image: string): boolean;
  isPending(image: string): boolean;
  /** How the image failed in this run. */
  failedNow(image: string): FailedOutcome | undefined;
  previousFailure(row: Row): PreviousFailure | undefined;
  /** Whether a job or a result of the image is in the queue: somebody has taken it up again. */
  isTakenUp(image: string): boolean;
  /** Whether an image is left for another run, if its row has never failed: this one takes up failed rows alone. */
  isLeftUnlessFailed(image: string): boolean;
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

/** Decides what becomes of a row that is met for the first time in this pass. Uses its occurrence up. */
export function decideRow(row: Row, lookup: Lookup): Decision {
  if (row.problem !== undefined) return failBeforeSubmit(row.problem.code, row.problem.reason);
  if (!lookup.markSeen(row)) {
    return failBeforeSubmit('duplicate-key', `line ${row.line}: an earlier row has the key ${row.key ?? ''}`);
  }
  if (lookup.isInOutput(row)) return { action: 'resume' };
  return decideImage(row, lookup);
}

/** Decides by the row's image alone: for rows that are not in the output. May be asked again. */
export function decideImage(row: Row, lookup: Lookup): Decision {
  const { image } = row;
  if (image === undefined) return failBeforeSubmit('invalid-url', 'no URL');
  if (lookup.isDescribed(image)) return { action: 'copy', image };
  if (lookup.isPending(image)) return { action: 'attach', image };
  const now = lookup.failedNow(image);
  if (now !== undefined) return { action: 'fail', outcome: now };
  const previous = lookup.previousFailure(row);
  if (previous === undefined && lookup.isLeftUnlessFailed(image)) return { action: 'leave' };
  if (previous === undefined || previous.image !== image) return { action: 'submit', image };
  if (isPermanent(previous.outcome.code) && !lookup.isTakenUp(image))
    return { action: 'fail', outcome: previous.outcome };
  return { action: 'submit', image, previous };
}
