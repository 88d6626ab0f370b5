import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { UnrecoverableError, WaitingError } from 'bullmq';
import type { Submitted } from '../describe-api/client.js';
import { type Account, describeQueueName } from '../shared/account.js';
import type { AccountLimits } from '../shared/account-limits.js';
import { type Rate, processingWindow, scaleRate } from '../shared/limits.js';
import { messageOf } from '../shared/errors.js';
import { type DescribeJobData, type ResultJobData, imageOfJobId } from '../shared/jobs.js';
import type { Logger } from '../shared/log.js';
import { outOfPatience, retryUntilUp } from '../shared/queue/outage.js';
import type { JobWorker, QueueConnection } from '../shared/queue/connection.js';
import { RateLimiter, limiterName } from '../shared/queue/limiter.js';
import { sleep, unlessAborted } from '../shared/waiting.js';
import type { WorkerStatus } from '../shared/published.js';
import { processImage } from './process-image.js';
import type { ProcessingDeps, ActiveJob } from './processing.js';
import { Activations, SupersededError } from './activations.js';
import { ApiHealth } from './api-health.js';
import { createDeps } from './create-deps.js';
import type { ProcessingOutcome, StopReason } from './processing.js';
import { JobLogs } from './job-logs.js';
import { describeOutcome } from './job-logs.js';
import { Heartbeat } from './heartbeat.js';
import { LivingRuns, sweepDeadRuns } from './living-runs.js';
import { notDescribable } from './processing.js';
import { RememberedLatencies } from './worker-metrics.js';
import {
  type DescribeJob,
  type Persist,
  ResultPublisher,
  type SettleDeps,
  saveJob,
  settleJob,
} from './settle-job.js';
import { type WebhookOptions, WorkerWebhooks } from './webhooks.js';
import { WorkerMetrics } from './worker-metrics.js';

export interface WorkerOptions {
  readonly connection: QueueConnection;
  readonly account: Account;
  readonly client: ProcessingDeps['client'];
  readonly limits: AccountLimits;
  readonly logger: Logger;
  /** Where the API is to say that a message is completed; it is polled for alone without. */
  readonly webhooks?: WebhookOptions | undefined;
}

const TICK_MS = 1000;
/** Completed jobs that stay in the account's queue, and as many failed ones. */
const KEPT_JOBS = 1000;
const SWEEP_EVERY_MS = 5000;
const PROGRESS_EVERY_MS = 2000;

/**
 * A stop waits this long for submits on the wire and for the queue, then leaves the rest to recovery; with nothing
 * on the wire it waits no longer than the second time for a queue that is away.
 */
const STOP_DEADLINE_MS = 35_000;
const AWAY_DEADLINE_MS = 1000;

/** A worker: takes images of an account, whoever's run they belong to, until it is stopped. */
export class DescribeWorker {
  readonly id = randomUUID();
  /** Aborts when images are to be handed back; `#ended`, when nothing of this worker is to go on. */
  readonly #handBack = new AbortController();
  readonly #ended = new AbortController();
  readonly #queueName: string;
  readonly #health = new ApiHealth(Date.now, () => this.#comeUp());
  readonly #activations = new Activations(this.#handBack.signal);
  readonly #endListening: () => void;
  #isQueueAway = false;
  #onTheWire = 0;
  #workingSince = Date.now();
  readonly #logger: Logger;
  readonly #settleDeps: SettleDeps;
  readonly #metrics: WorkerMetrics;
  readonly #jobLogs: JobLogs;
  readonly #heartbeat: Heartbeat;
  readonly #submitLimiter: RateLimiter;
  readonly #living: LivingRuns;
  #sweptAt = -Infinity;
  #deps: ProcessingDeps;
  readonly #limits: AccountLimits;
  #worker: JobWorker<DescribeJobData, ResultJobData> | undefined;
  /** Aborts when the API answers again after it was down. */
  #up = new AbortController();
  #refusal: { state: StopReason; reason: string; since: number } | undefined;
  #webhooks: WorkerWebhooks | undefined;
  #ticking: Promise<void> = Promise.resolve();
  #stopped: Promise<void> | undefined;

  private constructor(
    private readonly options: WorkerOptions,
    private readonly latencies: RememberedLatencies,
    learned: readonly number[],
  ) {
    this.#queueName = describeQueueName(options.account);
    this.#limits = options.limits;
    this.#logger = options.logger.child({ worker: this.id });
    const persist: Persist = (operation) => retryUntilUp(options.connection, operation);
    this.#settleDeps = {
      connection: options.connection,
      queue: options.connection.queue(this.#queueName),
      persist,
      publisher: new ResultPublisher(options.connection, persist),
      logger: this.#logger,
      windowMs: () => this.#processingWindow().duration,
      rest: (ms) => this.#rest(ms),
      stop: (why, reason) => this.#refuse(why, reason),
    };
    const { connection, account } = options;
    const about = { connection, account, queueName: this.#queueName, workerId: this.id };
    this.#heartbeat = new Heartbeat({ ...about, logger: this.#logger });
    const counted = { connection, queueName: this.#queueName };
    this.#metrics = new WorkerMetrics(counted, this.#logger);
    this.#jobLogs = new JobLogs(connection, this.#settleDeps.queue, this.#logger);
    this.#submitLimiter = this.#createLimiter('submit', () => this.#rate());
    this.#living = new LivingRuns(connection.store, this.#logger);
    this.#deps = this.#createDeps(learned);
    this.#endListening = options.connection.onTrouble((state) => {
      if (state !== 'notice') this.#isQueueAway = state === 'down';
    });
  }

  /** Starts a worker in this process. */
  static async start(options: WorkerOptions): Promise<DescribeWorker> {
    const { connection, account, logger } = options;
    const latencies = new RememberedLatencies(connection, describeQueueName(account), logger);
    const worker = new DescribeWorker(options, latencies, await latencies.read());
    await worker.#openWebhooks();
    await worker.#start();
    return worker;
  }

  async #openWebhooks(): Promise<void> {
    const { webhooks, connection } = this.options;
    if (webhooks === undefined) return;
    const { persist } = this.#settleDeps;
    const deps = { store: connection.store, queueName: this.#queueName, persist, logger: this.#logger };
    this.#webhooks = await WorkerWebhooks.open(webhooks, deps);
    this.#deps = { ...this.#deps, webhooks: this.#webhooks };
  }

  async #start(): Promise<void> {
    const { maxInFlight } = this.#limits.configured;
    await this.#applyLimits();
    await this.#heartbeat.announce(this.status);
    // Before anything is taken: a run that has died may have left thousands.
    await this.#sweep();
    this.#worker = this.options.connection.worker<DescribeJobData, ResultJobData>(
      this.#queueName,
      (job, token) => this.#process(job, token ?? ''),
      {
        concurrency: maxInFlight,
        // How long a change of the limits, or the end of a pause, may go unnoticed.
        maximumRateLimitDelay: TICK_MS,
        name: this.id,
        // For people to look at: their results are in the results queue, and stay there until their rows are on disk.
        removeOnComplete: { count: KEPT_JOBS },
        // For people to put back; what became of the others, and their last messages, is in the failures file.
        removeOnFail: { count: KEPT_JOBS },
      },
    );
    this.#worker.on('lockRenewalFailed', (jobs) => {
      this.#logger.debug({ jobs }, 'locks could not be renewed: other workers may take these images up');
    });
    this.#ticking = this.#tick();
    this.#metrics.start();
    this.#jobLogs.start();
  }

  /** Whether this worker is at work on the job, even if the queue does not know of that any more. */
  isHolding(jobId: string): boolean {
    return this.#activations.isRunning(jobId);
  }

  /** Takes no more images, awaits submits on the wire, hands the others back to the queue. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    // Closing waits for the active jobs; they end because the signal tells them to hand themselves back.
    const closing = this.#worker?.close().then(() => true) ?? Promise.resolve(true);
    this.#handBack.abort();
    this.#ended.abort();
    const isClosed = new AbortController();
    const outOfTime = outOfPatience(isClosed.signal, (waitedMs) => this.#isHopeful(waitedMs));
    const inTime = await Promise.race([closing, outOfTime.then(() => false)]);
    isClosed.abort();
    this.#endListening();
    if (!inTime) {
      this.#logger.error(
        'not all images could be handed back in time: they are taken up when their locks end',
      );
    }
    const withdrawn = this.#ticking.then(() => this.#heartbeat.withdraw());
    const unheard = this.#webhooks?.close();
    const remembered = this.latencies.stop(this.#deps.schedule);
    await Promise.all([withdrawn, unheard, remembered, this.#metrics.stop(), this.#jobLogs.stop()]);
  }

  #isHopeful(waitedMs: number): boolean {
    // A submit is paid for, and has a deadline of its own: minutes, where the API is synchronous.
    if (this.#onTheWire > 0) return true;
    return waitedMs < STOP_DEADLINE_MS && (!this.#isQueueAway || waitedMs < AWAY_DEADLINE_MS);
  }

  async #process(job: DescribeJob, token: string): Promise<ResultJobData> {
    const trouble = notDescribable(job.data);
    // No outcome is handed over either: no run waits for it, and a queue would be made for it.
    if (trouble !== undefined) throw Object.assign(new UnrecoverableError(trouble), { stack: trouble });
    try {
      return await this.#activations.run(
        job.id ?? '',
        (inherited, stopping) => {
          if (inherited.kind === 'ending') return Promise.resolve(inherited.ending);
          if (inherited.kind === 'data') job.data = inherited.data;
          return this.#describe(job, stopping);
        },
        (ending) => {
          this.#tell(job, describeOutcome(ending, job.data.run));
          return settleJob(job, token, ending, this.#settleDeps);
        },
      );
    } catch (error) {
      // Nothing is to be done with the job: its lock is the newer activation's.
      if (error instanceof SupersededError) throw new WaitingError();
      throw error;
    }
  }

  async #describe(job: DescribeJob, stopping: AbortSignal): Promise<ProcessingOutcome> {
    this.#tell(job, `taken by a worker on ${hostname()}, process ${process.pid}`);
    const ending = await processImage(this.#activeJob(job), this.#deps, stopping);
    if (ending.kind !== 'outcome') return ending;
    const { outcome, submits, polls } = ending.result;
    this.#metrics.ended(outcome);
    const how = outcome.status === 'described' ? 'described' : `failed (${outcome.code}): ${outcome.reason}`;
    this.#logger.info({ ...aboutJob(job), messageId: outcome.messageId, submits, polls }, how);
    return ending;
  }

  /** For whoever looks at the job, and for the process's log. */
  #tell(job: DescribeJob, line: string): void {
    this.#logger.debug({ ...aboutJob(job), messageId: job.data.messageId }, line);
    this.#jobLogs.tell(job.id ?? '', line);
  }

  /** Each second: presence, the account's limits as they are now, and the learned rate. */
  async #tick(): Promise<void> {
    while (await sleep(TICK_MS, this.#ended.signal)) {
      try {
        await unlessAborted(this.#refresh(), this.#ended.signal);
      } catch (error) {
        this.#logger.debug({ error: messageOf(error) }, 'the queue did not answer; trying again');
      }
    }
  }

  async #refresh(): Promise<void> {
    await this.#limits.refresh();
    await this.#applyLimits();
    await this.#heartbeat.announce(this.status);
    await this.#webhooks?.remember();
    await this.latencies.remember(this.#deps.schedule);
    if (performance.now() - this.#sweptAt > SWEEP_EVERY_MS) await this.#sweep();
  }

  /** Runs that died leave images behind that nobody is to pay for. */
  async #sweep(): Promise<void> {
    const removed = await sweepDeadRuns(this.#settleDeps.queue, this.options.connection.store, this.#living);
    if (removed > 0) this.#logger.info({ images: removed }, 'unsubmitted images of dead runs are set aside');
    this.#sweptAt = performance.now();
  }

  /** The rate that the API lets through at the moment. */
  #rate(): Rate {
    return scaleRate(this.#limits.configured.rate, this.#limits.share());
  }

  #processingWindow() {
    return processingWindow(this.#rate(), this.#submitLimiter.waiting);
  }

  #createLimiter(call: 'submit' | 'poll', rate: () => Rate): RateLimiter {
    const { store } = this.options.connection;
    const name = limiterName(call, this.#queueName);
    return new RateLimiter({
      rate,
      take: (request) => this.#settleDeps.persist(() => store.takePermits(name, request)),
    });
  }

  /**
   * Looks at what the queue has, since a queue that was flushed has nothing. Without a rate limit BullMQ would ignore
   * that the queue is held.
   */
  async #applyLimits(): Promise<void> {
    const { maxInFlight } = this.#limits.configured;
    const { queue } = this.#settleDeps;
    if (this.#worker !== undefined) this.#worker.concurrency = maxInFlight;
    if ((await queue.getGlobalConcurrency()) !== maxInFlight) await queue.setGlobalConcurrency(maxInFlight);
    const { max, duration } = this.#processingWindow();
    const present = await queue.getGlobalRateLimit();
    if (present?.max === max && present.duration === duration) return;
    // Those that have images know whether many wait.
    if (present === null || !this.#activations.isIdle) await queue.setGlobalRateLimit(max, duration);
  }

  /** Takes no images for a while, or until the API answers; those in flight go on. */
  async #rest(ms: number): Promise<void> {
    if (this.#worker === undefined || this.#worker.isPaused()) return;
    this.#up = new AbortController();
    await this.#worker.pause(true);
    void this.#resumeAfter(ms, AbortSignal.any([this.#up.signal, this.#ended.signal]));
  }

  #comeUp(): void {
    this.#workingSince = Date.now();
    this.#up.abort();
  }

  async #resumeAfter(ms: number, early: AbortSignal): Promise<void> {
    await sleep(ms, early);
    if (this.#refusal === undefined && !this.#ended.signal.aborted) await this.#worker?.resume();
  }

  async #refuse(why: StopReason, reason: string): Promise<void> {
    if (this.#refusal !== undefined) return;
    this.#refusal = { state: why, reason, since: Date.now() };
    await this.#worker?.pause(true);
    await this.#settleDeps.persist(() => this.#heartbeat.announce(this.status));
    this.#handBack.abort();
  }

  /** What it tells of itself to everybody at the same queue. */
  get status(): WorkerStatus {
    const about = { host: hostname(), pid: process.pid, share: this.#limits.share() };
    if (this.#refusal !== undefined) return { ...about, ...this.#refusal };
    const { downSince } = this.#health;
    if (downSince === undefined) return { ...about, state: 'working', reason: '', since: this.#workingSince };
    return { ...about, state: 'down', reason: 'the API does not answer', since: downSince };
  }

  #createDeps(latencies: readonly number[]): ProcessingDeps {
    const { client, connection } = this.options;
    return createDeps({
      client: {
        dialect: client.dialect,
        submit: (request, about) => this.#submit(request, about),
        message: client.message.bind(client),
      },
      limits: this.#limits,
      store: connection.store,
      queueName: this.#queueName,
      settle: this.#settleDeps,
      health: this.#health,
      submitLimiter: this.#submitLimiter,
      pollLimiter: this.#createLimiter('poll', () => this.#limits.configured.pollRate),
      living: this.#living,
      metrics: this.#metrics,
      latencies,
    });
  }

  /** A stop waits for submits on the wire. */
  async #submit(...call: Parameters<ProcessingDeps['client']['submit']>): Promise<Submitted> {
    this.#onTheWire++;
    try {
      return await this.options.client.submit(...call);
    } finally {
      this.#onTheWire--;
    }
  }

  #activeJob(job: DescribeJob): ActiveJob {
    let reportedAt = performance.now();
    return {
      image: imageOfJobId(job.data.run, job.id ?? '') ?? '',
      identity: `${job.id ?? ''}@${job.timestamp}`,
      data: job.data,
      attemptsStarted: job.attemptsStarted,
      save: (data) => saveJob(job, data, this.#settleDeps),
      report: (progress) => {
        if (performance.now() - reportedAt < PROGRESS_EVERY_MS) return;
        reportedAt = performance.now();
        job.updateProgress(progress).catch((error: unknown) => {
          this.#logger.debug({ ...aboutJob(job), error: messageOf(error) }, 'progress could not be stored');
        });
      },
      log: (line) => {
        this.#tell(job, line);
      },
    };
  }
}

function aboutJob(job: DescribeJob): { run: string; row: number; url: string } {
  const { run, row, url } = job.data;
  return { run, row, url };
}
