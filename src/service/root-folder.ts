import type { Stats } from 'node:fs';
import { lstat, realpath } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { metadataIn } from '../producer/folder-format.js';
import { findManifests, isPattern } from '../producer/several-manifests.js';
import { UsageError, fileTrouble, isSystemError, shownPath } from '../shared/errors.js';
import { isBelow, realFolder } from '../shared/local-file.js';
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
    return new RootFolder(await realFolder(path, '--root'));
  }

  /**
   * The real path of a file that is there.
   * @param name as a request gives it, relative to this folder
   * @param what for the message: `the manifest`
   * @param mayBeFolder whether a folder will do as well
   * @throws {UsageError} when it is not there, is somewhere else, or no file: a pipe could be waited for without end
   */
  async existing(name: string, what: string, mayBeFolder = false): Promise<string> {
    if (name === '-') throw new UsageError(`${what} is a file of the server, not stdin`);
    const path = resolve(this.path, name);
    const real = await this.#within(path, `${what} ${name}`, `${shownPath(path)} cannot be opened`);
    await refuseUnfit(real, `${what} ${name}`, mayBeFolder);
    return real;
  }

  /** The real paths of manifests; patterns are of this folder. @throws {UsageError} see `existing` and `findManifests` */
  async manifests(names: readonly string[], own: readonly string[]): Promise<readonly [string, ...string[]]> {
    for (const name of names) {
      if (isPattern(name, this.path)) this.#refuseOutside(resolve(this.path, name), `the manifest ${name}`);
    }
    const [first, ...more] = await findManifests(names, own, this.path);
    const real = async (name: string) => {
      const path = await this.existing(name, 'the manifest', true);
      // A folder is read by its metadata.
      for (const metadata of metadataIn(path)) await this.existing(metadata, 'the manifest');
      return path;
    };
    return [await real(first), ...(await Promise.all(more.map(real)))];
  }

  /** The real path of a folder that is there. @throws {UsageError} see `existing` */
  async folder(name: string, what: string): Promise<string> {
    return await this.#within(resolve(this.path, name), `${what} ${name}`, `${what} ${name} cannot be used`);
  }

  /**
   * The real path of an output, which need not be there yet; the files that belong to it are looked at as well.
   * @throws {UsageError} when its folder is not there, or one of the files is somewhere else, or no file
   */
  async output(name: string): Promise<string> {
    const output = await this.#mayBeThere(resolve(this.path, name), `the output ${name}`);
    for (const path of Object.values<string>({ ...runPaths(output) })) {
      await this.#mayBeThere(path, `${basename(path)}, which belongs to the output ${name},`);
    }
    return output;
  }

  async #mayBeThere(path: string, what: string): Promise<string> {
    const real = await realpath(path).catch(() => undefined);
    if (real !== undefined) {
      this.#refuseOutside(real, what);
      await refuseUnfit(real, what);
      return real;
    }
    const folder = await this.#within(dirname(path), what, `the folder of ${what} cannot be used`);
    const plain = join(folder, basename(path));
    if ((await lookAt(plain))?.isSymbolicLink() !== true) return plain;
    throw new UsageError(`${what} is a symbolic link to nothing: remove it, or name another output`);
  }

  /** The real path of what is there. @param trouble what cannot be done where it is not */
  async #within(path: string, what: string, trouble: string): Promise<string> {
    const real = await realpath(path).catch((error: unknown) => {
      // What is not there is named as it was asked for, and nothing is said about the rest of the machine.
      this.#refuseOutside(path, what);
      throw new UsageError(`${trouble}: ${fileTrouble(error)}`);
    });
    this.#refuseOutside(real, what);
    return real;
  }

  #refuseOutside(path: string, what: string): void {
    if (isBelow(path, this.path)) return;
    throw new UsageError(`${what} leads out of the server's folder ${this.path}: name a file in it`);
  }
}

async function refuseUnfit(real: string, what: string, mayBeFolder = false): Promise<void> {
  const there = await lookAt(real);
  const isFit = there?.isFile() !== false || (mayBeFolder && there.isDirectory());
  if (!isFit) throw new UsageError(`${what} is no regular file: name one`);
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
