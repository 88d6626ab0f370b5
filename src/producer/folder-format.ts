import { existsSync } from 'node:fs';
import { readdir, realpath, stat } from 'node:fs/promises';
import { basename, join, relative, sep } from 'node:path';
import { UsageError, fileTrouble, shownPath } from '../shared/errors.js';
import { openAllowed } from '../shared/local-file.js';
import { openCsv } from './csv-format.js';
import { IMAGE_ENDING } from './image-url.js';
import { openJsonl } from './line-formats.js';
import type {
  ManifestRecord,
  ManifestSource,
  OpenFormat,
  OpenedFormat,
  RecordBatches,
} from './manifest-format.js';
import { findSource } from './manifest-source.js';
import { openParquet } from './parquet-format.js';

export const FILE_COLUMN = 'file_name';
const COLUMNS = [FILE_COLUMN, 'bytes', 'width', 'height'] as const;
const AT_ONCE = 32;

/** Whether a manifest's path is one of a folder. */
export async function isFolder(path: string): Promise<boolean> {
  return path !== '-' && (await stat(path).catch(() => undefined))?.isDirectory() === true;
}

/** Of each source without metadata: all of its readings have to give the same rows, and only the first one looks into the files. */
const known = new WeakMap<ManifestSource, Promise<readonly (() => Promise<ManifestRecord>)[]>>();

/** What a folder of Hugging Face may hold beside its images: their names in a column, and what is known of each. */
const METADATA = new Map<string, OpenFormat>([
  ['metadata.csv', openCsv],
  ['metadata.jsonl', openJsonl],
  ['metadata.parquet', openParquet],
]);

/** The paths of those that are there. */
export function metadataIn(folder: string): string[] {
  return [...METADATA.keys()].map((name) => join(folder, name)).filter((path) => existsSync(path));
}

/** @returns undefined when there is none with such a column */
async function openMetadata(
  ...[source, options, signal]: Parameters<OpenFormat>
): Promise<OpenedFormat | undefined> {
  const { path } = source;
  const there = metadataIn(path);
  if (there.length > 1) {
    const names = there.map((file) => basename(file)).join(' and ');
    throw new UsageError(`${path} has ${names}: run the one that counts, with --image-root ${path}`);
  }
  const [found = ''] = there;
  const open = METADATA.get(basename(found));
  if (open === undefined) return undefined;
  const opened = await open(await findSource(found, process.stdin, source.encoding), options, signal);
  if (opened.columns.includes(FILE_COLUMN)) return opened;
  await opened.close();
  return undefined;
}

/** A folder of images: what its metadata says, else a record for each image file below it, sorted by its path. What is hidden is left out, and linked folders are. */
export const openFolder: OpenFormat = async (source, options, signal) => {
  const metadata = known.has(source) ? undefined : await openMetadata(source, options, signal);
  if (metadata !== undefined) return metadata;
  const found = known.get(source) ?? recordsBelow(source.path);
  known.set(source, found);
  const records = await found;
  const batches = async function* (): RecordBatches {
    for (let start = 0; start < records.length && !signal.aborted; start += AT_ONCE) {
      yield await Promise.all(records.slice(start, start + AT_ONCE).map((record) => record()));
    }
  };
  const all = batches();
  return { columns: COLUMNS, delimiter: ',', batches: all, close: () => all.return() };
};

/** @throws {UsageError} when a folder has no images or cannot be read */
async function recordsBelow(path: string) {
  const names = await imagesBelow(path);
  if (names.length === 0)
    throw new UsageError(`${path} is a folder without images: name one that has some, or a manifest`);
  const root = await realpath(path);
  return names.map((name, index) => {
    let record: ManifestRecord | undefined;
    return async () => {
      if (record !== undefined) return record;
      const number = index + 1;
      const found = await lookInto(join(root, name), root);
      // Bytes that are no UTF-8 are lost in it, so that there is no such file.
      const isLost = name.includes('\uFFFD') && found[0] === '';
      const problem = isLost ? { problem: 'the name of the file is not valid UTF-8: rename it' } : {};
      record = { line: number, number, cells: [name, ...found], ...problem };
      return record;
    };
  });
}

/** The paths of the images, relative to the folder and with `/`. */
async function imagesBelow(path: string): Promise<string[]> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true }).catch((error: unknown) => {
    throw new UsageError(`${shownPath(path)} cannot be read: ${fileTrouble(error)}`);
  });
  const names = entries.flatMap((entry) => {
    if (!IMAGE_ENDING.test(entry.name) || !(entry.isFile() || entry.isSymbolicLink())) return [];
    const name = relative(path, join(entry.parentPath, entry.name)).split(sep).join('/');
    return /(^|\/)\./.test(name) ? [] : [name];
  });
  return names.sort();
}

/** Bytes, width and height, as it is seen upright; nothing where it cannot be read, which its describing says. */
async function lookInto(path: string, root: string): Promise<readonly [string, string, string]> {
  try {
    const { handle, bytes } = await openAllowed(path, { roots: [root] });
    await handle.close();
    const { default: sharp } = await import('sharp');
    const size = await sharp(path)
      .metadata()
      .then(({ autoOrient }) => autoOrient)
      .catch(() => undefined);
    return [String(bytes), String(size?.width ?? ''), String(size?.height ?? '')];
  } catch {
    return ['', '', ''];
  }
}
