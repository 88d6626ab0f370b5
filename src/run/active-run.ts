import { setMaxListeners } from 'node:events';
import type { UnfinishedRows } from '../producer/count-manifest.js';
import type { Lookup } from '../producer/decide-row.js';
import { PayBudget, Producer, type QueuedJob } from '../producer/produce.js';
import { readRows } from '../producer/row-reader.js';
import { describeQueueName } from '../shared/account.js';
import type { AccountLimits } from '../shared/account-limits.js';
import { FatalError, messageOf } from '../shared/errors.js';
import { outstandingWindow } from '../shared/limits.js';
import type { Logger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { lastWord, lastWordMs } from '../shared/queue/last-word.js';
import { unlessAborted } from '../shared/unless-aborted.js';
import type { LostSubmits } from '../shared/run-counts.js';
import { dropRunOrder, readRunOrders } from '../shared/run-orders.js';
import { sleep } from '../shared/sleep.js';
import { workersOf } from '../shared/published.js';
import * as registry from '../shared/queue/registry.js';
import type { EarlierFailures, FailuresFile } from '../writer/failures.js';
import type { OutputFile } from '../writer/output-file.js';
import { ResultsConsumer } from '../writer/results-consumer.js';
import { CompletedJobs } from './completed-jobs.js';
import { FailingManifest } from './failing-manifest.js';
import { Home } from './home.js';
import { KeptJobs } from './kept-jobs.js';
import type { PreparedRun } from './prepare.js';
import type { RunControl } from './run-control.js';
import { RunJobs } from './run-jobs.js';
import { type Preview, RUN_DEFAULTS, type RunEvent, type RunOptions } from './run-options.js';
import type { RunPresence } from './run-presence.js';
import { RUN_TIMING, type RunTiming } from './run-timing.js';
import { RunWatch } from './run-watch.js';

/** What an active run has been given, open and locked. */
export interface ActiveRunTools {
  readonly options: RunOptions;
  readonly prepared: PreparedRun;
  readonly preview: Preview;
  /** What the pass for the preview has left to do. */
  readonly unfinished: UnfinishedRows;
  readonly run: string;
  readonly connection: QueueConnection;
  readonly limits: AccountLimits;
  readonly output: OutputFile;
  readonly failures: FailuresFile;
  readonly earlierFailures: EarlierFailures | undefined;
  readonly control: RunControl;
  readonly logger: Logger;
  readonly emit: (event: RunEvent) => void;
  readonly presence: RunPresence;
  /** Starts the worker of this process; undefined where others work. */
  readonly startWorker: (() => Promise<OwnWorker>) | undefined;
}

/** HTTP calls made for an image. */
type Calls = Pick<QueuedJob, 'submits' | 'polls'>;

const NO_CALLS = { submits: 0, polls: 0, maybePaid: 0 };

/** What earlier runs have left in the queue, by image. */
type LeftOver = ReadonlyMap<string, QueuedJob>;

/** The worker of this process. */
export interface OwnWorker {
  stop(): Promise<void>;
  /** Whether it is at work on the job, even if the queue does not know of that any more. */
  isHolding(jobId: string): boolean;
}

/**
 * One run from its first row to its last outcome: the producer, the writer and, mostly, a worker at
 * work together, and the watch over them.
 */
export class ActiveRun {
  readonly home: Home;
  readonly #jobs: RunJobs;
  readonly #consumer: ResultsConsumer;
  readonly #completed: CompletedJobs;
  readonly #kept: KeptJobs;
  readonly #budget: PayBudget;
  readonly #over = new AbortController();
  readonly #queueName: string;
  readonly #policy: { maxAttempts: number; deadlineMs: number };
  readonly #timing: RunTiming;
  readonly #failing: FailingManifest;
  #worker: OwnWorker | undefined;
  #leftOver: LeftOver = new Map();
  #retriesAll: boolean;
  #isRead = false;

  constructor(private readonly tools: ActiveRunTools) {
    const { options, connection, prepared, run, control, output, failures } = tools;
    this.#queueName = describeQueueName(prepared.account);
    this.#timing = { ...RUN_TIMING, ...options.timing };
    this.#policy = {
      maxAttempts: options.attempts ?? RUN_DEFAULTS.attempts,
      deadlineMs: options.deadlineMs ?? RUN_DEFAULTS.deadlineMs,
    };
    this.#jobs = new RunJobs(connection, prepared.account, run, this.#policy, control.signal);
    this.#completed = new CompletedJobs(this.#jobs, tools.logger);
    this.#kept = new KeptJobs(connection, prepared.account);
    this.#budget = new PayBudget(options.collectOnly === true ? 0 : (options.limit ?? Infinity));
    this.#retriesAll = options.retryAll ?? false;
    this.#failing = new FailingManifest(options.stopFailing ?? RUN_DEFAULTS.stopFailing);
    this.home = new Home({
      output,
      earlier: prepared.earlier,
      earlierFailures: tools.earlierFailures,
      failures,
      budget: this.#budget,
      onBroken: (error) => control.fail(error),
      keepLostSubmits: (counts) => this.#keepLostSubmits(counts),
      onOutcome: ({ image, outcome }) => {
        if (outcome.status === 'described') this.#completed.written(image);
        this.#failing.add(outcome);
      },
      callsBefore: (image) => this.#leftOver.get(image),
    });
    this.#consumer = new ResultsConsumer(connection, run, (result) => this.home.settle(result), tools.logger);
  }

  /** The queue keeps the counts until a receipt has told them; without the queue they are this process's alone. */
  async #keepLostSubmits(counts: LostSubmits | null): Promise<void> {
    const { connection, run, logger } = this.tools;
    try {
      await unlessAborted(
        connection.store.setFields(`counts:${run}`, {
          maybePaidTwice: counts && String(counts.maybePaidTwice),
          rescued: counts && String(counts.rescued),
        }),
        AbortSignal.timeout(this.#timing.closeDeadlineMs),
      );
    } catch (error) {
      logger.debug(
        { error: messageOf(error) },
        'it is not kept how many submits may have been paid twice, or were rescued',
      );
    }
  }

  /** The receipt is about to be printed: the next run counts from nothing, and takes up what it always does. */
  async forget(): Promise<void> {
    const { maybePaidTwice, rescued } = this.home.counts;
    if (maybePaidTwice + rescued > 0) await this.#keepLostSubmits(null);
    if (!this.#retriesAll || !this.#isWhole) return;
    const { connection, run, logger } = this.tools;
    try {
      const dropped = dropRunOrder(connection.store, run, 'retryAll');
      await unlessAborted(dropped, lastWord(connection, this.#timing.closeDeadlineMs));
    } catch (error) {
      logger.debug({ error: messageOf(error) }, 'the next run takes permanent failures up once more');
    }
  }

  /** Whether every row was read and taken on. */
  get #isWhole(): boolean {
    const { control, options } = this.tools;
    const hasLimit = options.limit !== undefined || options.collectOnly === true;
    return this.#isRead && control.reason === undefined && !hasLimit;
  }

  /** Whether the manifest was read to its end. */
  get isRead(): boolean {
    return this.#isRead;
  }

  /**
   * Runs until every row has its outcome on disk, or the run is stopped.
   * @returns how many images are left in flight
   */
  async execute(): Promise<number> {
    const { control, startWorker } = this.tools;
    let watching = Promise.resolve();
    try {
      await this.#lookBack();
      this.#worker = await startWorker?.();
      watching = this.#createWatch().watch(this.#over.signal);
      if (!control.noMore.aborted) await this.#produce();
      const { outstanding } = this.home;
      await outstanding.until(() => !this.home.isBusy || control.isWindingDown, control.signal);
      if (control.isWindingDown) await this.#finishInFlight();
    } catch (error) {
      // A queue operation that was given up because the run ends is no failure of its own.
      if (!control.signal.aborted) control.fail(error);
    }
    this.#over.abort();
    await watching;
    return this.#close();
  }

  #createWatch(): RunWatch {
    return new RunWatch({
      ...this.tools,
      home: this.home,
      jobs: this.#jobs,
      unseenResults: () => this.#consumer.unseen(),
      failing: this.#failing,
      timing: this.#timing,
      queueName: this.#queueName,
      isHolding: (jobId) => this.#worker?.isHolding(jobId) === true,
    });
  }

  /** What earlier runs have left in the queue; nobody has begun to work for this one. */
  async #lookBack(): Promise<void> {
    const { connection, control, emit, run } = this.tools;
    // Of an earlier start.
    await dropRunOrder(connection.store, run, 'cancel');
    await this.#kept.takeOut(run);
    const { retryAll } = await readRunOrders(connection.store, run);
    this.#retriesAll ||= retryAll;
    const kept = await connection.store.getFields(`counts:${run}`);
    this.home.counts.maybePaidTwice += Number(kept['maybePaidTwice'] ?? 0);
    this.home.counts.rescued += Number(kept['rescued'] ?? 0);
    await this.#consumer.takeBack(control.signal);
    await this.#consumer.drained(control.signal);
    const living = await registry.listLiving(connection.store, workersOf(this.#queueName));
    const count = await this.#jobs.takeBack((worker) => living.has(worker));
    if (count > 0) emit({ type: 'phase', text: `taking over ${count} image(s) of a worker that has died` });
    // They come again with their rows, in their order and within --limit, unless their rows are gone.
    const abandoned = await this.#jobs.findAbandoned();
    if (abandoned > 0) emit({ type: 'notice', text: abandonedText(abandoned) });
    await this.#jobs.removeNeedless(
      (image) => this.home.lookup.isDescribed(image) || this.home.hasEarlyResult(image),
    );
    await this.#jobs.promoteDelayed();
    await this.#jobs.takeUpSetAside(() => undefined);
    this.#leftOver = await this.#jobs.leftOver();
    this.#completed.foundWritten(this.#leftOver.keys(), (image) => this.home.lookup.isDescribed(image));
    this.home.begin();
  }

  /** A job of an earlier run. Whoever pays for nothing new waits for all that somebody has put into the queue. */
  #queuedJob(image: string): QueuedJob | undefined {
    const queued = this.#leftOver.get(image);
    const isTaken = queued?.state === 'waiting' && this.tools.options.collectOnly === true;
    return isTaken ? { ...queued, state: 'paid' } : queued;
  }

  get #lookup(): Lookup {
    return {
      ...this.home.lookup,
      isTakenUp: (image) =>
        this.#retriesAll ||
        this.home.hasEarlyResult(image) ||
        (this.#leftOver.get(image)?.state ?? 'failed') !== 'failed',
      isLeftUnlessFailed: (image) =>
        this.tools.options.onlyFailed === true &&
        // What is in the queue is in flight, has come home, or has failed there.
        !this.#leftOver.has(image) &&
        !this.home.hasEarlyResult(image),
    };
  }

  async #produce(): Promise<void> {
    const { prepared, control, limits, unfinished } = this.tools;
    const producer = new Producer(
      {
        lookup: this.#lookup,
        outstanding: this.home.outstanding,
        counts: this.home.counts,
        budget: this.#budget,
        windowRows: () => outstandingWindow(limits.configured, this.#timing.windowMs),
        queuedJob: (image) => this.#queuedJob(image),
        hasEarlyResult: (image) => this.home.hasEarlyResult(image),
        settleEarlyResult: (image) => this.home.settleEarlyResult(image, this.#leftOver.get(image)),
        leave: (row) => this.home.leave(row),
        addImages: (images) => this.#jobs.add(images),
        writeFailure: (row, outcome) => this.home.writeFailure(row, outcome),
        writeCopy: (row, image) => this.home.writeCopy(row, image),
      },
      control.noMore,
    );
    try {
      if (unfinished.isWhole) await producer.produceUnfinished(unfinished);
      else await producer.produce(readRows(prepared.manifest, prepared.plan, control.noMore));
      this.#isRead = !control.noMore.aborted;
      if (control.isWindingDown) {
        for (const image of producer.notAdded) this.home.giveUp(image, NO_CALLS);
      }
    } catch (error) {
      if (control.signal.aborted) return;
      // Only what was read before the break is certain to be taken on; a queue that refuses jobs ends all of it.
      if (error instanceof FatalError) control.failAfterwards(error);
      else control.fail(error);
    }
  }

  /** Nothing more is submitted: what nobody has submitted yet leaves the queue, until the rest has come home. */
  async #finishInFlight(): Promise<void> {
    const { control } = this.tools;
    const { outstanding } = this.home;
    while (this.home.isBusy && !control.signal.aborted) {
      const removed = await this.#jobs.removeWaiting();
      for (const [image, calls] of removed) this.home.giveUp(image, calls);
      const againAt = performance.now() + this.#timing.tickMs;
      await outstanding.until(() => !this.home.isBusy || performance.now() >= againAt, control.signal);
    }
  }

  /** Puts everything where the next run finds it. */
  async #close(): Promise<number> {
    const { connection, prepared, run } = this.tools;
    const deadline = lastWord(connection, this.#timing.closeDeadlineMs);
    setMaxListeners(0, deadline);
    const jobs = new RunJobs(connection, prepared.account, run, this.#policy, deadline);
    const removed = new Map<string, Calls>();
    const removeUnsubmitted = () => jobs.removeUnsubmitted((image, calls) => removed.set(image, calls));
    const unlessAway = async (step: () => Promise<void>) => {
      try {
        await step();
      } catch (error) {
        this.tools.logger.warn(`the queue could not be tidied up: ${messageOf(error)}`);
      }
    };
    // Twice: workers elsewhere would go on submitting, and ours hands unsubmitted images back.
    await Promise.all([this.#worker?.stop(), unlessAway(removeUnsubmitted)]);
    await unlessAway(removeUnsubmitted);
    await unlessAway(() => this.#consumer.drained(deadline));
    await this.home.flushed();
    this.home.releaseEarlyResults(this.#isWhole);
    // What cannot be acknowledged while the queue is away is taken back by the next run.
    const isClosed = new AbortController();
    await Promise.race([
      this.#consumer.close().finally(() => isClosed.abort()),
      sleep(lastWordMs(connection, this.#timing.closeDeadlineMs / 2), isClosed.signal),
    ]);
    await this.#completed.settled();
    let inFlight = this.home.outstanding.images.size;
    await unlessAway(async () => {
      const left = await jobs.leftOver();
      inFlight = this.#countLeftInFlight(left, removed);
      // Only where every completed job is written: what is left open may need its job's return value.
      if (inFlight === 0) await unlessAborted(this.#kept.add(run, this.#completed.kept), deadline);
    });
    return inFlight;
  }

  /**
   * The calls made for images whose outcome is still to come belong to this run as well. Counted after the last
   * result came home: a job that was removed may have ended in that moment, and be counted by its result.
   */
  #countLeftInFlight(left: ReadonlyMap<string, QueuedJob>, removed: ReadonlyMap<string, Calls>): number {
    const { counts, outstanding } = this.home;
    for (const [image, pending] of outstanding.images) {
      const calls = left.get(image) ?? removed.get(image);
      if (calls === undefined) continue;
      counts.submits += Math.max(0, calls.submits - pending.submitsBefore);
      counts.polls += Math.max(0, calls.polls - pending.pollsBefore);
    }
    const isOpen = ([image, { state }]: [string, { state: string }]) =>
      state !== 'failed' && !this.home.lookup.isDescribed(image);
    return [...left].filter(isOpen).length;
  }
}

function abandonedText(count: number): string {
  return `${count} image(s) were submitted for runs that nobody runs any more: those that are in this manifest too are paid for once more, and counted as maybePaidTwice`;
}
