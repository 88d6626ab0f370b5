import { open } from 'node:fs/promises';
import { type NamedRow, nameOf } from '../producer/row-reader.js';
import { UsageError } from '../shared/errors.js';
import {
  ERROR_CODES,
  FAILURE_COLUMNS,
  type FailedOutcome,
  type PreviousFailure,
  isDecidedAnew,
  isOfRecord,
} from '../shared/jobs.js';
import { shortHash } from '../shared/short-hash.js';
import { AppendFile } from './append-file.js';
import { CsvTable } from './csv-table.js';
import { openPlainFile, removeFile, replaceFile, statIfThere } from './durable-file.js';
import type { OutputOptions } from './output-table.js';
import type { OutputIndex } from './output-index.js';
import { partialPath, runPaths } from './output-paths.js';

/** The last column: what a model has answered. Files of version 0.1 lack it, as do those of manifests that have one. */
const ANSWER_COLUMN = 'answer';

function newFailuresTable(options: FailureOptions): CsvTable {
  const ours = options.columns.includes(ANSWER_COLUMN) ? [] : [ANSWER_COLUMN];
  return new CsvTable([...options.columns, ...FAILURE_COLUMNS, ...ours], options);
}

function isOurs(columns: readonly string[]): boolean {
  return FAILURE_COLUMNS.every((name) => columns.includes(name));
}

/**
 * The manifest's columns in a failures file, and how that is delimited.
 * @param expected the delimiter that is tried first
 * @throws {UsageError} when there is none
 */
export async function failureColumnsIn(
  path: string,
  expected = ',',
): Promise<{ columns: string[]; delimiter: string }> {
  await using handle = await openPlainFile(path, 'r', 'the failures file');
  if (handle === undefined)
    throw new UsageError(`there is no failures file ${path}: nothing is kept to be read`);
  const table = await new CsvTable([], { delimiter: expected }).open(handle, isOurs);
  if (table === undefined || !isOurs(table.columns)) throw new UsageError(`${path} is no failures file`);
  // Before ours, a column that is called as the last one is the manifest's.
  const first = table.columns.indexOf(FAILURE_COLUMNS[0]);
  const ours: readonly string[] = [...FAILURE_COLUMNS, ANSWER_COLUMN];
  const columns = table.columns.filter(
    (name, index) => !ours.includes(name) || (name === ANSWER_COLUMN && index < first),
  );
  return { columns, delimiter: table.delimiter };
}

/** A row that failed, and how. */
export interface FailureRecord {
  readonly row: NamedRow & {
    /** The manifest's cells; a bad record may have too few or too many. */
    readonly cells: readonly string[];
  };
  readonly outcome: FailedOutcome;
}

/**
 * Whether a row is failed still, by what is on file. What fails by its record may have the key or the image of a row that
 * is described.
 * @param isAdded whether it has failed in the run that ends: what that has decided anew is so
 */
export function isFailedStill(
  { row, outcome }: FailureRecord,
  isAdded: boolean,
  onFile: Pick<OutputIndex, 'has'>,
): boolean {
  return (isAdded ? isDecidedAnew(outcome.code) : isOfRecord(outcome)) || !onFile.has(row);
}

/** What failures are read and written with: as for the output, with the failures file's own path. */
export type FailureOptions = Omit<OutputOptions, 'newColumns' | 'index'>;

/** By a row's key, in a manifest without keys by its image. Some 400 bytes a failure. */
export type KnownFailures = ReadonlyMap<string, PreviousFailure>;

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
  #partial: AppendFile | undefined;
  readonly #now = new Map<string, FailedOutcome>();

  private constructor(private readonly options: FailureOptions) {}

  /**
   * Opens the failures of an output; whoever does holds the output's lock. Creates nothing, but merges what a run
   * that was killed has left.
   * @throws {UsageError} when there is a file that is no failures file of this manifest
   * @throws {FatalError} when what was left cannot be merged
   */
  static async open(options: FailureOptions): Promise<FailuresFile> {
    if ((await statIfThere(partialPath(options.path))) !== undefined) await mergeFailures(options);
    return new FailuresFile(options);
  }

  /** How an image failed in this run. */
  failedNow(image: string): FailedOutcome | undefined {
    return this.#now.get(image);
  }

  /**
   * Brings failed rows of this run to disk, with one write and one fdatasync for all of them.
   * @param failures with the image whose outcome each is, where it is one: `failedNow` finds it from then on
   * @throws {FatalError} as `AppendFile.append`
   */
  async append(
    failures: readonly (FailureRecord & { readonly image?: string | undefined })[],
  ): Promise<void> {
    if (failures.length === 0) return;
    this.#partial ??= await createPartial(this.options);
    await this.#partial.append([formatFailures(failures, this.options)]);
    for (const { outcome, image } of failures) {
      if (image !== undefined) this.#now.set(image, withoutAnswer(outcome));
    }
  }

  /**
   * Ends the run: what is failed now takes the place of the failures file, atomically. Without any failure there is none.
   * @param isKept which failures still are such: of those added in this run, and of the earlier ones that none of them
   *   supersedes
   * @returns rows in the new file
   * @throws {FatalError} when it cannot be written; nothing is lost then, and the next run merges
   */
  async replace(isKept: (failure: FailureRecord, isAdded: boolean) => boolean): Promise<number> {
    await this.close();
    // A run that is interrupted ends like any other.
    return await mergeFailures({ ...this.options, signal: undefined }, isKept);
  }

  /** Closes the files as they are. */
  async close(): Promise<void> {
    await this.#partial?.close();
    this.#partial = undefined;
  }
}

/**
 * How rows failed by the files of these outputs: their last messages may have been completed since, and what is
 * permanent stays so. Of several nights the newest one that has a row counts, and of its file the last failure; those that
 * cannot be asked for are left out.
 * @param outputs the oldest first
 * @param isDescribed whether a row has been described since: it is left out
 * @throws {UsageError} when one is no failures file of this manifest: it needs the URL and key columns
 */
export async function readFailures(
  outputs: readonly ({ readonly path: string } & Pick<OutputOptions, 'escapeFormulas'>)[],
  options: FailureOptions,
  isDescribed: (row: NamedRow) => boolean = () => false,
): Promise<KnownFailures> {
  const known = new Map<string, PreviousFailure>();
  for (const { path, escapeFormulas = options.escapeFormulas } of outputs) {
    await forEachFailure({ ...options, escapeFormulas, path: runPaths(path).failures }, (failures) => {
      for (const failure of failures) {
        const name = nameOfFailure(failure);
        if (name === undefined || isDescribed(failure.row)) continue;
        known.set(name, { outcome: withoutAnswer(failure.outcome), image: failure.row.image });
      }
    });
  }
  return known;
}

/** What is kept in memory: a model's answer can be long. */
function withoutAnswer(outcome: FailedOutcome): FailedOutcome {
  return outcome.answer === undefined ? outcome : { ...outcome, answer: undefined };
}

/**
 * Calls `visit` with what the failures file and the partial one say together: of the earlier failures those that the
 * partial file does not supersede, then what that holds.
 */
export async function forEachFailure(
  options: FailureOptions,
  visit: (failures: readonly FailureRecord[], areAdded: boolean) => void | Promise<void>,
): Promise<void> {
  const { path, columns } = options;
  const superseded = new Set<string>();
  await forEachIn(partialPath(path), options, (failures) => {
    for (const failure of failures) identitiesOf(failure, columns).forEach((id) => superseded.add(id));
  });
  const isLeft = (failure: FailureRecord) => !identitiesOf(failure, columns).some((id) => superseded.has(id));
  await forEachIn(path, options, (failures) => visit(failures.filter(isLeft), false));
  await forEachIn(partialPath(path), options, (failures) => visit(failures, true));
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
  isKept: (failure: FailureRecord, isAdded: boolean) => boolean = () => true,
): Promise<number> {
  const { path } = options;
  let count = 0;
  await replaceFile(path, async (temp) => {
    await temp.writeFile(newFailuresTable(options).header());
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

/** There is none: one that a run has left was merged when the failures were opened. */
async function createPartial(options: FailureOptions): Promise<AppendFile> {
  const path = partialPath(options.path);
  const header = newFailuresTable(options).header();
  await replaceFile(path, (handle) => handle.writeFile(header));
  return new AppendFile(path, 'the failures file', await open(path, 'r+'), Buffer.byteLength(header));
}

/** The name that a failure is asked for by. */
function nameOfFailure({ row, outcome }: FailureRecord): string | undefined {
  return isOfRecord(outcome) ? undefined : (row.key ?? row.image);
}

/**
 * What a failure is about: its name, and for failures that every run finds anew the very record. A later failure takes
 * the place of every earlier one that it shares one of these with.
 */
function identitiesOf(failure: FailureRecord, columns: readonly string[]): string[] {
  const { code } = failure.outcome;
  const name = nameOfFailure(failure);
  const identities = name === undefined ? [] : [`name ${name}`];
  // One without a name too: a crash behind the merge leaves it in both files.
  if (name === undefined || isDecidedAnew(code)) {
    identities.push(`record ${shortHash([code, ...manifestCells(failure, columns)].join('\0'))}`);
  }
  return identities;
}

/** A bad record is brought to as many cells as there are columns. */
function manifestCells({ row }: FailureRecord, columns: readonly string[]): string[] {
  return columns.map((_, index) => row.cells[index] ?? '');
}

function formatFailures(failures: readonly FailureRecord[], options: FailureOptions): string {
  const table = newFailuresTable(options);
  const rows = failures.map((failure) => {
    const { code, reason, attempts, messageId = '', answer = '' } = failure.outcome;
    const cells = manifestCells(failure, options.columns);
    const all = [...cells, code, reason, String(attempts), messageId, answer];
    return { cells: all.slice(0, table.columns.length) };
  });
  return table.format(rows);
}

/**
 * Calls `visit` with all failures of a file, many at a time; its columns may be in any order. What follows the last line
 * end is a record in a failures file, which is only ever replaced as a whole, and torn in a partial one.
 * @throws {UsageError} when it is none of ours, lacks the columns that tell rows apart, or as `Table.forEach`
 */
async function forEachIn(
  path: string,
  options: FailureOptions,
  visit: (failures: readonly FailureRecord[]) => void | Promise<void>,
): Promise<void> {
  await using handle = await openPlainFile(path, 'r', 'the failures file');
  if (handle === undefined) return;
  const { columns, urlColumn, keyColumn = urlColumn, signal } = options;
  const ours = newFailuresTable(options);
  const table = await ours.open(handle, isOurs);
  if (table === undefined) return;
  const needed = [...FAILURE_COLUMNS, columns[urlColumn.index] ?? '', columns[keyColumn.index] ?? ''];
  const missing = needed.find((name) => !table.columns.includes(name));
  if (missing !== undefined) {
    throw new UsageError(
      `${path} is no failures file of this manifest: it has no column ${JSON.stringify(missing)}; move it away, or name another output with -o`,
    );
  }
  await table.forEach(handle, {
    ...{ columns: ours.columns, what: `the failures file ${path}`, signal },
    endsRow: path === partialPath(options.path) ? () => false : undefined,
    visit: (rows) => visit(rows.map(({ cells }) => parseFailure(cells, options))),
  });
}

/** @param all the cells of our columns, in our order */
function parseFailure(all: readonly string[], options: FailureOptions): FailureRecord {
  const cells = all.slice(0, options.columns.length);
  const [code, reason = '', attempts = '', messageId = '', answer = ''] = all.slice(options.columns.length);
  return {
    row: { cells, ...nameOf(cells, options) },
    outcome: {
      status: 'failed',
      // A code that somebody edited is taken for one that is tried again: its message may have been paid for.
      code: ERROR_CODES.find((known) => known === code) ?? 'lost',
      reason,
      attempts: /^\d{1,9}$/.test(attempts) ? Number(attempts) : 0,
      messageId: messageId === '' ? undefined : messageId,
      answer: answer === '' ? undefined : answer,
    },
  };
}
