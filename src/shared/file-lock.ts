import { createHash, randomUUID } from 'node:crypto';
import { constants, copyFile, link, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { parseJson } from './parse-json.js';
import { BusyError, UsageError, fileTrouble, isSystemError, shownPath } from './errors.js';
import { isAlive, thisProcess } from './process-identity.js';

/*
 * An exclusive lock file that says who holds it.
 *
 *   absent   --link-->                 held      exactly one `link` of a complete file succeeds
 *   held     --release-->              absent    only by its owner
 *   held     --owner dies-->           stale
 *   stale    --claim, check, rename--> held      by whoever holds the claim on exactly this stale file
 *
 * Taking over: the claim is a lock file of its own, named after the content of the stale one, and taken
 * with this same function. Whoever has it looks again whether the stale file is still there (a faster
 * taker may have come and gone), and puts its own in place with one rename. While the claim is held nobody
 * else may change the stale file, so a live lock is never moved, not even for a moment. A taker that dies
 * leaves a stale claim, which is taken over in the same way, or lies about unused if its rename was done.
 */

/** A lock file that is no lock of ours may be one that is being written; older than this it is not. */
const GARBAGE_AFTER_MS = 10_000;
/** Claims on claims on claims: each level needs a process that died within its milliseconds. */
const MAX_CLAIMS = 5;
/** How often a lock that changes between two looks is looked at before it counts as busy. */
const MAX_LOOKS = 100;
/** What `link` answers on a file system that has no links. */
const NO_LINKS = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']);
/** Arguments may be secrets, and earlier versions wrote them here: nothing but a name is told on. */
const COMMAND_NAME = /^bulk-describe( [a-z]+)?$/;

const ownerSchema = z.object({
  host: z.string(),
  pid: z.number().int().positive(),
  startTime: z.number().nullable(),
  boot: z.string().nullable().default(null),
  since: z.string(),
  command: z.string(),
});
type Owner = z.infer<typeof ownerSchema>;

let command = 'bulk-describe';

/** Names the command that this process executes, without its arguments, for the people of other processes. */
export function nameCommand(name: string): void {
  command = `bulk-describe ${name}`;
}

interface LockFile {
  /** Tells this very lock file from any other that had or will have its name. */
  readonly id: string;
  readonly ageMs: number;
  readonly owner: Owner | undefined;
}

export interface FileLock {
  /** Removes the lock file if it is still this process's own. May be called twice. */
  release(): Promise<void>;
}

/**
 * Takes the exclusive lock file at `path`, from a dead owner too. Owners on other hosts cannot be checked and
 * count as alive. Containers: see the hazard at `isAlive`.
 * @param options.what is locked, for the message: `this output`
 * @param options.claims how many levels of claims this one is about
 * @throws {BusyError} when another process, or this one, has it
 * @throws {UsageError} when no lock file can be made there
 */
export async function acquireFileLock(
  path: string,
  { what, claims = 0 }: { readonly what: string; readonly claims?: number },
): Promise<FileLock> {
  const me = await thisProcess();
  const owner = { ...me, since: new Date().toISOString(), command };
  // The random id makes every lock file's content unique, which is what claims are named after.
  const content = `${JSON.stringify({ ...owner, id: randomUUID() })}\n`;
  const temp = `${path}.${randomUUID().slice(0, 8)}.tmp`;
  await writeFile(temp, content, { flag: 'wx', mode: 0o600, flush: true }).catch((error: unknown) => {
    throw noLockAt(path, error);
  });
  try {
    for (let look = 0; look < MAX_LOOKS; look++) {
      if (await linkIfAbsent(temp, path)) return lockAt(path, content);
      const found = await readLockFile(path);
      if (found === undefined) continue;
      if (!(await isStale(found, me.host)) || claims === MAX_CLAIMS) throw busy(path, what, found, me);
      if (await takeOver(path, what, found, temp, claims)) return lockAt(path, content);
    }
    throw new BusyError(`another process has ${what}: ${path} keeps changing hands`);
  } finally {
    await rm(temp, { force: true });
  }
}

/** Whether a process has the lock at `path`, as far as can be told. */
export async function isLocked(path: string): Promise<boolean> {
  const found = await readLockFile(path);
  return found !== undefined && !(await isStale(found, (await thisProcess()).host));
}

/** Puts `temp` in the place of the stale lock; false when the lock is no longer the stale one. */
async function takeOver(path: string, what: string, stale: LockFile, temp: string, claims: number) {
  const claim = await acquireFileLock(`${path}.${stale.id}`, { what, claims: claims + 1 });
  try {
    if ((await readLockFile(path))?.id !== stale.id) return false;
    await rename(temp, path);
    return true;
  } finally {
    await claim.release();
  }
}

function lockAt(path: string, content: string): FileLock {
  return {
    async release() {
      try {
        // Nobody replaces the lock of a live owner, so nothing can come between the look and the removal.
        if ((await readIfThere(path)) === content) await rm(path, { force: true });
      } catch {
        // On a disk that has become read-only it stays, and is stale once this process has ended: whoever comes then takes it
        // over.
      }
    },
  };
}

function noLockAt(path: string, error: unknown): UsageError {
  return new UsageError(`no lock file can be made at ${shownPath(path)}: ${fileTrouble(error)}`, {
    cause: error,
  });
}

async function linkIfAbsent(temp: string, path: string): Promise<boolean> {
  try {
    await link(temp, path).catch(async (error: unknown) => {
      // FAT and some network file systems have no links. A copy is exclusive too, but is seen half
      // written for a moment, which is what the patience with unreadable lock files is for.
      if (!isSystemError(error) || !NO_LINKS.has(error.code)) throw error;
      await copyFile(temp, path, constants.COPYFILE_EXCL);
    });
    return true;
  } catch (error) {
    if (isSystemError(error) && error.code === 'EEXIST') return false;
    throw noLockAt(path, error);
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isSystemError(error) && error.code === 'ENOENT') return undefined;
    if (isSystemError(error) && error.code === 'EACCES') {
      throw new BusyError(`another user's process has ${path}: if none of theirs is running, remove it`);
    }
    throw new UsageError(`the lock file ${shownPath(path)} cannot be read: ${fileTrouble(error)}`, {
      cause: error,
    });
  }
}

async function readLockFile(path: string): Promise<LockFile | undefined> {
  const content = await readIfThere(path);
  const stats = await stat(path).catch(() => undefined);
  if (content === undefined || stats === undefined) return undefined;
  const owner = ownerSchema.safeParse(parseJson(content)).data;
  // A foreign file has no random id inside; its inode and time stand in for one.
  const unique = owner === undefined ? `${stats.ino}:${stats.mtimeMs}:${content}` : content;
  const id = createHash('sha256').update(unique).digest('hex').slice(0, 16);
  return { id, ageMs: Date.now() - stats.mtimeMs, owner };
}

async function isStale({ owner, ageMs }: LockFile, host: string): Promise<boolean> {
  if (owner === undefined) return ageMs > GARBAGE_AFTER_MS;
  return owner.host === host && !(await isAlive(owner));
}

function busy(path: string, what: string, { owner }: LockFile, me: { host: string; pid: number }): BusyError {
  if (owner === undefined) {
    return new BusyError(`another process has ${what}: ${path} is being written and cannot be read yet`);
  }
  const { host, pid, since, command } = owner;
  const who = host === me.host && pid === me.pid ? 'this process already has' : 'another process has';
  const remedy = host === me.host ? '' : `; if ${host} is gone, remove ${path}`;
  const named = COMMAND_NAME.test(command) ? ` (${command})` : '';
  return new BusyError(`${who} ${what}: pid ${pid} on ${host} since ${since}${named}${remedy}`);
}
