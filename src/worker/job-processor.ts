import { hostname } from 'node:os';
import { DelayedError, type Job, RateLimitError, UnrecoverableError, WaitingError } from 'bullmq';
import { messageOf } from '../shared/errors.js';
import {
  type DescribeJobData,
  HELD,
  type ResultJobData,
  imageOfJobId,
  notDescribable,
} from '../shared/jobs.js';
import { type Logger, debugError } from '../shared/log.js';
import { type JobQueue, LOCK_MS } from '../shared/queue/connection.js';
import { retryUntilUp } from '../shared/queue/outage.js';
import { processImage } from './process-image.js';
import type { ActiveJob, ProcessingDeps, ProcessingOutcome } from './processing.js';

type DescribeJob = Job<DescribeJobData, ResultJobData>;

const PROGRESS_EVERY_MS = 2000;
const LOGGED_DATA = 40;

/** Processes the jobs that BullMQ gives to this worker: each is entered here once, and left here once. */
export class JobProcessor {
  readonly processings: Processings;

  /** @param stopping aborts when all jobs are to be released */
  constructor(
    private readonly deps: ProcessingDeps,
    private readonly jobLogs: JobLogs,
    private readonly logger: Logger,
    stopping: AbortSignal,
  ) {
    this.processings = new Processings(stopping);
  }

  /**
   * @returns the job's return value, for an image that was described
   * @throws BullMQ's marker errors, for everything else that can become of a job
   */
  async process(job: DescribeJob, token: string): Promise<ResultJobData> {
    const trouble = notDescribable(job.data);
    // No result is published either: no run waits for it, and a queue would be made for it.
    if (trouble !== undefined) throw unrecoverable(trouble);
    return await this.processings.run(
      job.id ?? '',
      (earlier, stopping) => {
        // It has published its result: what is left is to finish the job.
        if (earlier !== undefined && 'result' in earlier) return Promise.resolve(earlier);
        // The job as it was fetched does not say how far the earlier one has brought it.
        if (earlier !== undefined) job.data = earlier.data;
        return this.#process(job, token, stopping);
      },
      (outcome) => this.#finish(job, token, outcome),
    );
  }

  async #process(job: DescribeJob, token: string, stopping: AbortSignal): Promise<ProcessingOutcome> {
    this.#log(job, `taken by a worker on ${hostname()}, process ${process.pid}`);
    const ended = await processImage(this.#activeJob(job, token), this.deps, stopping);
    if (ended.kind !== 'complete' && ended.kind !== 'fail') return ended;
    const { outcome, submits, polls } = ended.result;
    this.deps.metrics.ended(outcome);
    const how = outcome.status === 'described' ? 'described' : `failed (${outcome.code}): ${outcome.reason}`;
    this.logger.info({ ...aboutJob(job), messageId: outcome.messageId, submits, polls }, how);
    return ended;
  }

  async #finish(job: DescribeJob, token: string, outcome: ProcessingOutcome): Promise<ResultJobData> {
    if (outcome.kind === 'complete') return outcome.result;
    const { connection } = this.deps;
    await this.#save(job, outcome.data);
    switch (outcome.kind) {
      case 'fail': {
        const { outcome: failed } = outcome.result;
        throw unrecoverable(failed.status === 'failed' ? `${failed.code}: ${failed.reason}` : '');
      }
      case 'release':
        this.#log(job, `released: ${outcome.why}`);
        await retryUntilUp(connection, () => job.moveToWait(token));
        throw new WaitingError();
      case 'delay':
        this.#log(
          job,
          outcome.ms > 0 ? `again in ${seconds(outcome.ms)}` : 'again as soon as the rate allows',
        );
        await retryUntilUp(connection, () => job.moveToDelayed(Date.now() + Math.ceil(outcome.ms), token));
        throw new DelayedError();
      case 'rateLimited':
        this.#log(job, `rate limited: the whole queue waits ${seconds(outcome.ms)}`);
        throw new RateLimitError();
    }
  }

  /** A job that was removed by hand meanwhile is still finished: its row waits for the result. */
  async #save(job: DescribeJob, data: DescribeJobData): Promise<void> {
    try {
      await retryUntilUp(this.deps.connection, () => job.updateData(data));
    } catch (error) {
      // BullMQ's word for a job that was removed: by a person, or with the whole of Redis.
      if (!/^Missing key for job/.test(messageOf(error))) throw error;
      // BullMQ says so too when the job ends, and that is logged.
      const { messageId } = data;
      this.logger.debug({ job: job.id, messageId }, 'the job was removed while it was worked on');
    }
  }

  /** The lock has run out where the queue, or this process, was away for long. A job that was removed by hand goes on. */
  async #renewLock(job: DescribeJob, token: string): Promise<void> {
    const { connection } = this.deps;
    if ((await retryUntilUp(connection, () => job.extendLock(token, LOCK_MS))) > 0) return;
    if ((await retryUntilUp(connection, () => job.getState())) === 'unknown') return;
    throw new SupersededError('its lock has run out, and another worker may have taken it up');
  }

  #log(job: DescribeJob, line: string): void {
    this.logger.debug({ ...aboutJob(job), messageId: job.data.messageId }, line);
    this.jobLogs.add(job.id ?? '', line);
  }

  #activeJob(job: DescribeJob, token: string): ActiveJob {
    let reportedAt = performance.now();
    return {
      image: imageOfJobId(job.data.run, job.id ?? '') ?? '',
      identity: `${job.id ?? ''}@${job.timestamp}`,
      data: job.data,
      attemptsStarted: job.attemptsStarted,
      isHeld: job.progress === HELD,
      save: (data) => this.#save(job, data),
      renewLock: () => this.#renewLock(job, token),
      log: (line) => this.#log(job, line),
      report: (progress) => {
        if (performance.now() - reportedAt < PROGRESS_EVERY_MS) return;
        reportedAt = performance.now();
        job
          .updateProgress(progress)
          .catch(debugError(this.logger, 'progress could not be stored', aboutJob(job)));
      },
    };
  }
}

function aboutJob(job: DescribeJob): { run: string; row: number; url: string } {
  const { run, row, url } = job.data;
  // An image in base64 says nothing to anybody.
  return { run, row, url: url.startsWith('data:') ? url.slice(0, LOGGED_DATA) : url };
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

/** BullMQ keeps the stack with the job, where it says nothing of the image. */
function unrecoverable(reason: string): UnrecoverableError {
  return Object.assign(new UnrecoverableError(reason), { stack: reason });
}

/** Entries that a job keeps, the newest ones. */
const KEEP = 50;
/** Jobs whose lines are kept in memory and sent at once. Nobody reads the stories of more images a second. */
const JOBS_AT_ONCE = 400;

/**
 * The logs of a worker's jobs, for people who look at one on the board. A job's lines are sent as one entry, and no image
 * waits for that: a queue that is away costs the lines of that time.
 */
export class JobLogs {
  #lines = new Map<string, string[]>();

  constructor(
    private readonly queue: Pick<JobQueue<unknown, unknown>, 'addJobLog'>,
    private readonly logger: Logger,
  ) {}

  /** Adds a line to a job's log, with the time of the day (UTC). */
  add(jobId: string, line: string): void {
    const lines = this.#lines.get(jobId) ?? [];
    lines.push(`${new Date().toISOString().slice(11, 23)} ${line}`);
    if (this.#lines.size < JOBS_AT_ONCE || lines.length > 1) this.#lines.set(jobId, lines);
  }

  async send(): Promise<void> {
    const collected = [...this.#lines];
    this.#lines = new Map();
    await Promise.all(
      collected.map(([job, lines]) =>
        this.queue
          .addJobLog(job, lines.slice(-KEEP).join('\n'), KEEP)
          .catch(debugError(this.logger, 'lines of a job log are lost', { job })),
      ),
    );
  }
}

interface Processing {
  /** Ends it: a newer processing of the job has begun, or this worker stops. */
  readonly end: AbortController;
  isSuperseded: boolean;
  readonly outcome: Promise<ProcessingOutcome>;
  /** Resolves when the queue knows what becomes of the job, or is not to know. */
  readonly finished: Promise<unknown>;
}

/** A newer processing of the job goes on, which its lock belongs to: this one, and BullMQ, leave the job alone. */
export class SupersededError extends WaitingError {}

/**
 * The jobs that this process is working on: each of them once.
 *
 * A process that slept for longer than its locks live (a suspended machine, a queue that was away) is given
 * its own jobs once more, as if it had died. The new processing then waits for the old one to stop where it is:
 * a submit that is on the wire is not made a second time, but awaited.
 */
export class Processings {
  readonly #running = new Map<string, Processing>();

  /** @param stopping aborts when all of them are to release their jobs */
  constructor(private readonly stopping?: AbortSignal) {
    // One listener for all: combined signals of each job would take more time than the jobs do.
    stopping?.addEventListener('abort', () => {
      for (const { end } of this.#running.values()) end.abort();
    });
  }

  get isIdle(): boolean {
    return this.#running.size === 0;
  }

  isRunning(jobId: string): boolean {
    return this.#running.has(jobId);
  }

  /**
   * @param process brings the job as far as it goes, from where an earlier processing that was still going on has left it
   *   (undefined without one), until its signal aborts
   * @param finish lets the queue know what becomes of the job
   * @throws {SupersededError} when a newer processing of the job has begun meanwhile
   */
  async run<T>(
    jobId: string,
    process: (earlier: ProcessingOutcome | undefined, stopping: AbortSignal) => Promise<ProcessingOutcome>,
    finish: (outcome: ProcessingOutcome) => Promise<T>,
  ): Promise<T> {
    const earlier = this.#running.get(jobId);
    const end = new AbortController();
    if (this.stopping?.aborted === true) end.abort();
    const outcome = supersede(earlier).then((left) => process(left, end.signal));
    const finished = outcome.then((ended) => {
      if (processing.isSuperseded) throw new SupersededError('a newer processing goes on');
      return finish(ended);
    });
    const processing: Processing = { end, isSuperseded: false, outcome, finished };
    this.#running.set(jobId, processing);
    try {
      return await finished;
    } finally {
      if (this.#running.get(jobId) === processing) this.#running.delete(jobId);
    }
  }
}

/** Ends an earlier processing of the job. @returns where it has left the job; undefined where the queue says that */
async function supersede(earlier: Processing | undefined): Promise<ProcessingOutcome | undefined> {
  if (earlier === undefined) return undefined;
  earlier.isSuperseded = true;
  earlier.end.abort();
  try {
    const outcome = await earlier.outcome;
    await earlier.finished.catch(() => undefined);
    return outcome;
  } catch {
    // It failed, and has said so: the job begins where the queue has it.
    return undefined;
  }
}
