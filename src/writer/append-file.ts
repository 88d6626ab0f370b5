import type { FileHandle } from 'node:fs/promises';
import { FatalError } from '../shared/errors.js';
import { describeFileError, statIfThere } from './durable-file.js';

/**
 * A file that only grows, by whole groups, each on disk before `append` returns. After an append that failed it takes
 * no more: what is on disk is known up to `size` only, and an fsync that failed once may succeed the next
 * time without having written anything.
 */
export class AppendFile {
  readonly #handle: FileHandle;
  #size: number;
  #failure: FatalError | undefined;

  /**
   * @param what for messages: `the output`
   * @param handle open for writing, without O_APPEND: a position is given with each write
   * @param size where the next group goes
   */
  constructor(
    readonly path: string,
    readonly what: string,
    handle: FileHandle,
    size: number,
  ) {
    this.#handle = handle;
    this.#size = size;
  }

  /**
   * Writes lines, and waits until they are on disk. One call at a time.
   * @returns the offset where each line starts
   * @throws {FatalError} when the file was changed by someone else, or cannot be written; what can be taken back is
   */
  async append(lines: readonly string[]): Promise<number[]> {
    if (this.#failure) throw this.#failure;
    if (lines.length === 0) return [];
    let end = this.#size;
    try {
      await this.#assertUnchanged();
      await this.#write(Buffer.from(lines.join('')));
    } catch (error) {
      this.#failure = await this.#fail(error);
      throw this.#failure;
    }
    return lines.map((line) => {
      const start = end;
      end += Buffer.byteLength(line);
      return start;
    });
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  async #write(bytes: Buffer): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const left = bytes.length - done;
      done += (await this.#handle.write(bytes, done, left, this.#size + done)).bytesWritten;
    }
    await this.#handle.datasync();
    this.#size += bytes.length;
  }

  /** An editor that saves puts another file in this one's place; rows would go to a file that nobody sees. */
  async #assertUnchanged(): Promise<void> {
    const [ours, named] = await Promise.all([this.#handle.stat(), statIfThere(this.path)]);
    const isSame = named?.dev === ours.dev && named.ino === ours.ino;
    const how = named === undefined ? 'deleted' : isSame ? 'changed' : 'replaced';
    if (isSame && ours.size === this.#size) return;
    throw new FatalError(
      `${this.what} ${this.path} was ${how} while the run goes on; check it before the same command is run again: what is no longer in it is paid for again`,
    );
  }

  async #fail(error: unknown): Promise<FatalError> {
    if (error instanceof FatalError) return error;
    // What was written of the group goes. Where even that fails, the next run cuts the torn record.
    const kept = await this.#handle.truncate(this.#size).then(
      () => 'what it held before is kept',
      (tornBy: unknown) => `its end may be torn (${describeFileError(tornBy)})`,
    );
    const trouble = `${describeFileError(error)}: ${this.what} ${this.path} cannot be written`;
    return new FatalError(`${trouble}; ${kept}, run the same command again when that is solved`, {
      cause: error,
    });
  }
}
