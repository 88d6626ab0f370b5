import type { Stats } from 'node:fs';
import { lstat, realpath, stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { UsageError, fileTrouble, isSystemError, shownPath } from '../shared/errors.js';
import { runPaths } from '../writer/output-paths.js';

/**
 * The only folder that a server reads and writes, whatever its requests say, symbolic links included.
 * Hazard: a link that somebody makes below it between the look and the opening is followed. Whoever can write there can
 * read what the server reads; so no others should be able to.
 */
export class RootFolder {
  /** @param path its real path */
  private constructor(readonly path: string) {}

  /** @throws {UsageError} when it is no folder */
  static async open(path: string): Promise<RootFolder> {
    const real = await realpath(path).catch((error: unknown) => {
      throw new UsageError(`--root ${shownPath(path)} cannot be used: ${fileTrouble(error)}`);
    });
    if (!(await stat(real)).isDirectory()) throw new UsageError(`--root ${path} is no folder`);
    return new RootFolder(real);
  }

  /**
   * The real path of a file that is there.
   * @param name as a request gives it, relative to this folder
   * @param what for the message: `the manifest`
   * @throws {UsageError} when it is not there, is somewhere else, or no file: a pipe could be waited for without end
   */
  async existing(name: string, what: string): Promise<string> {
    if (name === '-') throw new UsageError(`${what} is a file of the server, not stdin`);
    const wanted = resolve(this.path, name);
    const real = await realpath(wanted).catch((error: unknown) => {
      // What is not there is named as it was asked for, and nothing is said about the rest of the machine.
      this.#refuseOutside(wanted, `${what} ${name}`);
      throw new UsageError(`${shownPath(wanted)} cannot be opened: ${fileTrouble(error)}`);
    });
    this.#refuseOutside(real, `${what} ${name}`);
    refuseOther(await lookAt(real), `${what} ${name}`);
    return real;
  }

  /**
   * The real path of an output, which need not be there yet; the files that belong to it are looked at as well.
   * @throws {UsageError} when its folder is not there, or one of the files is somewhere else, or no file
   */
  async output(name: string): Promise<string> {
    const output = await this.#mayBeThere(resolve(this.path, name), `the output ${name}`);
    for (const path of filesOf(output)) {
      await this.#mayBeThere(path, `${basename(path)}, which belongs to the output ${name},`);
    }
    return output;
  }

  async #mayBeThere(path: string, what: string): Promise<string> {
    const folder = await realpath(dirname(path)).catch((error: unknown) => {
      this.#refuseOutside(path, what);
      throw new UsageError(`the folder of ${what} cannot be used: ${fileTrouble(error)}`);
    });
    this.#refuseOutside(folder, what);
    const plain = join(folder, basename(path));
    const there = await lookAt(plain);
    if (there?.isSymbolicLink() !== true) {
      refuseOther(there, what);
      return plain;
    }
    const real = await realpath(plain).catch(() => {
      throw new UsageError(`${what} is a symbolic link to nothing: remove it, or name another output`);
    });
    this.#refuseOutside(real, what);
    refuseOther(await lookAt(real), what);
    return real;
  }

  #refuseOutside(path: string, what: string): void {
    const inside = relative(this.path, path);
    if (inside !== '..' && !inside.startsWith(`..${sep}`) && !isAbsolute(inside)) return;
    throw new UsageError(`${what} leads out of the server's folder ${this.path}: name a file in it`);
  }
}

function filesOf(output: string): string[] {
  const { failures, failuresPartial, runFile, lock } = runPaths(output);
  return [failures, failuresPartial, runFile, lock];
}

function refuseOther(there: Stats | undefined, what: string): void {
  if (there?.isFile() === false) throw new UsageError(`${what} is no regular file: name one`);
}

/** What is there, which may be a link; undefined when nothing is. */
async function lookAt(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if (isSystemError(error) && error.code === 'ENOENT') return undefined;
    throw new UsageError(`${shownPath(path)} cannot be looked at: ${fileTrouble(error)}`, { cause: error });
  }
}
