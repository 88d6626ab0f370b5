import type { DescribeClient } from '../describe-api/client.js';
import { ANSWER_FORMATS, type AnswerFormat } from '../describe-api/dialects/index.js';
import { type Account, accountLabel, describeQueueName } from '../shared/account.js';
import type { AccountLimits } from '../shared/account-limits.js';
import type { DescribeJobData, ResultJobData } from '../shared/jobs.js';
import { processingWindow, type Rate } from '../shared/limits.js';
import { type Logger, debugError } from '../shared/log.js';
import { processName } from '../shared/process-identity.js';
import type { ImageOptions } from '../shared/prepare-image.js';
import { ACCOUNTS, type WorkerStatus, workersOf } from '../shared/published.js';
import type { JobQueue, JobWorker, QueueConnection } from '../shared/queue/connection.js';
import { RateLimiter, limiterName } from '../shared/queue/limiter.js';
import { atShutdown, isDoneInTime, retryUntilUp } from '../shared/queue/outage.js';
import { promoteFromTheFuture } from '../shared/queue/job-moves.js';
import { SpendingCounter } from '../shared/run-spending.js';
import { clockAheadMs, repeat } from '../shared/waiting.js';
import { Intake } from './api-health.js';
import { Images } from './images.js';
import { JobLogs, JobProcessor } from './job-processor.js';
import { LivingRuns } from './living-runs.js';
import { PollTurns } from './message-polls.js';
import { PollSchedule } from './poll-schedule.js';
import { type ProcessingDeps, createResultPublisher } from './processing.js';
import { holdSubmits } from './submit-failure.js';
import { type WebhookOptions, WorkerWebhooks } from './webhooks.js';
import { WorkerMetrics } from './worker-metrics.js';

export interface WorkerOptions {
  readonly connection: QueueConnection;
  readonly account: Account;
  readonly client: DescribeClient;
  readonly limits: AccountLimits;
  readonly logger: Logger;
  /** Where the API is to say that a message is completed; it is polled for alone without. */
  readonly webhooks?: WebhookOptions | undefined;
  readonly images?: ImageOptions | undefined;
  readonly onNotice?: ((text: string) => void) | undefined;
}

const TICK_MS = 1000;
/** Trouble that lasts, or comes back, is logged anew after this time. */
const SAME_TROUBLE_MS = 60_000;
/** Completed jobs that stay in the account's queue, and as many failed ones. */
const KEPT_JOBS = 1000;
const KEPT_SECONDS = 7 * 24 * 3600;
const SHUTDOWN_TIMEOUT_MS = 2000;

/**
 * A stop waits this long for submits on the wire and for the queue, then leaves the rest to recovery; with nothing
 * on the wire it waits no longer than the second time for a queue that is away.
 */
const STOP_DEADLINE_MS = 35_000;
const AWAY_DEADLINE_MS = 1000;

/** A worker: takes images of an account, whoever's run they belong to, until it is stopped. */
export class DescribeWorker {
  readonly id = processName();
  readonly #queue: JobQueue<DescribeJobData, ResultJobData>;
  readonly #logger: Logger;
  readonly #living: LivingRuns;
  readonly #jobLogs: JobLogs;
  readonly #processing: ProcessingDeps;
  readonly #processor: JobProcessor;
  readonly #intake: Intake;
  /** Aborts when images are to be released; `#ended`, when nothing of this worker is to go on. */
  readonly #release = new AbortController();
  readonly #ended = new AbortController();
  #worker: JobWorker<DescribeJobData, ResultJobData> | undefined;
  /** What the clock that may jump is ahead of the one that does not. */
  #clockAheadMs = clockAheadMs();
  #ticking: Promise<void> = Promise.resolve();
  #trouble = { text: '', loggedAt: -Infinity };
  #keptFormat: AnswerFormat | undefined;
  #stopped: Promise<void> | undefined;

  private constructor(
    private readonly options: WorkerOptions,
    private readonly schedule: PollSchedule,
    private readonly webhooks: WorkerWebhooks | undefined,
    private readonly images: Images,
  ) {
    const { connection, limits, client } = options;
    this.#queue = connection.queue(describeQueueName(options.account));
    const logger = options.logger.child({ worker: this.id });
    this.#logger = logger;
    this.#living = new LivingRuns(connection, logger);
    const metrics = new WorkerMetrics();
    this.#jobLogs = new JobLogs(this.#queue, logger);
    const onNoMore = async () => {
      await retryUntilUp(connection, () => this.#publishStatus());
      this.#release.abort();
    };
    this.#intake = new Intake(limits, () => this.#worker, this.#ended.signal, onNoMore);
    this.#processing = {
      connection,
      queue: this.#queue,
      client,
      images,
      submitLimiter: this.#createLimiter('submit', () => limits.currentRate()),
      pollTurns: new PollTurns({
        client,
        limiter: this.#createLimiter('poll', () => limits.configured.pollRate),
        metrics,
        logger,
        stopping: this.#release.signal,
      }),
      limits,
      spending: new SpendingCounter(connection),
      health: this.#intake.health,
      living: this.#living,
      schedule,
      metrics,
      firstPolls: new Set(),
      webhooks,
      publisher: createResultPublisher(connection),
      intake: this.#intake,
      now: () => performance.now(),
    };
    this.#processor = new JobProcessor(this.#processing, this.#jobLogs, logger, this.#release.signal);
  }

  static async start(options: WorkerOptions): Promise<DescribeWorker> {
    const { connection, account, logger } = options;
    const queueName = describeQueueName(account);
    const schedule = await PollSchedule.open(connection.store, queueName);
    const webhooks =
      options.webhooks && (await WorkerWebhooks.open(options.webhooks, connection.store, queueName, logger));
    const onNotice = options.onNotice ?? ((text: string) => logger.warn(text));
    const about = { dialect: options.client.dialect, host: account.host, connection, queueName, onNotice };
    const images = await Images.open(options.images ?? {}, about);
    const worker = new DescribeWorker(options, schedule, webhooks, images);
    try {
      await worker.#start();
    } catch (error) {
      await worker.stop();
      throw error;
    }
    return worker;
  }

  async #start(): Promise<void> {
    await this.#recallFormat();
    await this.#applyLimits();
    // The embedded queue has forgotten the hold with its last process.
    const heldMs = this.options.limits.heldMs();
    if (heldMs > 0) await holdSubmits(heldMs, this.#processing);
    await this.#publishStatus();
    // Before anything is taken: a run that has died may have left thousands.
    await this.#living.sweep(this.#queue);
    await promoteFromTheFuture(this.#queue);
    this.#worker = this.options.connection.worker<DescribeJobData, ResultJobData>(
      this.#queue.name,
      (job, token) => this.#processor.process(job, token ?? ''),
      {
        concurrency: this.options.limits.configured.maxInFlight,
        // How long a change of the limits, or the end of a pause, may go unnoticed.
        maximumRateLimitDelay: TICK_MS,
        name: this.id,
        // For people to look at: their results are in the results queue, and stay there until their rows are on disk.
        removeOnComplete: { count: KEPT_JOBS, age: KEPT_SECONDS },
        // For people to put back; what became of the others, and their last messages, is in the failures file.
        removeOnFail: { count: KEPT_JOBS, age: KEPT_SECONDS },
      },
    );
    this.#worker.on('lockRenewalFailed', (jobs) => {
      this.#logger.debug({ jobs }, 'locks could not be renewed: other workers may take these images up');
    });
    const onError = debugError(this.#logger, 'the queue did not answer; trying again');
    this.#ticking = repeat(TICK_MS, this.#ended.signal, () => this.#tick(), onError);
  }

  /** Whether this worker is at work on the job, even if the queue does not know of that any more. */
  isHolding(jobId: string): boolean {
    return this.#processor.processings.isRunning(jobId);
  }

  /** Each second: what everybody may know of this worker, and the account's limits as they are now. */
  async #tick(): Promise<void> {
    const { connection, limits } = this.options;
    const aheadMs = clockAheadMs();
    if (aheadMs < this.#clockAheadMs - TICK_MS) await promoteFromTheFuture(this.#queue);
    this.#clockAheadMs = aheadMs;
    await limits.refresh();
    await this.#applyLimits();
    await this.#publishStatus();
    this.#logTrouble();
    await this.#keepFormat();
    await this.schedule.save(connection.store, this.#queue.name);
    await this.#processing.metrics.publish(connection.store, this.#queue.name);
    await this.#jobLogs.send();
    await this.#living.sweep(this.#queue);
  }

  /**
   * Looks at what the queue has, since a queue that was flushed has nothing. Without a rate limit BullMQ would ignore
   * that the queue is held.
   */
  async #applyLimits(): Promise<void> {
    const { limits } = this.options;
    const { maxInFlight } = limits.configured;
    if (this.#worker !== undefined) this.#worker.concurrency = maxInFlight;
    if ((await this.#queue.getGlobalConcurrency()) !== maxInFlight)
      await this.#queue.setGlobalConcurrency(maxInFlight);
    const { max, duration } = processingWindow(limits.currentRate(), this.#processing.submitLimiter.waiting);
    const present = await this.#queue.getGlobalRateLimit();
    if (present?.max === max && present.duration === duration) return;
    // Those that have images know whether many wait.
    if (present === null || !this.#processor.processings.isIdle)
      await this.#queue.setGlobalRateLimit(max, duration);
  }

  /** Which format of answers the account's API takes, as an earlier worker has found. */
  async #recallFormat(): Promise<void> {
    const { connection, client } = this.options;
    const { answerFormat } = await connection.store.getFields(`account:${this.#queue.name}`);
    client.answerFormat = ANSWER_FORMATS.find((format) => format === answerFormat) ?? client.answerFormat;
    this.#keptFormat = client.answerFormat;
  }

  async #keepFormat(): Promise<void> {
    const { connection, client } = this.options;
    const { answerFormat } = client;
    if (answerFormat === this.#keptFormat) return;
    this.#logger.info({ answerFormat }, 'the API does not take the format that answers were asked for in');
    await connection.store.setFields(`account:${this.#queue.name}`, { answerFormat });
    this.#keptFormat = answerFormat;
  }

  /** Whoever is not heard of counts as gone. */
  async #publishStatus(): Promise<void> {
    const { store } = this.options.connection;
    const queueName = this.#queue.name;
    await workersOf(queueName).publish(store, this.id, this.status);
    const label = accountLabel(this.options.account);
    await ACCOUNTS.publish(store, queueName, { label, queueName });
  }

  /** Says why the API cannot be reached, long before it counts as down, and each minute while that lasts. */
  #logTrouble(): void {
    const text = this.status.trouble;
    const now = performance.now();
    if (text === undefined || (text === this.#trouble.text && now - this.#trouble.loggedAt < SAME_TROUBLE_MS))
      return;
    this.#trouble = { text, loggedAt: now };
    this.#logger.warn(`the API cannot be reached: ${text}`);
  }

  #createLimiter(call: 'submit' | 'poll', rate: () => Rate): RateLimiter {
    const { connection } = this.options;
    const name = limiterName(call, this.#queue.name);
    const take = (request: Parameters<QueueConnection['store']['takePermits']>[1]) =>
      retryUntilUp(connection, () => connection.store.takePermits(name, request));
    return new RateLimiter({ rate, take });
  }

  get status(): WorkerStatus {
    return this.#intake.status;
  }

  /** Takes no more images, awaits submits on the wire, releases the others. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    // Closing waits for the active jobs; they end because the signal tells them to release themselves.
    const closing = this.#worker?.close() ?? Promise.resolve();
    this.#release.abort();
    this.#ended.abort();
    const { connection } = this.options;
    const inTime = await isDoneInTime(closing, (waitedMs) => {
      // A submit is paid for, and has a deadline of its own: minutes, where the API is synchronous.
      if (this.#processing.metrics.submitsOnTheWire > 0) return true;
      return waitedMs < (connection.outage.isDown ? AWAY_DEADLINE_MS : STOP_DEADLINE_MS);
    });
    if (!inTime)
      this.#logger.error('not all images could be released in time: they are taken up when their locks end');
    // It helps others and is no condition for an end: a queue that is away is not waited for.
    const last = [
      this.#ticking.then(() => workersOf(this.#queue.name).withdraw(connection.store, this.id)),
      this.schedule.save(connection.store, this.#queue.name),
      this.#processing.metrics.publish(connection.store, this.#queue.name),
      this.#jobLogs.send(),
      this.webhooks?.inbox.close(),
      this.images.close(),
    ];
    const onError = debugError(this.#logger, 'the queue did not take in time what a worker leaves behind');
    await Promise.all(
      last.map((work) => atShutdown(connection, SHUTDOWN_TIMEOUT_MS, Promise.resolve(work), onError)),
    );
  }
}
