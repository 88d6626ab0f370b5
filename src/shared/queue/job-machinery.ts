import {
  type BackendFactory,
  type IQueueBackend,
  type Job,
  type JobProgress,
  type JobType,
  Queue,
  type QueueBaseOptions,
  type Telemetry,
  Worker,
} from 'bullmq';
import { messageOf } from '../errors.js';
import type { Logger } from '../log.js';
import { sleep } from '../waiting.js';
import { UndoStack } from '../undo.js';
import type { JobProcessor, JobQueue, JobWorker, JobWorkerOptions } from './connection.js';

/** Key prefix of everything in Redis. */
export const KEY_PREFIX = 'bulk-describe';
/** How often a job may be recovered from a worker that died, before it fails. */
export const MAX_STALLED_COUNT = 100;

/** A job of a dead worker is taken up after 10 to 15 s; a worker that was away for a moment tries again in 1 s. */
const WORKER_DEFAULTS = {
  stalledInterval: 5000,
  lockDuration: 10_000,
  maxStalledCount: MAX_STALLED_COUNT,
  runRetryDelay: 1000,
};

/** Nobody listens to them, and BullMQ would keep the last ten thousand of each run's results: a megabyte a night. */
const EVENTS = { events: { maxLen: 100 } };

/** What a queue's name says of its jobs' types, the compiler cannot check. */
interface QueuesByName {
  get<D, R>(name: string): JobQueue<D, R> | undefined;
  set<D, R>(name: string, queue: JobQueue<D, R>): unknown;
  delete(name: string): boolean;
  /** In the order in which they were set. */
  keys(): Iterable<string>;
  readonly size: number;
}

export interface MachineryOptions {
  /** What BullMQ is to call the connection, and how it makes a backend of it. */
  readonly connection: unknown;
  readonly createBackend: BackendFactory<IQueueBackend, unknown>;
  readonly skipVersionCheck?: boolean;
  readonly logger?: Logger | undefined;
  readonly telemetry?: Telemetry | undefined;
  /** So many queues are kept open for uses that pass. To close one may not disturb a call that is under way on it. */
  readonly mostPassing: number;
  /** Takes note of an error: true when it is reported elsewhere. */
  noteTrouble(error: unknown): boolean;
  /** Tells people of something that went wrong. */
  notice(text: string): void;
}

/** The BullMQ queues and workers of one connection. */
export class JobMachinery {
  readonly #queues: QueuesByName = new Map();
  /** The one that was asked for last is the last. */
  readonly #passing: QueuesByName = new Map();
  readonly #made = new UndoStack();
  readonly #vanished = new VanishedJobs((text) => this.options.notice(text));
  #counter: IQueueBackend | undefined;

  constructor(private readonly options: MachineryOptions) {}

  queue<D, R>(name: string): JobQueue<D, R> {
    const known = this.#queues.get<D, R>(name);
    if (known !== undefined) return known;
    const queue = this.#open<D, R>(name);
    this.#queues.set(name, queue);
    this.#made.defer(() => queue.close());
    return queue;
  }

  passingQueue<D, R>(name: string): JobQueue<D, R> {
    const kept = this.#queues.get<D, R>(name);
    if (kept !== undefined) return kept;
    const queue = this.#passing.get<D, R>(name) ?? this.#open<D, R>(name);
    this.#passing.delete(name);
    this.#passing.set(name, queue);
    const [oldest] = this.#passing.keys();
    if (oldest !== undefined && this.#passing.size > this.options.mostPassing) this.#letGo(oldest);
    return queue;
  }

  async countJobs(name: string, states: readonly JobType[]): Promise<number> {
    const counts = await this.#counterOf(name).getCounts([...states]);
    return counts.reduce((sum, count) => sum + count, 0);
  }

  worker<D, R>(name: string, processor: JobProcessor<D, R>, options: JobWorkerOptions): JobWorker<D, R> {
    const worker = new Worker<D, R, string, IQueueBackend, JobProgress, unknown>(
      name,
      processor,
      { ...WORKER_DEFAULTS, ...options, ...this.#bullOptions() },
      this.options.createBackend,
    );
    worker.on('error', (error) => this.#logError(name, error));
    this.#made.defer(() => worker.close());
    return worker;
  }

  /** Closes workers and queues, last in, first out; what does not close by the deadline is left. */
  async close(deadlineMs: number): Promise<void> {
    for (const name of [...this.#passing.keys()]) this.#letGo(name);
    const deadline = new AbortController();
    const closed = this.#made.release().catch((error: unknown) => {
      this.options.logger?.debug({ error: messageOf(error) }, 'a queue or worker did not close in order');
    });
    await Promise.race([closed, sleep(deadlineMs, deadline.signal)]);
    deadline.abort();
  }

  #open<D, R>(name: string): JobQueue<D, R> {
    const queue = new Queue<D, R, string, D, R, string, IQueueBackend, unknown>(
      name,
      this.#bullOptions(),
      this.options.createBackend,
    );
    queue.on('error', (error) => this.#logError(name, error));
    return queue;
  }

  #letGo(name: string): void {
    const queue = this.#passing.get(name);
    this.#passing.delete(name);
    queue?.close().catch((error: unknown) => this.#logError(name, error));
  }

  #counterOf(name: string): IQueueBackend {
    if (this.#counter === undefined) {
      const counter = this.options.createBackend(name, this.#bullOptions());
      counter.on('error', (error: Error) => this.#logError(name, error));
      this.#made.defer(() => counter.close());
      this.#counter = counter;
    }
    return this.#counter.forQueue(name, KEY_PREFIX);
  }

  #bullOptions() {
    const { connection, skipVersionCheck = false, telemetry } = this.options;
    return {
      connection,
      skipVersionCheck,
      prefix: KEY_PREFIX,
      streams: EVENTS,
      ...(telemetry && { telemetry }),
    };
  }

  #logError(queue: string, error: unknown): void {
    if (this.options.noteTrouble(error)) return;
    const isTold = this.#vanished.note(error);
    this.options.logger?.[isTold ? 'debug' : 'warn'](
      { queue, error: messageOf(error) },
      'the queue reports an error',
    );
  }
}

/** Makes a factory that knows its connection into one that takes whatever BullMQ carries around. */
export function bindBackend<C>(
  connection: C,
  create: BackendFactory<IQueueBackend, C>,
): BackendFactory<IQueueBackend, unknown> {
  const isOurs = (options: QueueBaseOptions<unknown>): options is QueueBaseOptions<C> =>
    options.connection === connection;
  return (name, options, factoryOptions) => {
    // The very same object is passed on: BullMQ's backend reads `worker.opts.limiter` at each fetch.
    if (!isOurs(options)) throw new TypeError(`the queue ${name} was given a connection of another kind`);
    return create(name, options, factoryOptions);
  };
}

/** What BullMQ says of a job that is not its worker's any more, and what that means to people. */
const KINDS = [
  {
    pattern: /^Missing key for job /,
    text:
      'jobs have gone from the queue (was Redis emptied?): what is in flight is still finished, the rest fails as ' +
      '`lost` in about a minute, and the same command takes it up',
  },
  {
    pattern:
      /^(Missing lock for job |Lock mismatch for job |could not renew lock for job |Job \S+ is not in the active state)/,
    text:
      'this process has lost hold of jobs that it works on (was Redis emptied, or this machine asleep?): other workers ' +
      'may take them up, and do not submit again what has a message',
  },
] as const;

/** A minute without any: then it has happened again. */
const QUIET_MS = 60_000;

/** Tells people once of jobs that vanish, however many there are: a Redis that was emptied loses all of them. */
export class VanishedJobs {
  readonly #lastAt = new Map<string, number>();

  constructor(
    private readonly report: (text: string) => void,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** Takes note of an error: true when it is about such a job, and was reported or need not be reported again. */
  note(error: unknown): boolean {
    const kind = KINDS.find(({ pattern }) => pattern.test(messageOf(error)));
    if (kind === undefined) return false;
    const now = this.now();
    const lastAt = this.#lastAt.get(kind.text) ?? -Infinity;
    this.#lastAt.set(kind.text, now);
    if (now - lastAt > QUIET_MS) this.report(kind.text);
    return true;
  }
}

/** BullMQ's word for "whoever holds the lock": without it only the holder may move an active job. */
const ANY_TOKEN = '0';

/**
 * Puts a job of a worker that is dead back to the head of its queue; whoever activates it next replaces the
 * lock that the dead one has left. May be called twice. A job that has gone elsewhere meanwhile stays there.
 * Hazard: of a worker that lives it would make a second one.
 */
export async function reclaimJob<D, R>(job: Job<D, R>): Promise<void> {
  await unlessMoved(job.moveToWait(ANY_TOKEN));
}

/** Ends a delayed job's wait. One that has gone elsewhere meanwhile stays there. */
export async function promoteJob<D, R>(job: Job<D, R>): Promise<void> {
  await unlessMoved(job.promote());
}

/** Sets the progress that a job shows. One that is gone meanwhile stays so. */
export async function setProgress<D, R>(job: Job<D, R>, progress: JobProgress): Promise<void> {
  await unlessMoved(job.updateProgress(progress));
}

async function unlessMoved(moving: Promise<unknown>): Promise<void> {
  try {
    await moving;
  } catch (error) {
    if (!/^(Missing key for job|Job .* is not in the \w+ state)/.test(messageOf(error))) throw error;
  }
}
