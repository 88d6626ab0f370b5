import { open, realpath, stat, type FileHandle } from 'node:fs/promises';
import { FatalError, UsageError, isSystemError } from '../shared/errors.js';
import { readHeader, type CsvHeader } from './csv-header.js';
import { describeFileError } from './durable-file.js';
import { readRecordAt } from './file-records.js';
import type { OutputOptions } from './open-output.js';
import { OUTPUT_COLUMNS } from './output-columns.js';
import type { StoredPrompts } from './output-file.js';
import { OutputIndex } from './output-index.js';
import { scanOutput } from './output-scan.js';

/** What earlier files are read with: as for the output, but for its own path. */
export type EarlierOptions = Omit<OutputOptions, 'path' | 'newColumns'>;

/** One earlier file. Its place in the index is that of its first byte, as if all lay end to end. */
export interface EarlierFile {
  readonly path: string;
  readonly firstPlace: number;
  readonly size: number;
  readonly header: CsvHeader;
  readonly hasSimulated: boolean;
  readonly hasReal: boolean;
}

/**
 * Outputs of earlier nights, whose rows count as done. They are read only, and each need have no more columns than the
 * one that tells rows apart and ours: the manifest may have had others then. One index holds the rows of all of them.
 */
export class EarlierOutputs {
  private constructor(
    readonly index: OutputIndex,
    readonly files: readonly EarlierFile[],
  ) {}

  /**
   * Reads and indexes the files. Rows that somebody appends to one later are not known.
   * @param own the output, which cannot be an earlier one
   * @throws {UsageError} when one is not there, is the output itself, or holds no prompts of such a manifest
   */
  static async read(paths: readonly string[], own: string, options: EarlierOptions): Promise<EarlierOutputs> {
    const index = new OutputIndex({ keyed: options.keyColumn !== undefined });
    const files: EarlierFile[] = [];
    let firstPlace = 0;
    for (const path of await distinctPaths(paths, own)) {
      const handle = await openForReading(path);
      try {
        const file = await readFile(path, handle, { index, firstPlace }, options);
        if (file === undefined) continue;
        files.push(file);
        firstPlace += file.size;
      } finally {
        await handle.close();
      }
    }
    return new EarlierOutputs(index, files);
  }

  /**
   * Reads what a row was described with. Its file is opened each time: of hundreds of nights not all can stay open.
   * @param place from the index
   * @throws {FatalError} when there is no row, which means that the file was changed
   */
  async readPromptsAt(place: number): Promise<StoredPrompts> {
    const file = this.files.find(({ firstPlace, size }) => place >= firstPlace && place < firstPlace + size);
    if (file === undefined) throw new RangeError(`no earlier output has the place ${place}`);
    const { path, header } = file;
    const offset = place - file.firstPlace;
    const cells = await readCells(path, offset, header.delimiter);
    if (cells?.length !== header.columns.length) {
      throw new FatalError(
        `the earlier output ${path} was changed while the run goes on: no row at byte ${offset}`,
      );
    }
    const cellOf = (name: (typeof OUTPUT_COLUMNS)[number]) => cells[header.columns.indexOf(name)] ?? '';
    return {
      prompts: [cellOf('prompt_1'), cellOf('prompt_2'), cellOf('prompt_3'), cellOf('prompt_4')],
      messageId: cellOf('message_id'),
      describedAt: cellOf('described_at'),
    };
  }
}

/** By their real names, each once. */
async function distinctPaths(paths: readonly string[], own: string): Promise<Set<string>> {
  const ownPath = await realpath(own).catch(() => own);
  const distinct = new Set<string>();
  for (const path of paths) {
    const real = await realpath(path).catch(() => path);
    if (real === ownPath) {
      throw new UsageError(`${path} is both the output and an earlier output: name another output with -o`);
    }
    distinct.add(real);
  }
  return distinct;
}

async function openForReading(path: string): Promise<FileHandle> {
  try {
    // Looked at first: opening a pipe would wait for its other end.
    if (!(await stat(path)).isFile()) throw new UsageError(`the earlier output ${path} is not a plain file`);
    return await open(path, 'r');
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const isMissing = isSystemError(error) && error.code === 'ENOENT';
    const trouble = isMissing
      ? 'is not there: put it back, since its rows would be paid for again'
      : `cannot be opened: ${describeFileError(error)}`;
    throw new UsageError(`the earlier output ${path} ${trouble}`, { cause: error });
  }
}

/** @returns undefined for an empty file */
async function readFile(
  path: string,
  handle: FileHandle,
  into: { readonly index: OutputIndex; readonly firstPlace: number },
  options: EarlierOptions,
): Promise<EarlierFile | undefined> {
  const { columns, keyColumn, delimiter, resolveUrl, signal } = options;
  const names = {
    urlColumn: columns[options.urlColumn] ?? '',
    keyColumn: keyColumn === undefined ? undefined : (columns[keyColumn] ?? ''),
  };
  const needed = [...OUTPUT_COLUMNS, names.keyColumn ?? names.urlColumn];
  const { size } = await handle.stat();
  if (size === 0) return undefined;
  const header = await readHeader(handle, delimiter, (found) => needed.every((name) => found.includes(name)));
  const missing = needed.filter((name) => header?.columns.includes(name) !== true);
  if (header === undefined || missing.length > 0) {
    const list = missing.map((name) => JSON.stringify(name)).join(', ');
    throw new UsageError(`the earlier output ${path} is none of this manifest: it has no column ${list}`);
  }
  const scanned = await scanOutput(path, handle, header, { ...names, resolveUrl }, signal, into);
  return {
    path,
    firstPlace: into.firstPlace,
    // Rows may have been appended while it was read.
    size: Math.max(size, scanned.end),
    header,
    hasSimulated: scanned.hasSimulated,
    hasReal: scanned.hasReal,
  };
}

async function readCells(
  path: string,
  offset: number,
  delimiter: string,
): Promise<readonly string[] | undefined> {
  try {
    const handle = await open(path, 'r');
    try {
      return (await readRecordAt(handle, offset, delimiter, true))?.cells;
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw new FatalError(`${describeFileError(error)}: the earlier output ${path} cannot be read`, {
      cause: error,
    });
  }
}
