import { open } from 'node:fs/promises';
import { formatCsv } from '../shared/csv.js';
import { HashTable } from '../shared/hash-table.js';
import type { FailedOutcome, PreviousFailure } from '../shared/jobs.js';
import type { UndoStack } from '../shared/undo.js';
import { AppendFile } from './append-file.js';
import { createFile, statIfThere, removeFile, replaceFile } from './durable-file.js';
import {
  type FailureOptions,
  type FailureRecord,
  FailuresTable,
  failureColumns,
  formatFailures,
  identitiesOf,
} from './failures-table.js';
import type { NamedRow } from './output-index.js';
import { partialPath, runPaths } from './output-paths.js';

/**
 * The failed rows of an output, in two files:
 *
 *   <failures>          what was failed when the last run ended; replaced as a whole, never changed
 *   <failures>.partial  what has failed in the run under way; appended to and fsynced in groups
 *
 * At its end a run replaces the first by what is failed now and removes the second. One that was killed leaves both,
 * and the next one merges them before it starts, so it begins with one file again.
 *
 * Without a key column a failed row is known by its image, and rows that share it come and go together: they share its
 * outcome. A run adds every failed row it meets, those of permanent failures too, so what it adds for an
 * image takes the place of all that was there before.
 */
export class FailuresFile {
  #pending: { readonly failure: FailureRecord; readonly image: string | undefined }[] = [];
  #partial: { readonly file: AppendFile; readonly table: FailuresTable | undefined } | undefined;
  #flushing: Promise<void> = Promise.resolve();

  private constructor(
    private readonly options: FailureOptions,
    private readonly earlier: FailuresTable | undefined,
  ) {}

  /**
   * Opens the failures of an output; whoever does holds the output's lock. Creates nothing, but merges what a run
   * that was killed has left.
   * @throws {UsageError} when there is a file that is no failures file of this manifest
   * @throws {FatalError} when what was left cannot be merged
   */
  static async open(options: FailureOptions): Promise<FailuresFile> {
    if ((await statIfThere(partialPath(options.path))) !== undefined) {
      await mergeFailures(options, () => true);
    }
    const earlier = await openIndexed(options.path, options);
    return new FailuresFile(options, earlier);
  }

  /**
   * How a row failed in an earlier run.
   * @param name the row's key; in a manifest without keys its image
   */
  previous(name: string | undefined): PreviousFailure | undefined {
    return previousIn(this.earlier, name);
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
    return this.#partial?.table?.find(image)?.outcome;
  }

  hasFailedNow(image: string): boolean {
    return this.#partial?.table?.has(image) ?? false;
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
    keepAdded: (failure: FailureRecord) => boolean = () => true,
  ): Promise<number> {
    await this.flush();
    const { path } = this.options;
    const isNew = this.#partial === undefined && this.earlier === undefined;
    if (isNew && (await statIfThere(path)) === undefined) return 0;
    await this.#closePartial();
    return await mergeFailures(this.options, (failure, isAdded) =>
      isAdded ? keepAdded(failure) : keep(failure),
    );
  }

  /** Closes the files as they are. */
  async close(): Promise<void> {
    await this.#flushing;
    await this.#closePartial();
    await this.earlier?.close();
  }

  async #closePartial(): Promise<void> {
    const partial = this.#partial;
    this.#partial = undefined;
    await partial?.file.close();
    await partial?.table?.close();
  }

  async #flushPending(): Promise<void> {
    if (this.#pending.length === 0) return;
    const group = this.#pending;
    this.#pending = [];
    const { file, table } = (this.#partial ??= await this.#createPartial());
    const lines = group.map(({ failure }) => formatFailures([failure], this.options));
    const starts = await file.append(lines);
    for (const [number, { image }] of group.entries()) {
      const start = starts[number] ?? 0;
      if (image !== undefined)
        table?.index(image, { start, end: start + Buffer.byteLength(lines[number] ?? '') });
    }
  }

  async #createPartial() {
    const { path, columns, delimiter } = this.options;
    const partial = partialPath(path);
    const header = formatCsv([failureColumns(columns)], delimiter);
    await createFile(partial, header);
    const handle = await open(partial, 'r+');
    const file = new AppendFile(partial, 'the failures file', handle, Buffer.byteLength(header));
    return { file, table: await FailuresTable.open(partial, this.options) };
  }
}

/**
 * How rows failed in earlier files: their last messages may have been completed since, and what is permanent stays so.
 * Read only. Of several nights the newest one that has a row counts. The files stay open: one that is replaced
 * meanwhile is read as it was.
 */
export class EarlierFailures {
  private constructor(private readonly tables: readonly FailuresTable[]) {}

  /**
   * Reads the failures files that belong to earlier outputs, and keeps those open in which something is found.
   * @param outputs the oldest first
   * @param undo gets their closing
   * @param isDescribed whether a row has been described since: it is left out
   * @throws {UsageError} when one is no failures file of this manifest: it needs the URL and key columns
   */
  static async open(
    outputs: readonly { readonly path: string }[],
    options: Omit<FailureOptions, 'path'>,
    undo: UndoStack,
    isDescribed: (row: NamedRow) => boolean = () => false,
  ): Promise<EarlierFailures> {
    const tables: FailuresTable[] = [];
    for (const { path: output } of [...outputs].reverse()) {
      const { failures, failuresPartial } = runPaths(output);
      // A run that was killed leaves the newer ones in the partial file.
      for (const path of [failuresPartial, failures]) {
        const isWanted = ({ row }: FailureRecord) => !isDescribed(row);
        const table = await openIndexed(path, { ...options, path: failures }, isWanted);
        if (table === undefined) continue;
        if (table.size === 0) {
          await table.close();
          continue;
        }
        undo.defer(() => table.close());
        tables.push(table);
      }
    }
    return new EarlierFailures(tables);
  }

  /**
   * How a row failed in the newest earlier file that says so.
   * @param name the row's key; in a manifest without keys its image
   */
  previous(name: string | undefined): PreviousFailure | undefined {
    return previousIn(name === undefined ? undefined : this.tables.find((table) => table.has(name)), name);
  }
}

function previousIn(table: FailuresTable | undefined, name: string | undefined): PreviousFailure | undefined {
  const failure = name === undefined ? undefined : table?.find(name);
  if (failure === undefined || (failure.row.key ?? failure.row.image) !== name) return undefined;
  return { outcome: failure.outcome, image: failure.row.image };
}

async function openIndexed(
  path: string,
  options: FailureOptions,
  isWanted?: (failure: FailureRecord) => boolean,
): Promise<FailuresTable | undefined> {
  const table = await FailuresTable.open(path, options);
  try {
    await table?.indexAll(isWanted);
    return table;
  } catch (error) {
    await table?.close();
    throw error;
  }
}

/**
 * Calls `visit` with what the failures file and the partial one say together: of the earlier failures those that the
 * partial file does not supersede, then what that holds. Memory: 9 bytes or so for each failure of the partial file.
 */
export async function forEachFailure(
  options: FailureOptions,
  visit: (failures: readonly FailureRecord[], areAdded: boolean) => void | Promise<void>,
): Promise<void> {
  const { path, columns } = options;
  const superseded = new HashTable([]);
  await forEachIn(partialPath(path), options, (failures) => {
    for (const identity of failures.flatMap((failure) => identitiesOf(failure, columns)))
      superseded.add(identity);
  });
  const isLeft = (failure: FailureRecord) =>
    identitiesOf(failure, columns).every((identity) => superseded.find(identity) === -1);
  await forEachIn(path, options, (failures) => visit(failures.filter(isLeft), false));
  await forEachIn(partialPath(path), options, (failures) => visit(failures, true));
}

async function forEachIn(
  path: string,
  options: FailureOptions,
  visit: (failures: readonly FailureRecord[]) => void | Promise<void>,
): Promise<void> {
  const table = await FailuresTable.open(path, options);
  try {
    await table?.forEach(visit);
  } finally {
    await table?.close();
  }
}

/**
 * Puts what both files say together in the place of the failures file. The partial one is gone then; without any
 * failure both are. A crash at any moment leaves files that merge to the same.
 * @param isKept which failures are still such; `isAdded` are those of the partial file
 * @returns failures in the new file
 * @throws {FatalError} when it cannot be written; nothing is lost then
 */
async function mergeFailures(
  options: FailureOptions,
  isKept: (failure: FailureRecord, isAdded: boolean) => boolean,
): Promise<number> {
  const { path, columns, delimiter } = options;
  let count = 0;
  await replaceFile(path, async (temp) => {
    await temp.writeFile(formatCsv([failureColumns(columns)], delimiter));
    await forEachFailure(options, async (failures, areAdded) => {
      const kept = failures.filter((failure) => isKept(failure, areAdded));
      count += kept.length;
      await temp.writeFile(formatFailures(kept, options));
    });
  });
  if (count === 0) await removeFile(path);
  await removeFile(partialPath(path));
  return count;
}
