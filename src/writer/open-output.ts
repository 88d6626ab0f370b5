import { open, realpath, stat, type FileHandle } from 'node:fs/promises';
import { FatalError, UsageError, isSystemError } from '../shared/errors.js';
import { formatRecord } from './csv-format.js';
import { createFile, describeFileError, replaceFile } from './durable-file.js';
import { outputColumns, readOutputHeader, type OutputHeader } from './output-header.js';
import { scanOutput, type ScannedOutput } from './output-scan.js';
import { rewriteColumns } from './rewrite-columns.js';

/** What an output is opened or inspected with. */
export interface OutputOptions {
  readonly path: string;
  /** The manifest's columns, in order. */
  readonly columns: readonly string[];
  /** Of a new output. An existing one keeps its own, which is found from its header. */
  readonly delimiter: string;
  /** Which of `columns` hold the image and, where rows have one, the key. */
  readonly urlColumn: number;
  readonly keyColumn?: number | undefined;
  /** The hash of the image that a URL cell means; undefined when it means none. */
  readonly resolveUrl: (raw: string) => string | undefined;
  /** The manifest may have columns that the output lacks: it is rewritten once with them. */
  readonly newColumns?: boolean | undefined;
  /** Ends the reading of a large output with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Tells a file's state from any other that it has had: whoever writes to it changes one of these. */
interface FileState {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly size: bigint;
  readonly mtimeNs: bigint;
}

/** What an output holds, without touching it. */
export interface InspectedOutput extends ScannedOutput {
  readonly delimiter: string;
  /** Whether `OutputFile.open` would rewrite it for new columns. */
  readonly outdated: boolean;
  /** As it was before it was read. */
  readonly state: FileState;
}

/**
 * Reads an output as `OutputFile.open` does, but creates and changes nothing.
 * @returns undefined when there is none
 * @throws {UsageError} as `OutputFile.open`
 */
export async function inspectOutput(options: OutputOptions): Promise<InspectedOutput | undefined> {
  const handle = await openHandle(options.path, 'r');
  if (handle === undefined) return undefined;
  try {
    const header = await readOutputHeader(handle, options);
    if (header === undefined) return undefined;
    const state = await stateOf(handle);
    const scanned = await scan(options, handle, header);
    return { ...scanned, delimiter: header.delimiter, outdated: header.outdated, state };
  } finally {
    await handle.close();
  }
}

/** An output that can be appended to. */
export interface OpenedOutput {
  readonly path: string;
  readonly handle: FileHandle;
  readonly header: OutputHeader;
  readonly scanned: ScannedOutput;
  readonly cutBytes: number;
  readonly size: number;
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
 * Opens an output, or creates it with its header, and indexes it. A torn last record is cut, a missing last
 * line end added.
 * @throws as `OutputFile.open`
 */
export async function openOutput(options: OpenOutputOptions): Promise<OpenedOutput> {
  const newHeader = formatRecord(outputColumns(options.columns), options.delimiter);
  if (options.create) await createUnlessThere(options.path, newHeader);
  const path = await realpath(options.path).catch(() => options.path);
  let rewriteCut = 0;
  for (;;) {
    const handle = await openHandle(path, 'r+');
    if (handle === undefined) throw new UsageError(`there is no output ${options.path}`);
    try {
      const header = await readOutputHeader(handle, options);
      if (header?.outdated === false) {
        const opened = await openRows(options, path, handle, header);
        return { ...opened, cutBytes: rewriteCut + opened.cutBytes };
      }
      // Both put another file in this one's place, which the next round opens.
      if (header === undefined) await replaceFile(path, (temp) => temp.writeFile(newHeader));
      else rewriteCut = await rewriteColumns(path, handle, header, outputColumns(options.columns));
    } catch (error) {
      await handle.close();
      throw error;
    }
    await handle.close();
  }
}

async function createUnlessThere(path: string, header: string): Promise<void> {
  const handle = await openHandle(path, 'r');
  if (handle === undefined) await createFile(path, header);
  else await handle.close();
}

async function openRows(
  options: OpenOutputOptions,
  path: string,
  handle: FileHandle,
  header: OutputHeader,
): Promise<OpenedOutput> {
  const scanned = (await takeOver(options.inspected, handle)) ?? (await scan(options, handle, header));
  const { end, tornBytes, lacksLineEnd } = scanned;
  try {
    if (tornBytes > 0) await handle.truncate(end);
    if (lacksLineEnd) await handle.write('\n', end);
    if (tornBytes > 0 || lacksLineEnd) await handle.sync();
  } catch (error) {
    throw new FatalError(`${describeFileError(error)}: the end of the output ${path} cannot be repaired`, {
      cause: error,
    });
  }
  return { path, handle, header, scanned, cutBytes: tornBytes, size: lacksLineEnd ? end + 1 : end };
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

async function scan(
  options: OutputOptions,
  handle: FileHandle,
  header: OutputHeader,
): Promise<ScannedOutput> {
  const { path, columns, urlColumn, keyColumn, resolveUrl, signal } = options;
  const names = {
    urlColumn: columns[urlColumn] ?? '',
    keyColumn: keyColumn === undefined ? undefined : columns[keyColumn],
    resolveUrl,
  };
  return await scanOutput(path, handle, header, names, signal);
}

/** Opens a file that must be a plain one; undefined when there is none. */
async function openHandle(path: string, flags: 'r' | 'r+'): Promise<FileHandle | undefined> {
  try {
    // Looked at first: opening a pipe would wait for its other end.
    if (!(await stat(path)).isFile()) throw new UsageError(`the output ${path} is not a plain file`);
    return await open(path, flags);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    if (isSystemError(error) && error.code === 'ENOENT') return undefined;
    throw new UsageError(`the output ${path} cannot be opened: ${describeFileError(error)}`, {
      cause: error,
    });
  }
}
