import { chmod, mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { runMigrations } from 'bullmq';
import { BusyError, FatalError, UsageError, isSystemError, messageOf } from '../../errors.js';
import { type FileLock, acquireFileLock } from '../../file-lock.js';
import { openSession } from './session.js';
import { SessionPool } from './session-pool.js';

const DATA = 'pgdata';
const UNFINISHED = 'pgdata.new-';

/**
 * Makes the directory if need be, for this user alone (the database's files are readable for all), and locks
 * it: a second process on the same files would destroy them.
 * @throws {BusyError} that names the owner
 */
export async function lockDirectory(directory: string): Promise<FileLock> {
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
  if (await exists(directory)) return;
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
export async function prepareDatabase(directory: string, onCreate: () => void): Promise<string> {
  await removeUnfinished(directory);
  const data = join(directory, DATA);
  if (await exists(data)) return data;
  onCreate();
  const unfinished = join(directory, `${UNFINISHED}${process.pid}`);
  try {
    await createDatabase(unfinished);
    await rename(unfinished, data);
  } catch (error) {
    await rm(unfinished, { recursive: true, force: true });
    throw new FatalError(`the embedded queue cannot be created in ${directory}: ${messageOf(error)}`, {
      cause: error,
    });
  }
  return data;
}

async function createDatabase(path: string): Promise<void> {
  const session = await openSession(path);
  try {
    await migrate(new SessionPool(session));
    await session.query('CHECKPOINT');
  } finally {
    await session.close();
  }
  await chmod(path, 0o700);
}

/** Brings BullMQ's tables up to date, which is quick when they are. */
export async function migrate(pool: SessionPool): Promise<void> {
  const client = await pool.connect();
  try {
    await runMigrations(client);
  } finally {
    client.release();
  }
}

async function removeUnfinished(directory: string): Promise<void> {
  const names = await readdir(directory);
  for (const name of names.filter((each) => each.startsWith(UNFINISHED))) {
    await rm(join(directory, name), { recursive: true, force: true });
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (isSystemError(error) && error.code === 'ENOENT') return false;
    throw error;
  }
}
