import { randomUUID } from 'node:crypto';
import type { Stats } from 'node:fs';
import { open, readdir, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { FatalError, UsageError, fileTrouble, isSystemError, shownPath } from '../shared/errors.js';

/** One line about a file that cannot be written or read. */
export function describeFileError(error: unknown): string {
  return fileTrouble(error, { ENOENT: 'the folder does not exist', ENOTDIR: 'the folder is a file' });
}

/**
 * Opens a file that must be a plain one.
 * @param what for messages: `the output`
 * @returns undefined when there is none
 * @throws {UsageError} when it cannot be opened
 */
export async function openPlainFile(
  path: string,
  flags: 'r' | 'r+',
  what: string,
): Promise<FileHandle | undefined> {
  try {
    // Looked at first: opening a pipe would wait for its other end.
    if (!(await stat(path)).isFile()) throw new UsageError(`${what} ${path} is not a plain file`);
    return await open(path, flags);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    if (isSystemError(error) && error.code === 'ENOENT') return undefined;
    throw new UsageError(`${what} ${shownPath(path)} cannot be opened: ${describeFileError(error)}`, {
      cause: error,
    });
  }
}

/** What the system says of a file; undefined when there is none. */
export async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (isSystemError(error) && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** Whether a file is what it was before. */
export function isUntouched(before: Stats, now: Stats): boolean {
  return (['dev', 'ino', 'size', 'mtimeMs'] as const).every((field) => before[field] === now[field]);
}

/**
 * Puts a new file in the place of `path`, atomically: a crash leaves the old one or the new one, whole. The new
 * one has the old one's mode.
 * @param write writes the content; may stream
 * @throws {FatalError} when it cannot be written; the old file is untouched then
 */
export async function replaceFile(path: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const temp = `${path}.${randomUUID().slice(0, 8)}.tmp`;
  try {
    const mode = (await statIfThere(path))?.mode;
    const handle = await open(temp, 'wx');
    try {
      if (mode !== undefined) await handle.chmod(mode & 0o7777);
      await write(handle);
      await handle.sync();
    } finally {
      // Not by `await using`: an error of the closing would hide the writing's own, which says why.
      await handle.close();
    }
    await rename(temp, path);
    await syncFolder(dirname(path));
  } catch (error) {
    // It cannot be there when its folder is not.
    await rm(temp, { force: true }).catch(() => undefined);
    if (!isSystemError(error)) throw error;
    throw new FatalError(`${path} cannot be written: ${describeFileError(error)}`, { cause: error });
  }
}

const TEMP = /^(.+)\.[0-9a-f]{8}\.tmp$/;

/** Removes what kills have left of new files for `paths`, which are in one folder: nobody else may be replacing them. */
export async function removeUnfinished(paths: readonly string[]): Promise<void> {
  const folder = dirname(paths[0] ?? '');
  const names = await readdir(folder).catch((error: unknown) => {
    // Who may write there, and not list it, has them removed by nobody.
    if (isSystemError(error) && error.code === 'EACCES') return [];
    throw error;
  });
  for (const name of names) {
    const [, replaced] = TEMP.exec(name) ?? [];
    if (replaced !== undefined && paths.includes(join(folder, replaced))) {
      await rm(join(folder, name), { force: true });
    }
  }
}

/** Removes a file, if it is there, for good. */
export async function removeFile(path: string): Promise<void> {
  await rm(path, { force: true });
  await syncFolder(dirname(path));
}

/** A new name is on disk only when its folder is. */
async function syncFolder(folder: string): Promise<void> {
  await using handle = await open(folder, 'r');
  await handle.sync().catch((error: unknown) => {
    // Some network file systems have no fsync for folders, and then nothing more can be done.
    if (!(isSystemError(error) && ['EINVAL', 'ENOTSUP', 'EOPNOTSUPP'].includes(error.code))) throw error;
  });
}
