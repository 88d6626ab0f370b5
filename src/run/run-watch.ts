import type { NewImage } from '../producer/produce.js';
import type { Row } from '../producer/row-reader.js';
import { describeJobId } from '../shared/jobs.js';
import { debugError } from '../shared/log.js';
import { RUNS, workersOf } from '../shared/published.js';
import { atShutdown } from '../shared/queue/outage.js';
import * as registry from '../shared/queue/registry.js';
import { type RunCounts, failedRows } from '../shared/run-counts.js';
import { dropRunOrder, readRunOrders } from '../shared/run-leases.js';
import { repeat } from '../shared/waiting.js';
import type { OpenRun } from './open-run.js';
import type { Receipt, RunStop } from './receipt.js';
import { judgeWorkers } from './run-control.js';
import type { JobPlace } from './run-jobs.js';
import type { Progress } from './run-options.js';

/** The worker of this process. */
interface OwnWorker {
  /** Whether it is at work on the job, even if the queue does not know of that any more. */
  isHolding(jobId: string): boolean;
}

/** The watch over a run that goes on: its progress, its workers, what people order, and whether anything was lost. */
export class RunWatch {
  readonly #reconciler = new Reconciler();
  readonly #meter: ProgressMeter;
  readonly #startedAt = Date.now();

  constructor(
    private readonly run: OpenRun,
    private readonly worker: OwnWorker | undefined,
  ) {
    const { preview } = run;
    this.#meter = new ProgressMeter(preview.sampled ? undefined : preview);
  }

  /** Looks each second, and now and then closer, until the run is over. */
  async watch(over: AbortSignal): Promise<void> {
    const { options, timing, logger } = this.run;
    const startedAt = performance.now();
    let reconciledAt = startedAt;
    let saidNoWorker = options.work !== false;
    const look = async () => {
      await this.#tick();
      if (over.aborted) return;
      const now = performance.now();
      if (!saidNoWorker && now - startedAt > timing.noWorkerNoticeMs)
        saidNoWorker = await this.#noticeNoWorker();
      if (now - reconciledAt > timing.reconcileEveryMs) {
        await this.#reconcile();
        reconciledAt = now;
      }
    };
    await repeat(timing.tickMs, over, look, debugError(logger, 'the queue did not answer; looking again'));
  }

  async #tick(): Promise<void> {
    const { connection, client, limits, control, queueName, failing, ledger, jobs } = this.run;
    if (client === undefined) await limits.refresh();
    const [workers, inFlight] = await Promise.all([
      registry.listProcesses(connection.store, workersOf(queueName)),
      connection.queue(queueName).getActiveCount(),
    ]);
    const { downLimitMs } = this.run.timing;
    const stop = judgeWorkers(workers, Date.now(), { downLimitMs, startedAt: this.#startedAt });
    if (stop !== undefined) control.stop(stop);
    if (failing.isFailing(inFlight)) control.stop({ kind: 'failing', reason: failing.reason });
    await this.#obey(workers.length > 0);
    await jobs.takeUpSetAside((image) => newImage(image, ledger.get(image)?.rows[0]));
    const share = Math.min(1, ...workers.map((worker) => worker.share));
    const progress = this.#meter.read(ledger.counts, { inFlight, share }, Date.now());
    this.run.emit({ type: 'progress', progress });
    await publishProgress(this.run, progress, ledger.counts.failedByCode, control.reason?.reason);
  }

  /** @param isWorked whether what is in flight can end by itself */
  async #obey(isWorked: boolean): Promise<void> {
    const { connection, control, id, ledger } = this.run;
    const { cancel } = await readRunOrders(connection.store, id);
    if (cancel) {
      control.windDown({ kind: 'cancelled', reason: 'cancelled with `bulk-describe cancel`' });
      await dropRunOrder(connection.store, id, 'cancel');
      ledger.notify();
    }
    if (control.isWindingDown && !isWorked) control.stop({ kind: 'cancelled', reason: 'cancelled' });
  }

  async #noticeNoWorker(): Promise<boolean> {
    const { connection, queueName, emit } = this.run;
    const workers = await registry.listProcesses(connection.store, workersOf(queueName));
    if (workers.length > 0) return false;
    emit({
      type: 'notice',
      text: 'no worker has come for this account: start one with `bulk-describe worker`, or let this process work too (no --no-work; `serve --work`)',
    });
    return true;
  }

  /** Settles the rows whose jobs were removed, or ended without their results. */
  async #reconcile(): Promise<void> {
    const { jobs, ledger, results, id, writer } = this.run;
    const places = await jobs.places();
    const resultsAreIn = (await results.unseen()) === 0;
    for (const { image, kind } of this.#reconciler.look(ledger.pending(), places, resultsAreIn)) {
      // Removed from the queue, and still in flight here: its outcome comes all the same.
      if (this.worker?.isHolding(describeJobId(id, image)) === true) continue;
      const ended = kind === 'ended' ? await jobs.ended(image) : undefined;
      const reason =
        ended?.failedReason ??
        'its job was removed from the queue; it may have been paid for, and is described by the next run';
      const lost = { status: 'failed', code: 'lost', reason, attempts: 0 } as const;
      await writer.settle(ended?.result ?? { image, outcome: lost, submits: 0, polls: 0, maybePaid: 0 });
    }
  }
}

/** The job of a pending image, once more. */
function newImage(image: string, row: Row | undefined): NewImage | undefined {
  return row && { image, url: row.url ?? '', row: row.number };
}

/** What reconciling finds about an image whose outcome has not come. */
type Finding =
  /** Nobody has its job, twice in a row. */
  | { readonly image: string; readonly kind: 'lost' }
  /** Its job ended, twice in a row, and its result did not come: the job says how. */
  | { readonly image: string; readonly kind: 'ended' };

/**
 * Compares the images that wait for an outcome with the queue. One look proves nothing, since a result can be
 * on its way; two do, a while apart, with an empty results queue each time.
 */
export class Reconciler {
  #suspects = new Map<string, Finding['kind']>();

  /**
   * @param waiting images without an outcome
   * @param places where the queue has their jobs
   * @param resultsAreIn whether every result that was published has been looked at
   */
  look(waiting: Iterable<string>, places: ReadonlyMap<string, JobPlace>, resultsAreIn: boolean): Finding[] {
    if (!resultsAreIn) return [];
    const suspects = new Map<string, Finding['kind']>();
    for (const image of waiting) {
      const place = places.get(image);
      if (place !== 'unfinished') suspects.set(image, place === undefined ? 'lost' : 'ended');
    }
    const findings: Finding[] = [];
    for (const [image, kind] of suspects) {
      if (this.#suspects.get(image) === kind) findings.push({ image, kind });
    }
    this.#suspects = suspects;
    return findings;
  }
}

const WINDOW_MS = 30_000;

/** Turns the counts into progress: the rate of the last half a minute, and from it the time that is left. */
export class ProgressMeter {
  #samples: { readonly atMs: number; readonly settled: number }[] = [];

  /** @param manifest its rows, and those of them that were described before, where all of it could be counted */
  constructor(private readonly manifest: { readonly rows: number; readonly described: number } | undefined) {}

  read(counts: RunCounts, live: { inFlight: number; share: number }, nowMs: number): Progress {
    const failed = failedRows(counts);
    const done = counts.described + counts.copied + failed;
    this.#samples.push({ atMs: nowMs, settled: done });
    while (this.#samples.length > 2 && nowMs - (this.#samples[0]?.atMs ?? nowMs) > WINDOW_MS) {
      this.#samples.shift();
    }
    const [oldest] = this.#samples;
    const spanMs = nowMs - (oldest?.atMs ?? nowMs);
    const perSecond = spanMs > 0 ? ((done - (oldest?.settled ?? 0)) / spanMs) * 1000 : 0;
    // Described rows are counted as they are met, which may be behind those that are left to do.
    const left = this.manifest && Math.max(0, this.manifest.rows - this.manifest.described - done);
    return {
      rows: counts.rows,
      totalRows: this.manifest?.rows,
      settled: done + counts.resumed,
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

/** A queue that is away keeps nobody waiting for what a run says at its end. */
const END_DEADLINE_MS = 2000;

/**
 * Lets everybody at the same queue see how a run is getting on.
 * @param stopping why the run is about to end before its time
 */
async function publishProgress(
  { connection, about }: OpenRun,
  { rows, totalRows, described, resumed, copied, failed, perSecond, etaMs }: Progress,
  byCode: ReadonlyMap<string, number>,
  stopping?: string,
): Promise<void> {
  const failedByCode = Object.fromEntries(byCode);
  const counts = { rows, totalRows, described, resumed, copied, failed, failedByCode, perSecond, etaMs };
  const status = { ...about, seenAt: Date.now(), ...counts, stopping };
  await registry.publish(connection.store, RUNS, about.run, status);
}

export async function publishEnd(
  { connection, about, logger }: OpenRun,
  { rows, described, resumed, copied, failed, remaining, complete, seconds }: Receipt,
  byCode: ReadonlyMap<string, number>,
  { stop, exitCode }: { readonly stop: RunStop | undefined; readonly exitCode: number },
): Promise<void> {
  const published = registry.publish(connection.store, RUNS, about.run, {
    ...about,
    seenAt: Date.now(),
    ...{ rows, totalRows: complete ? rows : undefined, described, resumed, copied, failed },
    failedByCode: Object.fromEntries(byCode),
    perSecond: seconds > 0 ? (described + copied + failed) / seconds : 0,
    ended: { exitCode, remaining, reason: stop?.reason },
  });
  const onError = debugError(logger, 'how the run ended could not be published');
  await atShutdown(connection, END_DEADLINE_MS, published, onError);
}
