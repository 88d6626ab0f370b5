import type {
  IQueueBackend,
  Job,
  JobProgress,
  JobType,
  Queue,
  Telemetry,
  Worker,
  WorkerOptions,
} from 'bullmq';
import type { Logger } from '../log.js';
import { startTracing } from '../telemetry.js';
import type { TroubleListener } from './outage.js';
import type { QueueTarget } from './queue-url.js';
import type { SharedStore } from './store.js';

/** A BullMQ queue of jobs with data `D` and result `R`, whatever it is kept in. */
export type JobQueue<D, R> = Queue<D, R, string, D, R, string, IQueueBackend, unknown>;

/** A BullMQ worker, whatever the queue is kept in. */
export type JobWorker<D, R> = Worker<D, R, string, IQueueBackend, JobProgress, unknown>;

/** Hazard: BullMQ hands the signal only to functions that declare three parameters. */
export type JobProcessor<D, R> = (job: Job<D, R>, token?: string, signal?: AbortSignal) => Promise<R>;

export type JobWorkerOptions = Omit<WorkerOptions<unknown>, 'connection' | 'prefix' | 'skipVersionCheck'>;

/** An open queue: makes BullMQ queues and workers, and closes what it made. */
export interface QueueConnection {
  readonly kind: 'redis' | 'embedded';
  /** Names it for people, without a password. */
  readonly label: string;
  readonly store: SharedStore;

  /** The queue of that name; the same object each time. */
  queue<D, R>(name: string): JobQueue<D, R>;
  /**
   * The queue of that name for one use: ask again for the next. There are as many results queues as there have been runs,
   * so the ones that were not asked for lately are let go; a use that still goes on goes on.
   */
  passingQueue<D, R>(name: string): JobQueue<D, R>;
  /** How many jobs of a queue are in these states. Nothing is kept of the queue, and nothing is made of one that is gone. */
  countJobs(name: string, states: readonly JobType[]): Promise<number>;
  /**
   * A new worker. Stalled jobs are looked for every 5 s and locks last 10 s, unless given otherwise. Its
   * concurrency should not be above the queue's global one: on the embedded queue it would ask in vain.
   */
  worker<D, R>(name: string, processor: JobProcessor<D, R>, options: JobWorkerOptions): JobWorker<D, R>;

  /** Registers who is told once when the queue goes away and once when it is back. @returns its removal */
  onTrouble(listener: TroubleListener): () => void;
  /** Takes note of a failed operation: true when it is of a kind that passes, so that trying again helps. */
  noteTrouble(error: unknown): boolean;
  /** Whether it does not answer at the moment, as far as is known. */
  isAway(): boolean;

  /**
   * Closes everything it made, last in, first out, and then itself, within a few seconds. Workers should have
   * been closed before: jobs that are still active then are left to recovery.
   */
  close(): Promise<void>;
}

export interface OpenQueueOptions {
  logger?: Logger | undefined;
  /** Gives up with a clear error within 5 s when Redis is not there (the default), or waits for it. */
  failFast?: boolean | undefined;
  /** Other processes have to reach it as well: the embedded queue is no way out when Redis is not there. */
  isShared?: boolean | undefined;
  /** Told when opening takes longer than one would think, and why. */
  onSlow?: ((text: string) => void) | undefined;
  /** Ends the waiting for a Redis that is not there. */
  signal?: AbortSignal | undefined;
  /** Traces of its queues and workers; by default those that OpenTelemetry's variables ask for. */
  telemetry?: Telemetry | undefined;
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
  const tracing = options.telemetry ? undefined : await startTracing(process.env, options.logger);
  if (tracing === undefined) return openOfKind(target, options);
  try {
    const connection = await openOfKind(target, { ...options, telemetry: tracing.telemetry });
    return closedBefore(connection, () => tracing.stop());
  } catch (error) {
    await tracing.stop();
    throw error;
  }
}

async function openOfKind(target: QueueTarget, options: OpenQueueOptions): Promise<QueueConnection> {
  if (target.kind === 'redis') {
    const { openRedisQueue } = await import('./redis/redis-queue.js');
    return openRedisQueue(target, options);
  }
  const { openEmbeddedQueue } = await import('./embedded/embedded-queue.js');
  return openEmbeddedQueue(target, options);
}

/** The same connection, whose close is followed by something else. */
function closedBefore(connection: QueueConnection, next: () => Promise<void>): QueueConnection {
  let closing: Promise<void> | undefined;
  return { ...connection, close: () => (closing ??= connection.close().finally(next)) };
}
