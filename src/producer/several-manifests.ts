import { existsSync } from 'node:fs';
import { readdir, realpath, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { UsageError, fileTrouble, isSystemError, manifestsText, shownPath } from '../shared/errors.js';
import { isFolder } from './folder-format.js';
import { listNames } from './columns.js';
import { type ManifestRecord, SAMPLE_RECORDS } from './manifest-format.js';
import { type Manifest, type ManifestOptions, openManifest } from './manifest.js';

/** Whether the output cannot be named after them: it has to stay the same when files are added. */
export function areSeveral(names: readonly string[], folder = '.'): boolean {
  return names.length > 1 || names.some((name) => isPattern(name, folder));
}

/** A file may be named like a pattern. */
export function isPattern(name: string, folder = '.'): boolean {
  return /[*?]/.test(name) && !existsSync(resolve(folder, name));
}

/**
 * The files that manifests and patterns (`*`, `?`, and `**` for any folders) name, each once: in the order given, those of a pattern in
 * natural order, `part-2` before `part-10`.
 * @param own files of the run itself, absolute: patterns do not mean them
 * @throws {UsageError} when a pattern matches nothing, or several manifests are not files
 */
export async function findManifests(
  names: readonly string[],
  own: readonly string[],
  folder = '.',
): Promise<readonly [string, ...string[]]> {
  const files: string[] = [];
  for (const name of names) {
    if (!isPattern(name, folder)) files.push(name);
    else {
      const found = await filesLike(name, folder);
      const real = await Promise.all(found.map((file) => realpath(resolve(folder, file))));
      const others = found.filter((_, index) => !own.includes(real[index] ?? ''));
      if (others.length === 0) throw new UsageError(`${shownPath(name)}: no file matches: check the pattern`);
      files.push(...others);
    }
  }
  const once = new Map<string, string>();
  for (const file of files) {
    const path = resolve(folder, file);
    const real = file === '-' ? file : await realpath(path).catch(() => path);
    if (!once.has(real)) once.set(real, file);
  }
  const [first = '-', ...more] = once.values();
  if (more.length === 0) return [first];
  for (const name of [first, ...more]) {
    const isOdd =
      name === '-' ? 'is stdin' : (await isFolder(resolve(folder, name))) ? 'is a folder' : undefined;
    if (isOdd !== undefined)
      throw new UsageError(`${name} ${isOdd}: only files can be run together: run it by itself`);
  }
  return [first, ...more];
}

const NATURAL = new Intl.Collator('en', { numeric: true });

/** Files only; what is hidden is left out. */
export async function filesLike(pattern: string, folder: string): Promise<string[]> {
  const found = await expand(pattern.startsWith('/') ? '/' : '', pattern.split('/').filter(Boolean), folder);
  return [...new Set(found)].sort((a, b) => NATURAL.compare(a, b) || (a < b ? -1 : 1));
}

async function expand(
  path: string,
  [segment = '', ...rest]: readonly string[],
  folder: string,
): Promise<string[]> {
  if (!/[*?]/.test(segment) && rest.length > 0) return await expand(join(path, segment), rest, folder);
  const entries = await readdir(resolve(folder, path), { withFileTypes: true }).catch((error: unknown) => {
    if (isSystemError(error) && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) return [];
    throw new UsageError(`${shownPath(path)} cannot be read: ${fileTrouble(error)}`);
  });
  const isDeep = segment === '**';
  const like = isDeep ? /^[^.]/ : nameLike(segment);
  const found = isDeep && rest.length > 0 ? [await expand(path, rest, folder)] : [];
  for (const entry of entries.filter(({ name }) => like.test(name))) {
    const inside = join(path, entry.name);
    if (rest.length === 0 && (await isFile(resolve(folder, inside)))) found.push([inside]);
    // Linked folders may lead back to this one.
    if (isDeep && entry.isDirectory()) found.push(await expand(inside, [segment, ...rest], folder));
    if (!isDeep && rest.length > 0 && !entry.isFile()) found.push(await expand(inside, rest, folder));
  }
  return found.flat();
}

/** Or a link to one. */
async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() === true;
}

function nameLike(segment: string): RegExp {
  const text = segment
    .replace(/[\\^$.|+()[\]{}]/g, '\\$&')
    .replace(/\*+/g, '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${segment.startsWith('.') ? '' : '(?!\\.)'}${text}$`, 'su');
}

/**
 * Opens manifests that are read one after the other as one; each is one whole manifest of its own, with its own format and delimiter.
 * @param name how they are shown
 * @param union whether they may have other columns, or in another order: it has all of them, and what a manifest has not is empty
 * @throws {UsageError} see `openManifest`; and where their columns differ
 */
export async function openManifests(
  [first, ...more]: readonly [string, ...string[]],
  {
    name = manifestsText([first, ...more]),
    union = false,
    ...options
  }: Omit<ManifestOptions, 'path'> & { readonly name?: string; readonly union?: boolean | undefined },
): Promise<Manifest> {
  const begun = await openManifest({ ...options, path: first });
  if (more.length === 0) return begun;
  const all = [begun];
  const close = async () => {
    await Promise.all(all.map((manifest) => manifest.close()));
  };
  try {
    for (const path of more) {
      const next = await openManifest({ ...options, path });
      all.push(next);
      if (!union) refuseOthers(begun, next);
    }
  } catch (error) {
    await close();
    throw error;
  }
  const columns = [...new Set(all.flatMap((manifest) => manifest.columns))];
  return {
    ...begun,
    path: name,
    name,
    files: [first, ...more],
    columns,
    unnamedColumns: all.reduce((sum, { unnamedColumns }) => sum + unnamedColumns, 0),
    sample: all
      .flatMap((manifest) => manifest.sample.map(toCommon(manifest, columns, 0)))
      .slice(0, SAMPLE_RECORDS),
    sizeBytes: all.reduce<number | undefined>(
      (sum, { sizeBytes }) => (sum === undefined || sizeBytes === undefined ? undefined : sum + sizeBytes),
      0,
    ),
    replayable: all.every(({ replayable }) => replayable),
    async *batches(signal) {
      let before = 0;
      for (const manifest of all) {
        const toRecord = toCommon(manifest, columns, before);
        for await (const batch of manifest.batches(signal)) {
          const records = batch.map(toRecord);
          before = records.at(-1)?.number ?? before;
          yield records;
        }
        if (signal?.aborted === true) return;
      }
    },
    close,
  };
}

function refuseOthers(first: Manifest, next: Manifest): void {
  const missing = first.columns.filter((column) => !next.columns.includes(column));
  const added = next.columns.filter((column) => !first.columns.includes(column));
  const isSame = first.columns.every((column, index) => next.columns[index] === column);
  if (isSame && added.length === 0) return;
  const differences = [
    ...(missing.length > 0 ? [`lacks ${listNames(missing)}`] : []),
    ...(added.length > 0 ? [`adds ${listNames(added)}`] : []),
  ];
  const what = differences.length > 0 ? differences.join(' and ') : 'has them in another order';
  throw new UsageError(
    `the columns of ${first.name} and ${next.name} differ: the second ${what}: say --union for all of them`,
  );
}

/** Makes a record of all manifests of one of theirs. */
function toCommon(manifest: Manifest, columns: readonly string[], before: number) {
  const places = columns.map((column) => manifest.columns.indexOf(column));
  const isPlain =
    manifest.columns.length === columns.length && places.every((place, index) => place === index);
  return (record: ManifestRecord): ManifestRecord => {
    const common = { ...record, number: before + record.number, file: manifest.name };
    if (isPlain) return common;
    const cells = places.map((place) => record.cells[place] ?? '');
    return {
      ...common,
      cells,
      isJson: record.isJson && places.map((place) => record.isJson?.[place] ?? true),
    };
  };
}
