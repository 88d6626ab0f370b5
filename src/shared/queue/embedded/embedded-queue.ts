import { chmod, mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DEFAULT_SCHEMA, createPostgresBackend, runMigrations } from 'bullmq';
import { BusyError, FatalError, UsageError, isSystemError, messageOf } from '../../errors.js';
import { type FileLock, acquireFileLock } from '../../file-lock.js';
import { type Logger, debugError, silentLogger } from '../../log.js';
import type { UndoStack } from '../../undo.js';
import { repeat } from '../../waiting.js';
import type { OpenQueueOptions, QueueStorage } from '../connection.js';
import type { QueueTarget } from '../queue-url.js';
import { EmbeddedStore } from './embedded-store.js';
import { type Session, SessionPool, type SessionResult, openSession, takeOverActiveJobs } from './session.js';

/** SQLSTATE class 53: disk full, out of memory. */
const OUT_OF_RESOURCES = /^53/;

/**
 * Opens the queue in a directory: BullMQ's PostgreSQL backend on a database that runs in this process.
 * @throws {BusyError} when another process has it
 * @throws {FatalError} when it cannot be created or opened
 */
export async function openEmbedded(
  target: Extract<QueueTarget, { kind: 'embedded' }>,
  options: OpenQueueOptions,
  opened: UndoStack,
): Promise<QueueStorage> {
  const lock = await lockDirectory(target.directory);
  opened.defer(() => lock.release());
  const data = await prepareDatabase(target.directory, () =>
    options.onSlow?.(`creating the embedded queue in ${target.directory}, once`),
  );
  const session = await GuardedSession.open(data, await openOrExplain(data), options.logger);
  opened.defer(() => session.close());
  const pool = new SessionPool(session);
  await prepareSession(pool, options);
  const store = await EmbeddedStore.open(pool);
  return {
    kind: 'embedded',
    store,
    createBackend: (name, bullOptions, factoryOptions) =>
      createPostgresBackend(name, { ...bullOptions, connection: pool }, factoryOptions),
    classify: passingFailure,
    probe: () => store.setFields('probe', { time: new Date().toISOString() }),
    watch: (_note, lose) => session.watch(lose),
  };
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
  pool.followClock();
  // They are short, and may lie far ahead where the clock went back meanwhile.
  await pool.query('DELETE FROM rate_limit');
  await pool.query("DELETE FROM meta WHERE field = 'stalled-check'");
  const count = await takeOverActiveJobs(pool);
  if (count > 0) options.logger?.info({ count }, 'jobs of a process that ended early are taken up again');
}

const LOOK_EVERY_MS = 500;

/**
 * A session whose files may be removed while it has them open. The database would go on in its memory for a while, keep
 * nothing, and then fail in words that say nothing to anybody.
 */
class GuardedSession implements Session {
  readonly #closed = new AbortController();
  #lost: FatalError | undefined;
  #lose: ((reason: string) => void) | undefined;

  private constructor(
    private readonly data: string,
    private readonly session: Session,
    private readonly inode: number,
    private readonly logger: Logger,
  ) {}

  static async open(data: string, session: Session, logger = silentLogger()): Promise<GuardedSession> {
    return new GuardedSession(data, session, (await stat(data)).ino, logger);
  }

  /** @param lose is called once, when the files are gone: before any statement fails for that */
  watch(lose: (reason: string) => void): void {
    this.#lose = lose;
    const look = () => this.#look();
    void repeat(LOOK_EVERY_MS, this.#closed.signal, look, () => undefined);
  }

  async query<R>(text: string, params?: readonly unknown[]): Promise<SessionResult<R>> {
    if (this.#lost !== undefined) throw this.#lost;
    try {
      return await this.session.query<R>(text, params);
    } catch (error) {
      throw (await this.#look()) ?? error;
    }
  }

  onNotification(listener: (channel: string, payload: string) => void): () => void {
    return this.session.onNotification(listener);
  }

  /**
   * A checkpoint makes the next opening quick; the files are complete without it too, so that a full disk is no failure of
   * what was done.
   */
  async close(): Promise<void> {
    this.#closed.abort();
    if ((await this.#look()) !== undefined) return;
    const onError = debugError(this.logger, 'the embedded queue is not closed in order');
    await this.session.query('CHECKPOINT').catch(onError);
    await this.session.close().catch(onError);
  }

  async #look(): Promise<FatalError | undefined> {
    const isGone = await stat(this.data).then(
      ({ ino }) => ino !== this.inode,
      (error: unknown) => isSystemError(error) && error.code === 'ENOENT',
    );
    if (!isGone || this.#lost !== undefined) return this.#lost;
    this.#lost = new FatalError(
      `the embedded queue's files in ${this.data} were removed or moved while it was open: the same command goes on with a ` +
        'new queue (images in flight are then paid again, finished rows are not)',
    );
    this.#closed.abort();
    this.#lose?.(this.#lost.message);
    return this.#lost;
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
async function prepareDatabase(directory: string, onCreate: () => void): Promise<string> {
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
    // The database in it throws objects of its own, which have a number and no words.
    const why =
      error instanceof Error ? messageOf(error) : 'the database cannot write its files (is the disk full?)';
    throw new FatalError(`the embedded queue cannot be created in ${directory}: ${why}`, { cause: error });
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
async function migrate(pool: SessionPool): Promise<void> {
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
