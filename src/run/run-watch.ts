import { isDeepStrictEqual } from 'node:util';
import { describeJobId, isDecidedAnew } from '../shared/jobs.js';
import { debugError } from '../shared/log.js';
import { RUNS, type RunSeries, type RunStatus, workersOf } from '../shared/published.js';
import { type RunCounts, failedRows } from '../shared/run-counts.js';
import { dropRunOrder, readRunOrders } from '../shared/run-leases.js';
import type { Spent } from '../shared/run-spending.js';
import { clockAheadMs, repeat } from '../shared/waiting.js';
import type { DescribeWorker } from '../worker/describe-worker.js';
import { writeRunFile } from '../writer/run-file.js';
import { costOf } from './budget.js';
import { type OpenRun, checkSpending } from './open-run.js';
import { judgeWorkers } from './run-control.js';
import { type Calls, type JobPlace, newImageOf } from './run-jobs.js';
import type { Preview, Progress } from './run-options.js';

/** The watch over a run that goes on: its progress, its workers, what people order, and whether anything was lost. */
export class RunWatch {
  readonly #meter: ProgressMeter;
  readonly #startedMs = performance.now();
  #reconciledAt = performance.now();
  #saysNoWorker: boolean;
  #spentOnFile: Spent | undefined;
  /** Of the run file. Whoever ends the run writes it too. */
  #writing = Promise.resolve();
  /** Pending images without an unfinished job, as of the last look. */
  #suspects = new Map<string, JobPlace | undefined>();

  /** @param worker of this process */
  constructor(
    private readonly run: OpenRun,
    private readonly worker: DescribeWorker | undefined,
  ) {
    const { preview, options } = run;
    const isLimited = preview.toSubmit === options.limit || options.sample !== undefined;
    this.#spentOnFile = run.runFile.spent;
    this.#meter = new ProgressMeter(preview.sampled ? undefined : { ...preview, isLimited });
    this.#saysNoWorker = options.work === false;
  }

  /**
   * Looks each second, and now and then closer, until the run is over. A look whose answers come later than that changes
   * nothing any more: neither what is published of the run, nor its file.
   */
  async watch(over: AbortSignal): Promise<void> {
    const { timing, logger } = this.run;
    const look = async () => {
      await this.#tick(over);
      if (over.aborted || performance.now() - this.#reconciledAt <= timing.reconcileEveryMs) return;
      await this.#reconcile(over);
      this.#reconciledAt = performance.now();
    };
    await repeat(timing.tickMs, over, look, debugError(logger, 'the queue did not answer; looking again'));
    await this.#writing;
  }

  async #tick(over: AbortSignal): Promise<void> {
    const {
      connection,
      client,
      limits,
      control,
      queueName,
      failing,
      ledger,
      jobs,
      timing,
      options,
      preview,
      spending,
    } = this.run;
    if (client === undefined) await limits.refresh();
    const [workers, inFlight] = await Promise.all([
      workersOf(queueName).listProcesses(connection.store),
      connection.queue(queueName).getActiveCount(),
    ]);
    const stop = judgeWorkers(workers, Date.now(), {
      downLimitMs: timing.downLimitMs,
      // By the clock as it is now.
      startedAt: clockAheadMs() + this.#startedMs,
    });
    if (stop !== undefined) control.stop(stop);
    if (failing.isFailing(inFlight)) control.stop({ kind: 'failing', reason: failing.reason });
    if (workers.length === 0) this.#noticeNoWorker();
    await this.#obey(workers.length > 0);
    await this.#checkSpending(over);
    await jobs.takeUpSetAside((image) => {
      // What has left the queue would only have to be removed again.
      if (control.isWindingDown) giveUp(this.run, image);
      const row = ledger.get(image)?.rows[0];
      return row && newImageOf(image, row);
    });
    if (over.aborted) return;
    const share = Math.min(1, ...workers.map((worker) => worker.share));
    const { trouble } = workers.find((worker) => worker.trouble !== undefined) ?? {};
    const cost = costOf(spending.spent, options.prices);
    const progress = this.#meter.read(ledger.counts, { inFlight, share, trouble, cost }, performance.now());
    this.run.emit({ type: 'progress', progress });
    // What is left of a run that was stopped may be collected by another coordinator.
    const { reason, kind } = control.reason ?? this.run.options.stoppedBefore ?? {};
    // With --limit a person at the terminal sees how far that is; everybody else sees the whole manifest.
    const totalRows = preview.sampled ? undefined : preview.rows;
    await publishStatus(this.run, { ...progress, totalRows, stopping: reason, stopKind: kind });
  }

  /** @param isWorked whether what is in flight can end by itself */
  async #obey(isWorked: boolean): Promise<void> {
    const { connection, control, id } = this.run;
    const { cancel } = await readRunOrders(connection.store, id);
    if (cancel) {
      control.windDown({ kind: 'cancelled', reason: 'cancelled with `bulk-describe cancel`' });
      await dropRunOrder(connection.store, id, 'cancel');
    }
    if (control.isWindingDown && !isWorked) control.stop({ kind: 'cancelled', reason: 'cancelled' });
  }

  /** What was spent is in the run file as well: the queue may be emptied. */
  async #checkSpending(over: AbortSignal): Promise<void> {
    const { run } = this;
    await checkSpending(run);
    const { spent } = run.spending;
    if (over.aborted || isDeepStrictEqual(spent, this.#spentOnFile)) return;
    this.#spentOnFile = spent;
    const { runFile } = run.prepared.paths;
    this.#writing = writeRunFile(runFile, { ...run.runFile, spent, series: readSeries(run) }).catch(
      (error: unknown) => run.control.fail(error),
    );
    await this.#writing;
  }

  #noticeNoWorker(): void {
    const { timing, emit } = this.run;
    if (!this.#saysNoWorker || performance.now() - this.#startedMs <= timing.noWorkerNoticeMs) return;
    this.#saysNoWorker = false;
    emit({
      type: 'notice',
      text: 'no worker has come for this account: start one with `bulk-describe worker`, or let this process work too (no --no-work; `serve --work`)',
    });
  }

  /** Settles the rows whose jobs were removed, or ended without their results, as two looks in a row have found. */
  async #reconcile(over: AbortSignal): Promise<void> {
    const { jobs, ledger, results, id, writer } = this.run;
    const places = await jobs.places();
    // Results that are on their way may be theirs.
    if ((await results.unseen()) > 0) return;
    const before = this.#suspects;
    const placed = ledger.pending().map((image) => [image, places.get(image)] as const);
    this.#suspects = new Map(placed.filter(([, place]) => place !== 'unfinished'));
    for (const [image, place] of this.#suspects) {
      if (!before.has(image) || before.get(image) !== place) continue;
      // Removed from the queue, and still in flight here: its outcome comes all the same.
      if (this.worker?.isHolding(describeJobId(id, image)) === true) continue;
      const ended = place === undefined ? undefined : await jobs.get(image);
      // Its outcome may have come meanwhile, or the run may be over.
      if (over.aborted) return;
      if (!ledger.isPending(image)) continue;
      const reason =
        ended?.failedReason ??
        'its job was removed from the queue; it may have been paid for, and is described by the next run';
      const lost = { status: 'failed', code: 'lost', reason, attempts: 0 } as const;
      await writer.settle(ended?.returnvalue ?? { image, outcome: lost, submits: 0, polls: 0, maybePaid: 0 });
    }
  }
}

/** Leaves an image's rows for the next run. @param calls that were made for it all the same */
export function giveUp({ ledger, decisions }: OpenRun, image: string, calls?: Calls): void {
  for (const row of ledger.giveUp(image, calls)) decisions.leave(row);
}

const WINDOW_MS = 30_000;

/** Turns the counts into progress: the rate of the last half a minute, and from it the time that is left. */
export class ProgressMeter {
  #samples: { readonly atMs: number; readonly described: number }[] = [];

  /** @param plan what there is to do, where all of it could be counted; `isLimited`: for some of the images only */
  constructor(
    private readonly plan:
      (Pick<Preview, 'rows' | 'toSubmit'> & { readonly isLimited?: boolean | undefined }) | undefined,
  ) {}

  read(
    counts: RunCounts,
    live: Pick<Progress, 'inFlight' | 'share' | 'trouble' | 'cost'>,
    nowMs: number,
  ): Progress {
    const { plan } = this;
    const failed = failedRows(counts);
    const byRecord = [...counts.failedByCode].filter(([code]) => isDecidedAnew(code));
    const images = counts.described + failed - byRecord.reduce((sum, [, count]) => sum + count, 0);
    this.#samples.push({ atMs: nowMs, described: counts.described });
    while (this.#samples.length > 2 && nowMs - (this.#samples[0]?.atMs ?? nowMs) > WINDOW_MS) {
      this.#samples.shift();
    }
    const [oldest] = this.#samples;
    const spanMs = nowMs - (oldest?.atMs ?? nowMs);
    const perSecond = spanMs > 0 ? ((counts.described - (oldest?.described ?? 0)) / spanMs) * 1000 : 0;
    const left = plan && Math.max(0, plan.toSubmit - images);
    const isLimited = plan?.isLimited === true;
    return {
      rows: counts.rows,
      totalRows: isLimited ? plan.toSubmit : plan?.rows,
      settled: isLimited ? images : counts.described + counts.copied + counts.resumed + failed,
      described: counts.described,
      resumed: counts.resumed,
      copied: counts.copied,
      failed,
      ...live,
      perSecond,
      etaMs: left === undefined || perSecond === 0 ? undefined : (left / perSecond) * 1000,
    };
  }
}

/** The run over its time, up to this moment. */
export function readSeries({ ledger, series, spending, options }: OpenRun): RunSeries {
  const { counts } = ledger;
  const cost = costOf(spending.spent, options.prices);
  return series.read({ described: counts.described, failed: failedRows(counts), cost }, Date.now());
}

/** Lets everybody at the same queue see how a run is getting on, or has ended. */
export async function publishStatus(
  run: OpenRun,
  status: Omit<RunStatus, keyof OpenRun['about'] | 'seenAt' | 'failedByCode' | 'series'>,
): Promise<void> {
  const { connection, about, ledger } = run;
  const failedByCode = Object.fromEntries(ledger.counts.failedByCode);
  await RUNS.publish(connection.store, about.run, {
    inputTokens: ledger.counts.inputTokens,
    outputTokens: ledger.counts.outputTokens,
    ...status,
    ...about,
    failedByCode,
    series: readSeries(run),
    seenAt: Date.now(),
  });
}
