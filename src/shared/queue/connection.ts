import {
  type BackendFactory,
  type IQueueBackend,
  type Job,
  type JobProgress,
  type JobType,
  Queue,
  type QueueOptions,
  type Telemetry,
  Worker,
  type WorkerOptions,
} from 'bullmq';
import { messageOf } from '../errors.js';
import type { Logger } from '../log.js';
import { startTracing } from '../telemetry.js';
import { UndoStack } from '../undo.js';
import { vanishedText } from './job-moves.js';
import { Outage, type Probed, atShutdown } from './outage.js';
import type { QueueTarget } from './queue-url.js';
import type { SharedStore } from './store.js';

/** A BullMQ queue of jobs with data `D` and result `R`, whatever it is kept in. */
export type JobQueue<D, R> = Queue<D, R, string, D, R, string, IQueueBackend, unknown>;

/** A BullMQ worker, whatever the queue is kept in. */
export type JobWorker<D, R> = Worker<D, R, string, IQueueBackend, JobProgress, unknown>;

/** Hazard: BullMQ hands the signal only to functions that declare three parameters. */
export type JobProcessor<D, R> = (job: Job<D, R>, token?: string, signal?: AbortSignal) => Promise<R>;

export type JobWorkerOptions = Omit<WorkerOptions<unknown>, 'connection' | 'prefix' | 'skipVersionCheck'>;

/** Key prefix of everything in Redis. */
export const KEY_PREFIX = 'bulk-describe';
/** How often a job may be recovered from a worker that died, before it fails. */
export const MAX_STALLED_COUNT = 100;

export const LOCK_MS = 10_000;

/** A job of a dead worker is taken up after 10 to 15 s; a worker that was away for a moment tries again in 1 s. */
const WORKER_DEFAULTS = {
  stalledInterval: 5000,
  lockDuration: LOCK_MS,
  maxStalledCount: MAX_STALLED_COUNT,
  runRetryDelay: 1000,
};

/** Nobody listens to them, and BullMQ would keep the last ten thousand of each run's results: a megabyte a night. */
const EVENTS = { events: { maxLen: 100 } };

/** So many queues are kept open on Redis for uses that pass. */
const MOST_PASSING = 30;
const CLOSE_DEADLINE_MS = 4000;
/** So long without any, and vanished jobs are reported again. */
const QUIET_MS = 60_000;

/** What a queue's name says of its jobs' types, the compiler cannot check. */
interface QueuesByName {
  get<D, R>(name: string): JobQueue<D, R> | undefined;
  set<D, R>(name: string, queue: JobQueue<D, R>): unknown;
  delete(name: string): boolean;
  has(name: string): boolean;
  values(): Iterable<{ close(): Promise<void> }>;
}

export interface OpenQueueOptions {
  logger?: Logger | undefined;
  /** Other processes have to reach it as well: the embedded queue is no way out when Redis is not there. */
  isShared?: boolean | undefined;
  /** It only looks: what is full or evicts is opened all the same, so that this can be seen. */
  isReader?: boolean | undefined;
  /** Told when opening takes longer than one would think, and why. */
  onSlow?: ((text: string) => void) | undefined;
}

/** What a queue is kept in. */
export interface QueueStorage extends Probed {
  readonly kind: QueueTarget['kind'];
  readonly store: SharedStore;
  /** Puts its own connection in place of the one in the options. */
  readonly createBackend: BackendFactory<IQueueBackend, unknown>;
  readonly skipVersionCheck?: boolean;
  /** Why it should not hold a queue by now: somebody has changed how it is set up. */
  refusal(): Promise<string | undefined>;
  /** Reports failures that no operation of the queue shows, and that the queue is gone for good. */
  watch(outage: Outage): void;
}

/**
 * Opens a queue. Only the code of the kind in use is loaded.
 * @throws {FatalError} when it is not there or cannot be used: one line that says what to do
 * @throws {BusyError} when another process has the embedded queue
 */
export async function openQueue(
  target: QueueTarget,
  options: OpenQueueOptions = {},
): Promise<QueueConnection> {
  const opened = new UndoStack();
  const tracing = await startTracing(process.env, options.logger);
  opened.defer(() => tracing?.stop());
  try {
    const storage = await openStorage(target, options, opened);
    const { logger } = options;
    return new QueueConnection(target.label, storage, opened, { logger, telemetry: tracing?.telemetry });
  } catch (error) {
    await opened.release();
    throw error;
  }
}

async function openStorage(
  target: QueueTarget,
  options: OpenQueueOptions,
  opened: UndoStack,
): Promise<QueueStorage> {
  if (target.kind === 'redis') {
    const { openRedis } = await import('./redis/redis-connection.js');
    return openRedis(target, options, opened);
  }
  const { openEmbedded } = await import('./embedded/embedded-queue.js');
  return openEmbedded(target, options, opened);
}

/** An open queue: makes BullMQ queues and workers, and closes what it made. */
export class QueueConnection {
  readonly kind: QueueTarget['kind'];
  readonly store: SharedStore;
  readonly outage: Outage;
  readonly #queues: QueuesByName = new Map();
  /** Those of them that may be let go. The one that was asked for last is the last. */
  readonly #passing = new Set<string>();
  readonly #workers = new Set<{ close(): Promise<void> }>();
  /** When each notice was last due. */
  readonly #noticedAt = new Map<string, number>();
  #closing: Promise<void> | undefined;

  /**
   * @param label names it for people, without a password
   * @param opened what is released after everything that is made here
   */
  constructor(
    readonly label: string,
    readonly storage: QueueStorage,
    private readonly opened: UndoStack,
    private readonly options: { logger: Logger | undefined; telemetry: Telemetry | undefined },
  ) {
    this.kind = storage.kind;
    this.store = storage.store;
    this.outage = new Outage(storage);
    storage.watch(this.outage);
  }

  /** The queue of that name; the same object each time. */
  queue<D, R>(name: string): JobQueue<D, R> {
    this.#passing.delete(name);
    return this.#queueOf(name);
  }

  /**
   * The queue of that name for one use: ask again for the next. There are as many results queues as there have been runs,
   * so the ones that were not asked for lately are let go; a use that still goes on goes on.
   */
  passingQueue<D, R>(name: string): JobQueue<D, R> {
    const isKept = this.#queues.has(name) && !this.#passing.delete(name);
    if (!isKept) this.#passing.add(name);
    const [oldest] = this.#passing;
    // A process that has an embedded queue has one run, and a queue that was closed does not answer any more. On Redis, a
    // queue's close does no more than stop listening, since the client is not its own.
    if (oldest !== undefined && this.kind === 'redis' && this.#passing.size > MOST_PASSING) {
      const queue = this.#queueOf(oldest);
      this.#passing.delete(oldest);
      this.#queues.delete(oldest);
      queue.close().catch((error: unknown) => this.#logError(oldest, error));
    }
    return this.#queueOf(name);
  }

  /** How many jobs of a queue are in these states. Nothing is kept of the queue, and nothing is made of one that is gone. */
  async countJobs(name: string, states: readonly JobType[]): Promise<number> {
    // The server was asked for its version when the connection was opened; many runs are counted each second.
    const queue = this.#open(name, { skipMetasUpdate: true, skipVersionCheck: true });
    try {
      return await queue.getJobCountByTypes(...states);
    } finally {
      await queue.close();
    }
  }

  /**
   * A new worker. Stalled jobs are looked for every 5 s and locks last 10 s, unless given otherwise. Its
   * concurrency should not be above the queue's global one: on the embedded queue it would ask in vain.
   */
  worker<D, R>(name: string, processor: JobProcessor<D, R>, options: JobWorkerOptions): JobWorker<D, R> {
    const worker = new Worker<D, R, string, IQueueBackend, JobProgress, unknown>(
      name,
      processor,
      { ...WORKER_DEFAULTS, ...options, ...this.#bullOptions() },
      this.storage.createBackend,
    );
    worker.on('error', (error) => this.#logError(name, error));
    this.#workers.add(worker);
    return worker;
  }

  /**
   * Closes the workers and queues that it made, and then itself, within a few seconds. Workers should have
   * been closed before: jobs that are still active then are left to recovery.
   */
  close(): Promise<void> {
    return (this.#closing ??= this.#closeAll());
  }

  async #closeAll(): Promise<void> {
    const closed = atShutdown(this, CLOSE_DEADLINE_MS, this.#closeMade(), (error) => {
      this.options.logger?.debug({ error: messageOf(error) }, 'a queue or worker did not close in order');
    });
    this.outage.close();
    await closed;
    await this.opened.release();
  }

  async #closeMade(): Promise<void> {
    for (const made of [this.#workers, this.#queues.values()]) {
      await Promise.all([...made].map((each) => each.close()));
    }
  }

  #queueOf<D, R>(name: string): JobQueue<D, R> {
    const known = this.#queues.get<D, R>(name);
    if (known !== undefined) return known;
    const queue = this.#open<D, R>(name);
    this.#queues.set(name, queue);
    return queue;
  }

  #open<D, R>(
    name: string,
    options: Pick<QueueOptions, 'skipMetasUpdate' | 'skipVersionCheck'> = {},
  ): JobQueue<D, R> {
    const queue = new Queue<D, R, string, D, R, string, IQueueBackend, unknown>(
      name,
      { ...this.#bullOptions(), ...options },
      this.storage.createBackend,
    );
    queue.on('error', (error) => this.#logError(name, error));
    return queue;
  }

  #bullOptions() {
    const { telemetry } = this.options;
    const { skipVersionCheck = false } = this.storage;
    // The backend puts the connection in, but BullMQ wants to see one.
    const connection: unknown = {};
    return {
      connection,
      skipVersionCheck,
      prefix: KEY_PREFIX,
      streams: EVENTS,
      ...(telemetry && { telemetry }),
    };
  }

  #logError(queue: string, error: unknown): void {
    if (this.outage.note(error) || this.outage.isLost) return;
    const vanished = vanishedText(error);
    if (vanished !== undefined) this.#noticeOnce(vanished);
    this.options.logger?.[vanished === undefined ? 'warn' : 'debug'](
      { queue, error: messageOf(error) },
      'the queue reports an error',
    );
  }

  /** A Redis that was emptied loses all jobs at once: people are told again after a minute without any. */
  #noticeOnce(text: string): void {
    const now = performance.now();
    if (now - (this.#noticedAt.get(text) ?? -Infinity) > QUIET_MS) this.outage.notice(text);
    this.#noticedAt.set(text, now);
  }
}
