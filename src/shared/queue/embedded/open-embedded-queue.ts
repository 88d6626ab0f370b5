import { DEFAULT_SCHEMA, createPostgresBackend } from 'bullmq';
import { FatalError, isSystemError, messageOf } from '../../errors.js';
import { UndoStack } from '../../undo.js';
import type { OpenQueueOptions, QueueConnection } from '../connection.js';
import { JobMachinery, bindBackend } from '../job-machinery.js';
import { Outage } from '../outage.js';
import type { QueueTarget } from '../queue-url.js';
import { lockDirectory, migrate, prepareDatabase } from './data-directory.js';
import { EmbeddedStore } from './embedded-store.js';
import { type Session, openSession } from './session.js';
import { SessionPool } from './session-pool.js';
import { takeOverActiveJobs } from './take-over.js';

const CLOSE_DEADLINE_MS = 4000;

/** SQLSTATE class 53: disk full, out of memory. */
const OUT_OF_RESOURCES = /^53/;

/**
 * Opens the queue in a directory: BullMQ's PostgreSQL backend on a database that runs in this process.
 * @throws {BusyError} when another process has it
 * @throws {FatalError} when it cannot be created or opened
 */
export async function openEmbeddedQueue(
  target: Extract<QueueTarget, { kind: 'embedded' }>,
  options: OpenQueueOptions,
): Promise<QueueConnection> {
  const opened = new UndoStack();
  try {
    const lock = await lockDirectory(target.directory);
    opened.defer(() => lock.release());
    const data = await prepareDatabase(target.directory, () =>
      options.onSlow?.(`creating the embedded queue in ${target.directory}, once: about 5 s`),
    );
    const session = await openOrExplain(data);
    opened.defer(() => closeSession(session));
    const pool = new SessionPool(session);
    await prepareSession(pool, options);
    return connectionOver(pool, await EmbeddedStore.open(pool), opened, target.label, options);
  } catch (error) {
    await opened.release();
    throw error;
  }
}

async function openOrExplain(data: string): Promise<Session> {
  try {
    return await openSession(data);
  } catch (error) {
    throw new FatalError(
      `the embedded queue cannot be opened: ${messageOf(error)}; if ${data} is damaged, move it away and a new ` +
        'one is made (images in flight are then paid again, finished rows are not)',
      { cause: error },
    );
  }
}

async function prepareSession(pool: SessionPool, options: OpenQueueOptions): Promise<void> {
  await migrate(pool);
  // BullMQ's statements name no schema.
  await pool.query(`SET search_path TO "${DEFAULT_SCHEMA}"`);
  const count = await takeOverActiveJobs(pool);
  if (count > 0) options.logger?.info({ count }, 'jobs of a process that ended early are taken up again');
}

/** A checkpoint makes the next opening quick; the files are complete without it too. */
async function closeSession(session: Session): Promise<void> {
  try {
    await session.query('CHECKPOINT');
  } finally {
    await session.close();
  }
}

function connectionOver(
  pool: SessionPool,
  store: EmbeddedStore,
  opened: UndoStack,
  label: string,
  options: OpenQueueOptions,
): QueueConnection {
  const outage = new Outage({ classify: passingFailure, probe: () => probeWrite(store) });
  const machinery = new JobMachinery({
    connection: pool,
    createBackend: bindBackend(pool, createPostgresBackend),
    logger: options.logger,
    telemetry: options.telemetry,
    // A process that has an embedded queue has one run, and a queue that was closed does not answer any more.
    mostPassing: Infinity,
    noteTrouble: (error) => outage.note(error),
    notice: (text) => outage.notice(text),
  });
  opened.defer(() => machinery.close(CLOSE_DEADLINE_MS));
  opened.defer(() => outage.close());
  let closing: Promise<void> | undefined;
  return {
    kind: 'embedded',
    label,
    store,
    queue: (name) => machinery.queue(name),
    passingQueue: (name) => machinery.passingQueue(name),
    countJobs: (name, states) => machinery.countJobs(name, states),
    worker: (name, processor, workerOptions) => machinery.worker(name, processor, workerOptions),
    onTrouble: (listener) => outage.on(listener),
    noteTrouble: (error) => outage.note(error),
    isAway: () => outage.isDown,
    close: () => (closing ??= opened.release()),
  };
}

function passingFailure(error: unknown): string | undefined {
  const full = isSystemError(error) && OUT_OF_RESOURCES.test(error.code);
  return full ? `the embedded queue is out of resources: ${messageOf(error)}` : undefined;
}

async function probeWrite(store: EmbeddedStore): Promise<void> {
  await store.setFields('probe', { time: new Date().toISOString() });
}
