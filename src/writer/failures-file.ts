import { open, stat } from 'node:fs/promises';
import { isSystemError } from '../shared/errors.js';
import type { FailedOutcome, PreviousFailure } from '../shared/outcome.js';
import { AppendFile } from './append-file.js';
import { formatRecord } from './csv-format.js';
import { createFile } from './durable-file.js';
import { failureColumns, formatFailure, type FailureOptions, type FailureRecord } from './failure-records.js';
import { FailedNow } from './failed-now.js';
import { FailuresIndex } from './failures-index.js';
import { mergeFailures } from './failures-merge.js';
import { openFailures } from './failures-reading.js';
import { partialPath } from './output-paths.js';

/**
 * The failed rows of an output, in two files.
 *
 *   <failures>          what was failed when the last run ended; replaced as a whole, never changed
 *   <failures>.partial  what has failed in the run under way; appended to and fsynced in groups
 *
 * At its end a run replaces the first by what is failed now and removes the second. One that was killed leaves both,
 * and the next one merges them before it starts, so it begins with one file again.
 *
 * Without a key column a failed row is told by its image, and rows that share it come and go together: they share its
 * outcome. A run adds every failed row it meets, those of permanent failures too, so what it adds for an
 * image takes the place of all that was there before.
 *
 * Memory: some 20 bytes a failure, see `FailuresIndex` and `FailedNow`.
 */
export class FailuresFile {
  readonly #options: FailureOptions;
  /** Whether there was a file at opening. */
  readonly #hasEarlier: boolean;
  readonly #earlier = new FailuresIndex();
  #pending: { readonly failure: FailureRecord; readonly image: string | undefined }[] = [];
  #partial: AppendFile | undefined;
  #now: FailedNow | undefined;
  #flushing: Promise<void> = Promise.resolve();

  private constructor(options: FailureOptions, hasEarlier: boolean) {
    this.#options = options;
    this.#hasEarlier = hasEarlier;
  }

  /**
   * Opens the failures of an output; whoever does holds the output's lock. Creates nothing, but merges what a run
   * that was killed has left.
   * @throws {UsageError} when there is a file that is no failures file of this manifest
   * @throws {FatalError} when what was left cannot be merged
   */
  static async open(options: FailureOptions): Promise<FailuresFile> {
    if (await isThere(partialPath(options.path))) await mergeFailures(options, () => true);
    const earlier = await openFailures(options.path, options);
    const failures = new FailuresFile(options, earlier !== undefined);
    try {
      if (earlier !== undefined) await failures.#earlier.add(earlier, options);
    } catch (error) {
      await failures.close();
      throw error;
    }
    return failures;
  }

  /** Earlier failures that `previous` can find. */
  get previousCount(): number {
    return this.#earlier.size;
  }

  /**
   * How a row failed in an earlier run.
   * @param name the row's key; in a manifest without keys its image
   */
  previous(name: string | undefined): PreviousFailure | undefined {
    return this.#earlier.find(name);
  }

  /**
   * Takes a failed row of this run; it is on disk after the next `flush`.
   * @param image whose outcome it is: `failedNow` finds it from then on
   */
  add(failure: FailureRecord, image?: string): void {
    this.#pending.push({ failure, image });
  }

  /** How an image failed in this run. */
  failedNow(image: string): FailedOutcome | undefined {
    return this.#now?.find(image);
  }

  hasFailedNow(image: string): boolean {
    return this.#now?.has(image) ?? false;
  }

  /**
   * Brings what was added to disk, with one write and one fdatasync.
   * @throws {FatalError} as `AppendFile.append`
   */
  async flush(): Promise<void> {
    const flushed = this.#flushing.then(() => this.#flushPending());
    // Whoever called sees the error; the next one finds the file refusing by itself.
    this.#flushing = flushed.catch(() => undefined);
    await flushed;
  }

  /**
   * Ends the run: what is failed now takes the place of the failures file, atomically. That is every row added in
   * this run, and of the earlier failures those that no added one supersedes and that `keep` says are still failed.
   * (For codes that `isDecidedAnew` names `keep` should say no after the whole manifest was read: the run has added
   * those that still are.) Without any failure there is no file.
   * @param keepAdded which of the rows added in this run are still failed; all, where it is not given
   * @returns rows in the new file
   * @throws {FatalError} when it cannot be written; nothing is lost then, and the next run merges
   */
  async replace(
    keep: (failure: FailureRecord) => boolean,
    keepAdded?: (failure: FailureRecord) => boolean,
  ): Promise<number> {
    await this.flush();
    if (this.#partial === undefined && !this.#hasEarlier && !(await isThere(this.#options.path))) {
      return 0;
    }
    await this.#closePartial();
    return await mergeFailures(this.#options, keep, keepAdded);
  }

  /** Closes the files as they are. */
  async close(): Promise<void> {
    await this.#flushing;
    await this.#closePartial();
    await this.#earlier.close();
  }

  async #closePartial(): Promise<void> {
    await this.#partial?.close();
    this.#partial = undefined;
    await this.#now?.close();
    this.#now = undefined;
  }

  async #flushPending(): Promise<void> {
    if (this.#pending.length === 0) return;
    const group = this.#pending;
    this.#pending = [];
    this.#partial ??= await this.#createPartial();
    const lines = group.map(({ failure }) => formatFailure(failure, this.#options));
    let offset = await this.#partial.append(lines.join(''));
    for (const [number, { image }] of group.entries()) {
      if (image !== undefined) this.#now?.note(image, offset);
      offset += Buffer.byteLength(lines[number] ?? '');
    }
  }

  async #createPartial(): Promise<AppendFile> {
    const { path, columns, delimiter } = this.#options;
    const partial = partialPath(path);
    const header = formatRecord(failureColumns(columns), delimiter);
    await createFile(partial, header);
    const handle = await open(partial, 'r+');
    const reading = await openFailures(partial, this.#options);
    this.#now = reading && new FailedNow(reading);
    return new AppendFile(partial, 'the failures file', handle, Buffer.byteLength(header));
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (isSystemError(error) && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) return false;
    throw error;
  }
}
