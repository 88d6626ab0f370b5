import { constants } from 'node:fs';
import { open, realpath, stat } from 'node:fs/promises';
import { isAbsolute, relative, sep } from 'node:path';
import { FatalError, UsageError, fileTrouble, shownPath } from './errors.js';

/** Whether a path is a folder, or leads to something below it; both absolute. */
export function isBelow(path: string, folder: string): boolean {
  const inside = relative(folder, path);
  return inside !== '..' && !inside.startsWith(`..${sep}`) && !isAbsolute(inside);
}

/** The real path of a folder that a flag names. @throws {UsageError} when there is no such folder */
export async function realFolder(path: string, flag: string): Promise<string> {
  const real = await realpath(path).catch((error: unknown) => {
    throw new UsageError(`${flag} ${shownPath(path)} cannot be used: ${fileTrouble(error)}`);
  });
  if ((await stat(real)).isDirectory()) return real;
  throw new UsageError(`${flag} ${path} is no folder`);
}

/**
 * Opens a regular file within the folders that may be read. A pipe or a device is not even opened: that could wait without
 * end, or do something.
 * @param path absolute
 * @param allowed.roots real paths of the folders that may be read
 * @param allowed.followLinks whether a symbolic link may lead out of them
 * @throws {FatalError} when it is elsewhere or no regular file; the system's own errors
 */
export async function openAllowed(
  path: string,
  { roots, followLinks = false }: { roots: readonly string[]; followLinks?: boolean | undefined },
) {
  if (!roots.some((root) => isBelow(path, root)))
    throw new FatalError('it is outside of the folders that may be read');
  const real = await realpath(path);
  if (!followLinks && !roots.some((root) => isBelow(real, root)))
    throw new FatalError("a symbolic link leads out of the images' folder, which only --follow-links allows");
  if (!(await stat(real)).isFile()) throw new FatalError('it is no regular file');
  const handle = await open(real, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  try {
    const stats = await handle.stat();
    if (!stats.isFile()) throw new FatalError('it is no regular file');
    return { handle, bytes: stats.size };
  } catch (error) {
    await handle.close();
    throw error;
  }
}
