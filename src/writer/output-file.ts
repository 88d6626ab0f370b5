import type { FileHandle } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import type { NamedRow } from '../producer/row-reader.js';
import { FatalError } from '../shared/errors.js';
import type { DescribedOutcome, ResultJobData } from '../shared/jobs.js';
import { type Cells, toCells } from '../shared/json-cells.js';
import { AppendFile } from './append-file.js';
import { describeFileError, isUntouched, openPlainFile, replaceFile } from './durable-file.js';
import { type ReadManifest, putInOrder } from './manifest-order.js';
import { realName } from './output-paths.js';
import {
  type OutputOptions,
  type ScannedOutput,
  endsRow,
  keptOf,
  newOutputTable,
  openOutputTable,
  outputAt,
  readDescribed,
  scanOutput,
} from './output-table.js';
import type { Table, TableEnd, TableRow } from './table.js';

/** A row that is to be appended: the manifest's cells, then what it was described with. */
interface DescribedRow {
  readonly row: NamedRow & Cells;
  readonly outcome: DescribedOutcome;
  /** What its image has cost; one that shares the image of another row costs nothing. */
  readonly usage?: Pick<ResultJobData, 'inputTokens' | 'outputTokens'> | undefined;
}

/** The output of a run, open for appending. Whoever opens it holds the output's lock. */
export class OutputFile {
  readonly #file: AppendFile;

  private constructor(
    /** The file itself, symbolic links followed. */
    readonly path: string,
    private readonly handle: FileHandle,
    private readonly table: Table,
    private readonly options: OutputOptions,
    { end, ending }: TableEnd,
  ) {
    this.#file = new AppendFile(path, 'the output', handle, ending === 'no-line-end' ? end + 1 : end);
  }

  /**
   * Opens an output, or creates it with its header, and indexes it. A torn last record is cut, a missing last line end
   * added.
   * @param inspected what `inspectOutput` has found with the same options: an output that nobody has touched since is not
   *   read a second time
   * @throws {UsageError} when it cannot be continued with this manifest: what differs, or what is broken where
   * @throws {FatalError} when it cannot be created or rewritten
   */
  static async open(options: OutputOptions, inspected?: ScannedOutput): Promise<OutputFile> {
    const path = realName(options.path);
    // Where it is created or rewritten, another file is in its place then.
    const output =
      (await OutputFile.#openOrWrite(path, options, inspected)) ??
      (await OutputFile.#openOrWrite(path, options));
    if (output === undefined)
      throw new Error(`${outputAt(path)} does not have the columns it was written with`);
    return output;
  }

  /** @returns undefined when it was created or rewritten, and is to be opened */
  static async #openOrWrite(
    path: string,
    options: OutputOptions,
    inspected?: ScannedOutput,
  ): Promise<OutputFile | undefined> {
    const fresh = newOutputTable(options);
    const handle = await openPlainFile(path, 'r+', 'the output');
    try {
      const table = handle && (await openOutputTable(handle, options));
      if (handle === undefined || table === undefined) {
        await replaceFile(path, (temp) => temp.writeFile(fresh.header()));
      } else if (isDeepStrictEqual(table.columns, fresh.columns)) {
        const scanned = await scanUnlessInspected(path, handle, table, options, inspected);
        await repairEnd(path, handle, scanned);
        return new OutputFile(path, handle, table, options, scanned);
      } else {
        await rewriteColumns(path, handle, table, fresh.columns);
      }
    } catch (error) {
      await handle?.close();
      throw error;
    }
    await handle?.close();
    return undefined;
  }

  /**
   * Appends and indexes rows. They are on disk when this returns, with one write and one fdatasync for all of them.
   * @throws {FatalError} when the file was deleted, replaced or changed meanwhile, or the disk takes no more. No further
   *   append is possible then.
   */
  async append(rows: readonly DescribedRow[]): Promise<void> {
    const lines = rows.map((row) => this.table.format([this.#cellsOf(row)]));
    const offsets = await this.#file.append(lines);
    for (const [number, { row }] of rows.entries()) {
      this.options.index.addAppended({ image: row.image, key: row.key, offset: offsets[number] ?? 0 });
    }
  }

  #cellsOf({ row, outcome, usage }: DescribedRow): Cells {
    const { prompts, messageId, describedAt } = outcome;
    const tokens =
      this.options.usage === true ? [usage?.inputTokens ?? null, usage?.outputTokens ?? null] : [];
    const ours = [...prompts, ...tokens, messageId, describedAt].map((value) => this.table.cellOf(value));
    const all = row.cells.map((cell, at) => ({ cell, isJson: row.isJson?.[at] ?? false }));
    const cells = [...keptOf(this.options, all), ...ours];
    if (cells.length !== this.table.columns.length)
      throw new RangeError(`a row has ${cells.length} cells, not ${this.table.columns.length}`);
    return toCells(cells);
  }

  /** See `readDescribed`. */
  async readDescribed(offset: number): Promise<DescribedOutcome> {
    return await readDescribed(
      outputAt(this.path),
      this.handle,
      this.table,
      offset,
      this.options.answerColumns,
    );
  }

  /** Puts the rows in the order of the manifest, see `putInOrder`. It takes no rows any more then: they would be lost. */
  async putInOrder(readManifest: ReadManifest): Promise<void> {
    await putInOrder(this.path, this.handle, this.table, this.options, readManifest);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/**
 * Rewrites an output for a manifest that has more columns than it had: rows keep their cells, by column name, and
 * get empty ones in the columns that are new. A torn last record is left out. Atomic.
 * @throws {FatalError} when the new file cannot be written; the old one is untouched then
 */
async function rewriteColumns(
  path: string,
  handle: FileHandle,
  table: Table,
  columns: readonly string[],
): Promise<void> {
  const rewritten = table.withColumns(columns);
  await replaceFile(path, async (temp) => {
    await temp.writeFile(rewritten.header());
    const visit = (rows: readonly TableRow[]) => temp.writeFile(rewritten.format(rows));
    await table.forEach(handle, { columns, what: outputAt(path), endsRow, visit });
  });
}

async function repairEnd(path: string, handle: FileHandle, { end, ending }: TableEnd): Promise<void> {
  if (ending === 'whole') return;
  try {
    if (ending === 'torn') await handle.truncate(end);
    else await handle.write('\n', end);
    await handle.sync();
  } catch (error) {
    throw new FatalError(`${describeFileError(error)}: the end of ${outputAt(path)} cannot be repaired`, {
      cause: error,
    });
  }
}

/** What was found before, if the file is still what it was then. */
async function scanUnlessInspected(
  path: string,
  handle: FileHandle,
  table: Table,
  options: OutputOptions,
  inspected: ScannedOutput | undefined,
): Promise<TableEnd> {
  if (inspected !== undefined && isUntouched(inspected.stats, await handle.stat())) return inspected;
  options.index.forgetOwn();
  return await scanOutput(outputAt(path), handle, table, options);
}
