import { open, realpath, type FileHandle } from 'node:fs/promises';
import { FatalError, UsageError } from '../shared/errors.js';
import { readHeader, type CsvHeader } from './csv-file.js';
import {
  OUTPUT_COLUMNS,
  type OutputOptions,
  type StoredPrompts,
  readPromptsAt,
  scanOutput,
} from './csv-output.js';
import { describeFileError, openPlainFile } from './durable-file.js';
import { OutputIndex } from './output-index.js';

/** What earlier files are read with: as for the output, but for its own path. */
export type EarlierOptions = Omit<OutputOptions, 'path' | 'newColumns'>;

/** One earlier file. Its place in the index is that of its first byte, as if all lay end to end. */
interface EarlierFile {
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
      const handle = await openEarlier(path);
      try {
        const file = await indexFile(path, handle, { index, firstPlace }, options);
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
    const offset = place - file.firstPlace;
    const stored = await readStored(file, offset);
    if (stored !== undefined) return stored;
    throw new FatalError(
      `the earlier output ${file.path} was changed while the run goes on: no row at byte ${offset}`,
    );
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

async function openEarlier(path: string): Promise<FileHandle> {
  const handle = await openPlainFile(path, 'r', 'the earlier output');
  if (handle !== undefined) return handle;
  throw new UsageError(
    `the earlier output ${path} is not there: put it back, since its rows would be paid for again`,
  );
}

/** @returns undefined for an empty file */
async function indexFile(
  path: string,
  handle: FileHandle,
  into: { readonly index: OutputIndex; readonly firstPlace: number },
  options: EarlierOptions,
): Promise<EarlierFile | undefined> {
  const { size } = await handle.stat();
  if (size === 0) return undefined;
  const { columns, keyColumn, urlColumn } = options;
  const needed = [...OUTPUT_COLUMNS, columns[keyColumn ?? urlColumn] ?? ''];
  const header = await readHeader(handle, options.delimiter, (found) =>
    needed.every((name) => found.includes(name)),
  );
  const missing = needed.filter((name) => header?.columns.includes(name) !== true);
  if (header === undefined || missing.length > 0) {
    const list = missing.map((name) => JSON.stringify(name)).join(', ');
    throw new UsageError(`the earlier output ${path} is none of this manifest: it has no column ${list}`);
  }
  const { hasSimulated, hasReal } = await scanOutput(path, handle, header, size, options, into);
  return { path, firstPlace: into.firstPlace, size, header, hasSimulated, hasReal };
}

async function readStored(file: EarlierFile, offset: number): Promise<StoredPrompts | undefined> {
  try {
    const handle = await open(file.path, 'r');
    try {
      return await readPromptsAt(handle, file.header, offset);
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw new FatalError(`${describeFileError(error)}: the earlier output ${file.path} cannot be read`, {
      cause: error,
    });
  }
}
