import type { FileHandle } from 'node:fs/promises';
import { FatalError } from '../shared/errors.js';
import { AppendFile } from './append-file.js';
import { formatRecord } from './csv-format.js';
import { describeFileError } from './durable-file.js';
import { readRecordAt } from './file-records.js';
import { openOutput, type OpenedOutput, type OpenOutputOptions, type OutputOptions } from './open-output.js';
import { outputColumns } from './output-header.js';
import type { OutputIndex } from './output-index.js';

export { inspectOutput, type InspectedOutput, type OutputOptions } from './open-output.js';

/** What a row's prompts are copied from. */
export interface StoredPrompts {
  readonly prompts: readonly [string, string, string, string];
  readonly messageId: string;
  readonly describedAt: string;
}

/** Prompts of the newest rows kept in memory: rows that share an image are often neighbours. */
const RECENT_ROWS = 300;

/**
 * The output of a run, open for appending. Whoever opens it holds the output's lock.
 */
export class OutputFile {
  /** What the output held when it was opened; whoever appends adds the new rows, with `addAppended`. */
  readonly index: OutputIndex;
  readonly delimiter: string;
  /** Bytes of a torn last record that were cut. */
  readonly cutBytes: number;
  /** Whether rows found at opening are the simulator's, and whether some are not. */
  readonly hasSimulated: boolean;
  readonly hasReal: boolean;
  readonly #handle: FileHandle;
  readonly #file: AppendFile;
  readonly #options: OutputOptions;
  readonly #recent = new Map<number, StoredPrompts>();

  private constructor(options: OutputOptions, opened: OpenedOutput) {
    const { scanned, handle, header } = opened;
    this.index = scanned.index;
    this.hasSimulated = scanned.hasSimulated;
    this.hasReal = scanned.hasReal;
    this.cutBytes = opened.cutBytes;
    this.delimiter = header.delimiter;
    this.#options = options;
    this.#handle = handle;
    this.#file = new AppendFile(opened.path, 'the output', handle, opened.size);
  }

  /**
   * Opens an output, or creates it with its header. A torn last record is cut, a missing last line end added.
   * @throws {UsageError} when it cannot be continued with this manifest: what differs, or what is broken where
   * @throws {FatalError} when it cannot be created or rewritten
   */
  static async open(options: OpenOutputOptions): Promise<OutputFile> {
    const opened = await openOutput(options);
    return new OutputFile(options, opened);
  }

  /** The file itself, symbolic links followed. */
  get path(): string {
    return this.#file.path;
  }

  /** Rows in the file now, as far as the index was told. */
  get rows(): number {
    return this.index.rows;
  }

  /** Rows whose key another row has too; always 0 without a key column. */
  get duplicates(): number {
    return this.index.duplicates;
  }

  /** Bytes in the file now. */
  get size(): number {
    return this.#file.size;
  }

  /**
   * Appends rows, all cells of each: the manifest's, then ours. They are on disk when this returns, with one
   * write and one fdatasync for all of them.
   * @returns where each row starts, for the index
   * @throws {FatalError} when the file was deleted, replaced or changed meanwhile, or the disk takes no more. No further
   *   append is possible then.
   */
  async append(records: readonly (readonly string[])[]): Promise<{ offsets: number[] }> {
    if (records.length === 0) return { offsets: [] };
    const lines = records.map((cells) => this.#format(cells));
    let offset = await this.#file.append(lines.join(''));
    const offsets: number[] = [];
    for (const [number, cells] of records.entries()) {
      offsets.push(offset);
      this.#keep(offset, storedPrompts(cells));
      offset += Buffer.byteLength(lines[number] ?? '');
    }
    return { offsets };
  }

  /**
   * Reads what a row was described with.
   * @param offset of a row, from the index or from `append`
   * @throws {FatalError} when there is no row, which means that the file was changed
   */
  async readPromptsAt(offset: number): Promise<StoredPrompts> {
    const recent = this.#recent.get(offset);
    if (recent !== undefined) return recent;
    const record = await readRecordAt(this.#handle, offset, this.delimiter).catch((error: unknown) => {
      throw new FatalError(`${describeFileError(error)}: the output ${this.path} cannot be read`, {
        cause: error,
      });
    });
    if (record?.cells.length !== outputColumns(this.#options.columns).length) {
      throw new FatalError(
        `the output ${this.path} was changed while the run goes on: no row at byte ${offset}`,
      );
    }
    return this.#keep(offset, storedPrompts(record.cells));
  }

  /** Waits for an append under way and closes the file. */
  async close(): Promise<void> {
    await this.#file.close();
  }

  #format(cells: readonly string[]): string {
    const wanted = outputColumns(this.#options.columns).length;
    if (cells.length !== wanted) throw new RangeError(`a row has ${cells.length} cells, not ${wanted}`);
    return formatRecord(cells, this.delimiter);
  }

  #keep(offset: number, stored: StoredPrompts): StoredPrompts {
    this.#recent.set(offset, stored);
    const [oldest] = this.#recent.keys();
    if (oldest !== undefined && this.#recent.size > RECENT_ROWS) this.#recent.delete(oldest);
    return stored;
  }
}

function storedPrompts(cells: readonly string[]): StoredPrompts {
  const [one = '', two = '', three = '', four = '', messageId = '', describedAt = ''] = cells.slice(-6);
  return { prompts: [one, two, three, four], messageId, describedAt };
}
