import { messageOf } from '../shared/errors.js';
import type { NewImage } from '../producer/produce.js';
import { describeJobId } from '../shared/jobs.js';
import { dropRunOrder, readRunOrders } from '../shared/run-orders.js';
import { sleep } from '../shared/sleep.js';
import { unlessAborted } from '../shared/unless-aborted.js';
import { workersOf } from '../shared/published.js';
import * as registry from '../shared/queue/registry.js';
import type { ActiveRunTools } from './active-run.js';
import type { FailingManifest } from './failing-manifest.js';
import type { Home } from './home.js';
import { judgeWorkers } from './judge-workers.js';
import { ProgressMeter } from './progress-meter.js';
import { Reconciler } from './reconcile.js';
import type { RunJobs } from './run-jobs.js';
import type { RunTiming } from './run-timing.js';

/** What is watched, and by which measure. */
export interface WatchTools extends Pick<
  ActiveRunTools,
  | 'options'
  | 'preview'
  | 'run'
  | 'connection'
  | 'limits'
  | 'control'
  | 'logger'
  | 'emit'
  | 'presence'
  | 'startWorker'
> {
  readonly home: Home;
  readonly jobs: RunJobs;
  /** How many results are in the queue that nobody has looked at. */
  readonly unseenResults: () => Promise<number>;
  readonly failing: FailingManifest;
  readonly timing: RunTiming;
  readonly queueName: string;
  /** Whether this process's worker is at work on the job, even if the queue does not know of that any more. */
  readonly isHolding: (jobId: string) => boolean;
}

/** The watch over a run that goes on: its progress, its workers, what people order, and whether anything was lost. */
export class RunWatch {
  readonly #reconciler = new Reconciler();
  readonly #meter: ProgressMeter;
  readonly #startedAt = Date.now();

  constructor(private readonly tools: WatchTools) {
    const { preview } = tools;
    this.#meter = new ProgressMeter(preview.sampled ? undefined : preview);
  }

  /** Looks each second, and now and then closer, until the run is over. */
  async watch(over: AbortSignal): Promise<void> {
    const { options, timing, logger } = this.tools;
    const startedAt = performance.now();
    let reconciledAt = startedAt;
    let saidNoWorker = options.work !== false;
    while (await sleep(timing.tickMs, over)) {
      try {
        await unlessAborted(this.#tick(), over);
        const now = performance.now();
        if (!saidNoWorker && now - startedAt > timing.noWorkerNoticeMs)
          saidNoWorker = await unlessAborted(this.#noticeNoWorker(), over);
        if (now - reconciledAt > timing.reconcileEveryMs) {
          await unlessAborted(this.#reconcile(), over);
          reconciledAt = now;
        }
      } catch (error) {
        logger.debug({ error: messageOf(error) }, 'the queue did not answer; looking again');
      }
    }
  }

  async #tick(): Promise<void> {
    const { connection, limits, control, emit, presence, queueName, failing, home, jobs } = this.tools;
    if (this.tools.startWorker === undefined) await limits.refresh();
    const [workers, inFlight] = await Promise.all([
      registry.listProcesses(connection.store, workersOf(queueName)),
      connection.queue(queueName).getActiveCount(),
    ]);
    const { downLimitMs } = this.tools.timing;
    const stop = judgeWorkers(workers, Date.now(), { downLimitMs, startedAt: this.#startedAt });
    if (stop !== undefined) control.stop(stop);
    if (failing.isFailing(inFlight)) control.stop({ kind: 'failing', reason: failing.reason });
    await this.#obey(workers.length > 0);
    await jobs.takeUpSetAside((image) => this.#pendingImage(image));
    const share = Math.min(1, ...workers.map((worker) => worker.share));
    const progress = this.#meter.read(home.counts, { inFlight, share }, Date.now());
    emit({ type: 'progress', progress });
    await presence.tell(progress, home.counts.failedByCode, control.reason?.reason);
  }

  #pendingImage(image: string): NewImage | undefined {
    const row = this.tools.home.outstanding.images.get(image)?.rows[0];
    return row && { image, url: row.url ?? '', row: row.number };
  }

  /** @param isWorked whether what is in flight can come home by itself */
  async #obey(isWorked: boolean): Promise<void> {
    const { connection, control, run, home } = this.tools;
    const { cancel } = await readRunOrders(connection.store, run);
    if (cancel) {
      control.windDown({ kind: 'cancelled', reason: 'cancelled with `bulk-describe cancel`' });
      await dropRunOrder(connection.store, run, 'cancel');
      home.outstanding.wake();
    }
    if (control.isWindingDown && !isWorked) control.stop({ kind: 'cancelled', reason: 'cancelled' });
  }

  async #noticeNoWorker(): Promise<boolean> {
    const { connection, emit, queueName } = this.tools;
    const workers = await registry.listProcesses(connection.store, workersOf(queueName));
    if (workers.length > 0) return false;
    emit({
      type: 'notice',
      text: 'no worker has come for this account: start one with `bulk-describe worker`, or let this process work too (no --no-work; `serve --work`)',
    });
    return true;
  }

  /** Settles the rows whose jobs were removed, or ended without their result coming home. */
  async #reconcile(): Promise<void> {
    const { home, jobs, run, isHolding } = this.tools;
    const places = await jobs.places();
    const resultsAreIn = (await this.tools.unseenResults()) === 0;
    const settled = this.#reconciler.look(home.outstanding.images.keys(), places, resultsAreIn);
    for (const { image, kind } of settled) {
      // Removed from the queue, and still in flight here: its outcome comes all the same.
      if (isHolding(describeJobId(run, image))) continue;
      const ended = kind === 'ended' ? await jobs.ended(image) : undefined;
      const reason =
        ended?.failedReason ??
        'its job was removed from the queue; it may have been paid for, and is described by the next run';
      const lost = { status: 'failed', code: 'lost', reason, attempts: 0 } as const;
      await home.settle(ended?.result ?? { image, outcome: lost, submits: 0, polls: 0, maybePaid: 0 });
    }
  }
}
