import { existsSync } from 'node:fs';
import { chmod, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createPostgresBackend, runMigrations } from 'bullmq';
import { BusyError, FatalError, UsageError, isSystemError, messageOf } from '../../errors.js';
import { type FileLock, acquireFileLock } from '../../file-lock.js';
import { debugError, silentLogger } from '../../log.js';
import type { UndoStack } from '../../undo.js';
import type { OpenQueueOptions, QueueStorage } from '../connection.js';
import type { QueueTarget } from '../queue-url.js';
import { prepareTables } from './bullmq-sql.js';
import { type Database, openDatabase } from './database.js';
import { EmbeddedStore } from './embedded-store.js';

/** SQLSTATE class 53: disk full, out of memory. */
const OUT_OF_RESOURCES = /^53/;

/**
 * Opens the queue in a directory: BullMQ's PostgreSQL backend on a database that runs in this process.
 * @throws {BusyError} when another process has it
 * @throws {FatalError} when it cannot be created or opened
 */
export async function openEmbedded(
  target: Extract<QueueTarget, { kind: 'embedded' }>,
  { logger = silentLogger(), onSlow }: OpenQueueOptions,
  opened: UndoStack,
): Promise<QueueStorage> {
  const lock = await lockDirectory(target.directory);
  opened.defer(() => lock.release());
  const onCloseError = debugError(logger, 'the embedded queue is not closed in order');
  const onCreate = () => onSlow?.(`creating the embedded queue in ${target.directory}, once`);
  const data = await prepareDatabase(target.directory, onCreate, onCloseError);
  const database = await openOrExplain(data);
  opened.defer(() => database.close(onCloseError));
  await runMigrations(database);
  const count = await prepareTables(database);
  database.followClock();
  if (count > 0) logger.info({ count }, 'jobs of a process that ended early are taken up again');
  const store = await EmbeddedStore.open(database);
  return {
    kind: 'embedded',
    store,
    createBackend: (name, bullOptions, factoryOptions) =>
      createPostgresBackend(name, { ...bullOptions, connection: database }, factoryOptions),
    classify: passingFailure,
    probe: () => store.setFields('probe', { time: new Date().toISOString() }),
    refusal: () => Promise.resolve(undefined),
    watch: (outage) => database.watch((reason) => outage.lose(reason)),
  };
}

async function openOrExplain(data: string): Promise<Database> {
  try {
    return await openDatabase(data);
  } catch (error) {
    throw new FatalError(
      `the embedded queue cannot be opened: ${messageOf(error)}; if ${data} is damaged, move it away and a new ` +
        'one is made (images in flight are then paid again, finished rows are not)',
      { cause: error },
    );
  }
}

function passingFailure(error: unknown): string | undefined {
  const full = isSystemError(error) && OUT_OF_RESOURCES.test(error.code);
  return full ? `the embedded queue is out of resources: ${messageOf(error)}` : undefined;
}

const DATA = 'pgdata';
const UNFINISHED = 'pgdata.new-';

/**
 * Makes the directory if need be, for this user alone (the database's files are readable for all), and locks
 * it: a second process on the same files would destroy them.
 * @throws {BusyError} that names the owner
 */
async function lockDirectory(directory: string): Promise<FileLock> {
  try {
    await makeDirectory(directory);
  } catch (error) {
    throw new UsageError(`the embedded queue's directory cannot be made: ${messageOf(error)}`);
  }
  try {
    return await acquireFileLock(join(directory, 'lock'), { what: `the embedded queue ${directory}` });
  } catch (error) {
    if (!(error instanceof BusyError)) throw error;
    throw new BusyError(`${error.message}; commands beside a run need Redis (--queue redis://...)`);
  }
}

/** One level at a time: Node's recursive mkdir never ends where the system says that a parent is missing (/proc). */
async function makeDirectory(directory: string): Promise<void> {
  if (existsSync(directory)) return;
  const parent = dirname(directory);
  if (parent !== directory) await makeDirectory(parent);
  try {
    await mkdir(directory, { mode: 0o700 });
  } catch (error) {
    if (!isSystemError(error) || error.code !== 'EEXIST') throw error;
  }
}

/**
 * The database's directory. When there is none, it is made under another name and renamed once it is
 * complete, so a crash in between leaves nothing that looks like a database; the next start removes it.
 * The caller has the lock.
 */
async function prepareDatabase(
  directory: string,
  onCreate: () => void,
  onCloseError: (error: unknown) => void,
): Promise<string> {
  await removeUnfinished(directory);
  const data = join(directory, DATA);
  if (existsSync(data)) return data;
  onCreate();
  const unfinished = join(directory, `${UNFINISHED}${process.pid}`);
  try {
    await createDatabase(unfinished, onCloseError);
    await rename(unfinished, data);
  } catch (error) {
    await rm(unfinished, { recursive: true, force: true });
    // The database in it throws objects of its own, which have a number and no words.
    const why =
      error instanceof Error ? messageOf(error) : 'the database cannot write its files (is the disk full?)';
    throw new FatalError(`the embedded queue cannot be created in ${directory}: ${why}`, { cause: error });
  }
  return data;
}

async function createDatabase(path: string, onCloseError: (error: unknown) => void): Promise<void> {
  const database = await openDatabase(path);
  await database.close(onCloseError);
  await chmod(path, 0o700);
}

async function removeUnfinished(directory: string): Promise<void> {
  const names = await readdir(directory);
  for (const name of names.filter((each) => each.startsWith(UNFINISHED))) {
    await rm(join(directory, name), { recursive: true, force: true });
  }
}
