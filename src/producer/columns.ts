import { UsageError } from '../shared/errors.js';
import { FAILURE_COLUMNS, MESSAGE_COLUMNS, USAGE_COLUMNS } from '../shared/jobs.js';
import { cellAt, objectIn } from '../shared/json-cells.js';
import { nearest } from '../shared/nearest.js';
import { NOTHING, holdsLocalImage, holdsUrls } from './image-url.js';
import type { ManifestRecord } from './manifest-format.js';

/** More columns than this do not fit a message. */
const MOST_LISTED = 12;

/**
 * Refuses column names that cannot be kept apart.
 * @param name the manifest, for messages
 * @throws {UsageError} for names that are empty, or there twice
 */
export function checkColumnNames(columns: readonly string[], name: string): void {
  const empty = columns.findIndex((column) => column.trim() === '');
  if (empty !== -1) {
    throw new UsageError(`${name}: column ${empty + 1} of ${columns.length} has no name: give it one`);
  }
  const twice = columns.filter((column, index) => columns.indexOf(column) !== index);
  if (twice.length > 0) {
    const named = listNames([...new Set(twice)]);
    throw new UsageError(`${name}: several columns are named ${named}: rename all but one`);
  }
}

/**
 * Refuses a manifest's columns, or those of answers, that are named like others of the output or the failures file.
 * @param name the manifest, for messages
 * @param hasUsage whether the output has the columns of `--usage`
 * @throws {UsageError}
 */
export function checkOwnColumns(
  columns: readonly string[],
  answer: readonly string[],
  name: string,
  hasUsage = false,
): void {
  const usage = hasUsage ? USAGE_COLUMNS : [];
  const ours: readonly string[] = [...usage, ...MESSAGE_COLUMNS, ...FAILURE_COLUMNS];
  const reserved = answer.filter((column) => ours.includes(column));
  if (reserved.length > 0)
    throw new UsageError(
      `the output has columns named ${listNames(reserved)} of its own: name the fields otherwise`,
    );
  const taken = columns.filter((column) => ours.includes(column) || answer.includes(column));
  if (taken.length === 0) return;
  const added = taken.length === 1 ? 'a column' : 'columns';
  throw new UsageError(
    `${name}: the output adds ${added} named ${listNames(taken)} of its own: rename the manifest's`,
  );
}

/** Names for a message, on one line, not more than a screen can show. */
export function listNames(names: readonly string[], most = 30): string {
  const shown = names.slice(0, most).map((name) => name.replace(/\s+/g, ' '));
  return names.length > most ? `${shown.join(', ')} and ${names.length - most} more` : shown.join(', ');
}

interface UrlColumnOptions {
  /** `--url-column`. */
  readonly urlColumn?: string | undefined;
  readonly baseUrl?: URL | undefined;
}

/** A column, or what the JSON of its cells has at a path of keys. */
export interface ColumnRef {
  /** Into the manifest's columns. */
  readonly index: number;
  readonly path: readonly string[];
}

/** As flags name it: `image.url`. */
export function nameOfColumn(columns: readonly string[], { index, path }: ColumnRef): string {
  return [columns[index] ?? '', ...path].join('.');
}

/**
 * Finds the column that holds the images' URLs: the one that is named, else the only one in which most of the sample's
 * non-empty values are http(s) URLs (a few bad ones do not hide it), else paths of images or `data:` URIs. What is in the objects
 * of a column counts where no column does. With a base URL the values tell nothing, and it is the only column whose name
 * says image or url.
 * @throws {UsageError} when it does not exist, or when none or several could be it: lists them with a value each
 */
export function findUrlColumn(
  columns: readonly string[],
  sample: readonly ManifestRecord[],
  options: UrlColumnOptions = {},
): ColumnRef {
  if (options.urlColumn !== undefined) return columnAt('--url-column', columns, options.urlColumn, sample);
  const whole = columns.map((_, index) => ({ index, path: [] }));
  const holding = (holds: (cell: string) => boolean) => {
    const found = whole.filter((ref) => isMostly(holds, sample, ref));
    return found.length > 0
      ? found
      : nestedColumns(columns, sample).filter((ref) => isMostly(holds, sample, ref));
  };
  const isByName = options.baseUrl !== undefined;
  const urls = isByName
    ? whole.filter(({ index }) => /image|url/i.test(columns[index] ?? ''))
    : holding(holdsUrls);
  const hasUrls = urls.length > 0 || isByName;
  const found = hasUrls ? urls : holding(holdsLocalImage);
  const [only] = found;
  const [bytes] = sample.flatMap(({ binary = [] }) => binary);
  if (!hasUrls && bytes !== undefined && (only === undefined || only.path.length > 0)) {
    throw new UsageError(
      `no column holds URLs, and ${bytes} holds bytes, which no manifest can: save them as files into a folder and run that, or name a column with --url-column`,
    );
  }
  if (only !== undefined && found.length === 1) return only;
  const what = isByName
    ? 'is named like an image or a url'
    : `holds ${found.length > 0 && !hasUrls ? 'images' : 'http(s) URLs'} in the first records`;
  const count = found.length === 0 ? 'no column' : 'more than one column';
  const listed = listWithValues(columns, sample, found.length === 0 ? whole : found);
  const relative = found.length === 0 && !isByName ? ' (and --base-url <url> if its paths are relative)' : '';
  throw new UsageError(`${count} ${what}: say --url-column <name>${relative}: ${listed}`);
}

/** What columns of titles are called, the best first; spaces, dashes and underscores do not count. */
const TITLE_NAMES = [
  'title',
  'name',
  'caption',
  'label',
  'headline',
  'imagetitle',
  'productname',
  'alttext',
  'alt',
];

/**
 * Finds the column whose texts say to people what an image is: the one that is named, else the first with such a name that
 * holds texts, and no images. Undefined where none is plain.
 * @param taken columns that are something else
 * @throws {UsageError} when the one that is named does not exist
 */
export function findTitleColumn(
  columns: readonly string[],
  sample: readonly ManifestRecord[],
  titleColumn: string | undefined,
  taken: readonly number[],
): ColumnRef | undefined {
  if (titleColumn !== undefined) return columnAt('--title-column', columns, titleColumn, sample);
  const names = columns.map((name) => name.toLowerCase().replace(/[\s_-]/g, ''));
  const isText = (cell: string) => !holdsUrls(cell) && !holdsLocalImage(cell);
  return TITLE_NAMES.map((name) => ({ index: names.indexOf(name), path: [] })).find(
    (ref) => ref.index !== -1 && !taken.includes(ref.index) && isMostly(isText, sample, ref),
  );
}

/** What is deeper in a cell is no column. */
const MOST_DEEP = 8;

/** What there is in the objects of the sample's cells; keys with a dot in them cannot be named. */
function nestedColumns(columns: readonly string[], sample: readonly ManifestRecord[]): ColumnRef[] {
  const found = new Map<string, ColumnRef>();
  const visit = (cell: string, { index, path }: ColumnRef) => {
    for (const [key, { cell: value, isJson }] of objectIn(cell) ?? []) {
      const ref = { index, path: [...path, key] };
      if (key.includes('.') || ref.path.length > MOST_DEEP) continue;
      found.set(nameOfColumn(columns, ref), ref);
      if (isJson) visit(value, ref);
    }
  };
  for (const { cells } of sample)
    for (const [index, cell] of cells.entries()) visit(cell, { index, path: [] });
  return [...found.values()];
}

/**
 * Finds the column that a flag names, or the path in one.
 * @param sample records of which one has to have such a path; without it any path is believed
 * @throws {UsageError} when there is none
 */
export function columnAt(
  flag: string,
  columns: readonly string[],
  name: string,
  sample?: readonly ManifestRecord[],
): ColumnRef {
  const index = columns.indexOf(name);
  if (index !== -1) return { index, path: [] };
  const nested =
    sample === undefined
      ? columns.flatMap((column, at) =>
          name.startsWith(`${column}.`) ? { index: at, path: name.slice(column.length + 1).split('.') } : [],
        )
      : nestedColumns(columns, sample);
  const found = nested.find((ref) => nameOfColumn(columns, ref) === name);
  if (found !== undefined) return found;
  throw noSuchColumn(flag, columns, name, nested);
}

/** Which columns of a manifest a new output has, or which it has not: one of them at most. An existing one keeps its own. */
export interface KeptColumns {
  readonly keep?: readonly string[] | undefined;
  readonly drop?: readonly string[] | undefined;
}

/** What holds: what is asked for now, else what the output was begun with. */
export function keptColumnsOf({ keep, drop }: KeptColumns, remembered: KeptColumns | undefined): KeptColumns {
  return (keep ?? drop) === undefined ? { keep: remembered?.keep, drop: remembered?.drop } : { keep, drop };
}

/**
 * The columns of a manifest that its output has.
 * @param remembered columns may have gone since
 * @param needed those that tell the rows of an output apart
 * @returns their indexes, in order
 * @throws {UsageError} when a column that is asked for does not exist, or one that is needed would be left out
 */
export function findKeptColumns(
  columns: readonly string[],
  asked: KeptColumns,
  remembered: KeptColumns | undefined,
  needed: readonly number[],
): number[] {
  if (asked.keep !== undefined && asked.drop !== undefined)
    throw new UsageError('--keep and --drop: give one of them');
  const flag = asked.keep === undefined ? '--drop' : '--keep';
  const unknown = (asked.keep ?? asked.drop ?? []).find((name) => !columns.includes(name));
  if (unknown !== undefined) throw noSuchColumn(flag, columns, unknown);
  const { keep, drop } = keptColumnsOf(asked, remembered);
  const isKept = (name: string) => keep?.includes(name) ?? !(drop ?? []).includes(name);
  const lost = needed.map((index) => columns[index] ?? '').filter((name) => !isKept(name));
  if (lost.length > 0) {
    throw new UsageError(
      `${keep === undefined ? '--drop' : '--keep'} leaves out ${listNames([...new Set(lost)])}: the output needs it to tell its rows apart when the run goes on`,
    );
  }
  return [...columns.keys()].filter((index) => isKept(columns[index] ?? ''));
}

function noSuchColumn(
  flag: string,
  columns: readonly string[],
  name: string,
  nested: readonly ColumnRef[] = [],
): UsageError {
  const near = nearest(name, [...columns, ...nested.map((ref) => nameOfColumn(columns, ref))]);
  const hint = near === undefined ? '' : `: did you mean ${near}?`;
  return new UsageError(
    `${flag} ${name}: the manifest has no such column${hint} (it has ${listNames(columns)})`,
  );
}

/** Whether most values of a column look like local images. */
export function hasLocalImages(sample: readonly ManifestRecord[], column: ColumnRef): boolean {
  return isMostly(holdsLocalImage, sample, column);
}

function isMostly(
  holds: (cell: string) => boolean,
  sample: readonly ManifestRecord[],
  column: ColumnRef,
): boolean {
  const values = valuesOf(sample, column);
  const found = values.filter(holds);
  return found.length > 0 && found.length * 2 > values.length;
}

/** Bad records are left out: their cells may be another column's. */
export function valuesOf(sample: readonly ManifestRecord[], { index, path }: ColumnRef): string[] {
  return sample
    .filter(({ problem }) => problem === undefined)
    .map(({ cells }) => cellAt(cells[index] ?? '', path).trim())
    .filter((value) => !NOTHING.test(value));
}

function listWithValues(
  columns: readonly string[],
  sample: readonly ManifestRecord[],
  refs: readonly ColumnRef[],
): string {
  const shown = refs.slice(0, MOST_LISTED).map((ref) => {
    const [value = ''] = valuesOf(sample, ref);
    const line = value.replace(/\s+/g, ' ');
    const name = nameOfColumn(columns, ref).replace(/\s+/g, ' ');
    return `${name} (${line === '' ? 'empty' : line.length > 60 ? `${line.slice(0, 59)}…` : line})`;
  });
  const more = refs.length - shown.length;
  return more > 0 ? `${shown.join(', ')} and ${more} more` : shown.join(', ');
}
