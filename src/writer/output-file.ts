import { realpath, type FileHandle } from 'node:fs/promises';
import { formatCsv } from '../shared/csv.js';
import { FatalError, UsageError } from '../shared/errors.js';
import { AppendFile } from './append-file.js';
import {
  type OutputHeader,
  type OutputOptions,
  type ScannedOutput,
  type StoredPrompts,
  outputColumns,
  promptsOf,
  readOutputHeader,
  readPromptsAt,
  rewriteColumns,
  scanOutput,
} from './csv-output.js';
import { createFile, describeFileError, openPlainFile, replaceFile } from './durable-file.js';
import type { OutputIndex } from './output-index.js';

/** Tells a file's state from any other that it has had: whoever writes to it changes one of these. */
interface FileState {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly size: bigint;
  readonly mtimeNs: bigint;
}

/** What an output holds, without touching it. */
export interface InspectedOutput extends ScannedOutput {
  /** As it was before it was read. */
  readonly state: FileState;
}

export interface OpenOutputOptions extends OutputOptions {
  /** Whether there need not be one yet. */
  readonly create: boolean;
  /**
   * What `inspectOutput` has found with the same options, to be taken over: an output that nobody has touched since is
   * not read a second time. Its index is the opened output's from then on.
   */
  readonly inspected?: InspectedOutput | undefined;
}

/**
 * Reads an output as `OutputFile.open` does, but creates and changes nothing.
 * @returns undefined when there is none
 * @throws {UsageError} as `OutputFile.open`
 */
export async function inspectOutput(options: OutputOptions): Promise<InspectedOutput | undefined> {
  const handle = await openPlainFile(options.path, 'r', 'the output');
  if (handle === undefined) return undefined;
  try {
    const header = await readOutputHeader(handle, options);
    if (header === undefined) return undefined;
    const state = await stateOf(handle);
    const scanned = await scanOutput(options.path, handle, header, Number(state.size), options);
    return { ...scanned, state };
  } finally {
    await handle.close();
  }
}

/** Prompts of the newest rows kept in memory: rows that share an image are often neighbours. */
const RECENT_ROWS = 300;

/** The output of a run, open for appending. Whoever opens it holds the output's lock. */
export class OutputFile {
  /** What the output held when it was opened; whoever appends adds the new rows, with `addAppended`. */
  readonly index: OutputIndex;
  readonly #file: AppendFile;
  readonly #recent = new Map<number, StoredPrompts>();

  private constructor(
    /** The file itself, symbolic links followed. */
    readonly path: string,
    private readonly handle: FileHandle,
    private readonly header: OutputHeader,
    { index, end, ending }: ScannedOutput,
  ) {
    this.index = index;
    const size = ending === 'no-line-end' ? end + 1 : end;
    this.#file = new AppendFile(path, 'the output', handle, size);
  }

  /**
   * Opens an output, or creates it with its header, and indexes it. A torn last record is cut, a missing last line end
   * added.
   * @throws {UsageError} when it cannot be continued with this manifest: what differs, or what is broken where
   * @throws {FatalError} when it cannot be created or rewritten
   */
  static async open(options: OpenOutputOptions): Promise<OutputFile> {
    const columns = outputColumns(options.columns);
    const newHeader = formatCsv([columns], options.delimiter);
    if (options.create) await createUnlessThere(options.path, newHeader);
    const path = await realpath(options.path).catch(() => options.path);
    for (;;) {
      const handle = await openPlainFile(path, 'r+', 'the output');
      if (handle === undefined) throw new UsageError(`there is no output ${options.path}`);
      try {
        const header = await readOutputHeader(handle, options);
        if (header?.outdated === false) {
          const found = await takeOver(options.inspected, handle);
          const { size } = await handle.stat();
          const scanned = found ?? (await scanOutput(path, handle, header, size, options));
          await repairEnd(path, handle, scanned);
          return new OutputFile(path, handle, header, scanned);
        }
        // Both put another file in this one's place, which the next round opens.
        if (header === undefined) await replaceFile(path, (temp) => temp.writeFile(newHeader));
        else await rewriteColumns(path, handle, header, columns);
      } catch (error) {
        await handle.close();
        throw error;
      }
      await handle.close();
    }
  }

  /** Rows in the file now, as far as the index knows them. */
  get rows(): number {
    return this.index.rows;
  }

  /**
   * Appends rows, all cells of each: the manifest's, then ours. They are on disk when this returns, with one
   * write and one fdatasync for all of them.
   * @returns where each row starts, for the index
   * @throws {FatalError} when the file was deleted, replaced or changed meanwhile, or the disk takes no more. No further
   *   append is possible then.
   */
  async append(records: readonly (readonly string[])[]): Promise<{ offsets: number[] }> {
    const { columns, delimiter } = this.header;
    const wrong = records.find((cells) => cells.length !== columns.length);
    if (wrong !== undefined) throw new RangeError(`a row has ${wrong.length} cells, not ${columns.length}`);
    const offsets = await this.#file.append(records.map((cells) => formatCsv([cells], delimiter)));
    for (const [number, cells] of records.entries()) {
      this.#keep(offsets[number] ?? 0, promptsOf(cells, columns));
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
    const stored = await readPromptsAt(this.handle, this.header, offset).catch((error: unknown) => {
      throw new FatalError(`${describeFileError(error)}: the output ${this.path} cannot be read`, {
        cause: error,
      });
    });
    if (stored !== undefined) return this.#keep(offset, stored);
    throw new FatalError(
      `the output ${this.path} was changed while the run goes on: no row at byte ${offset}`,
    );
  }

  /** Waits for an append under way and closes the file. */
  async close(): Promise<void> {
    await this.#file.close();
  }

  #keep(offset: number, stored: StoredPrompts): StoredPrompts {
    this.#recent.set(offset, stored);
    const [oldest] = this.#recent.keys();
    if (oldest !== undefined && this.#recent.size > RECENT_ROWS) this.#recent.delete(oldest);
    return stored;
  }
}

async function createUnlessThere(path: string, header: string): Promise<void> {
  const handle = await openPlainFile(path, 'r', 'the output');
  if (handle === undefined) await createFile(path, header);
  else await handle.close();
}

async function repairEnd(path: string, handle: FileHandle, { end, ending }: ScannedOutput): Promise<void> {
  if (ending === 'whole') return;
  try {
    if (ending === 'torn') await handle.truncate(end);
    else await handle.write('\n', end);
    await handle.sync();
  } catch (error) {
    throw new FatalError(`${describeFileError(error)}: the end of the output ${path} cannot be repaired`, {
      cause: error,
    });
  }
}

/** What was found before, if the file is still what it was then. */
async function takeOver(
  inspected: InspectedOutput | undefined,
  handle: FileHandle,
): Promise<ScannedOutput | undefined> {
  if (inspected === undefined) return undefined;
  const now = await stateOf(handle);
  const { dev, ino, size, mtimeNs } = inspected.state;
  if (now.dev !== dev || now.ino !== ino || now.size !== size || now.mtimeNs !== mtimeNs) return undefined;
  inspected.index.startPass();
  return inspected;
}

async function stateOf(handle: FileHandle): Promise<FileState> {
  const { dev, ino, size, mtimeNs } = await handle.stat({ bigint: true });
  return { dev, ino, size, mtimeNs };
}
