import type { ColumnRef } from './columns.js';
import { type ImageRoot, imageHash, resolveImageUrl } from './image-url.js';
import { type Cells, cellAt } from '../shared/json-cells.js';
import type { Manifest } from './manifest.js';
import type { ManifestRecord } from './manifest-format.js';
import type { PromptTemplate } from './prompt-template.js';

/** How records become rows. */
export interface RowPlan {
  readonly urlColumn: ColumnRef;
  readonly keyColumn?: ColumnRef | undefined;
  /** What says to people what an image is. */
  readonly titleColumn?: ColumnRef | undefined;
  readonly baseUrl?: URL | undefined;
  /** Where local images are; undefined where all are URLs. */
  readonly imageRoot?: ImageRoot | undefined;
  /** Whether the URL column holds names of files as they are, as a folder's does. */
  readonly areNames?: boolean | undefined;
  /** A prompt of the row's own. */
  readonly prompt?: PromptTemplate | undefined;
}

/** One row of a manifest, with as many cells as that has columns. Which occurrence of its image it is, its reader does not count. */
export interface Row extends Cells {
  /** Which record it is, and the line in which it begins, both from 1. */
  readonly number: number;
  readonly line: number;
  /** See `ManifestRecord`. */
  readonly file?: string | undefined;
  /** Its cell in the key column, unless there is none or it is empty. */
  readonly key?: string | undefined;
  /** The absolute image URL and its `imageHash`, both or neither; never with a problem. */
  readonly url?: string | undefined;
  readonly image?: string | undefined;
  /** What people call the image, on one short line. */
  readonly title?: string | undefined;
  /** What a model is asked of it, where each row has its own prompt; the hash is of both then. */
  readonly prompt?: string | undefined;
  /** Why it cannot be described; the reason says the line. */
  readonly problem?: { readonly code: 'invalid-url' | 'bad-record'; readonly reason: string };
}

/** How a row or its image is called. */
export type NamedRow = Pick<Row, 'key' | 'image'>;

/**
 * Reads a manifest's rows in batches, from the first.
 * @param signal ends the iteration without an error
 * @throws {FatalError} see `Manifest.batches`
 */
export async function* readRows(
  manifest: Pick<Manifest, 'batches'>,
  plan: RowPlan,
  signal?: AbortSignal,
): AsyncGenerator<readonly Row[], void> {
  for await (const records of manifest.batches(signal)) {
    yield records.filter(({ isEmpty = false }) => !isEmpty).map((record) => toRow(record, plan));
  }
}

/** Makes a row of a record: its key, its image, or what keeps it from having them. */
export function toRow(record: ManifestRecord, plan: RowPlan): Row {
  const { number, line, file, cells, isJson } = record;
  const key = keyIn(cells, plan);
  const row = { number, line, file, cells, isJson, key: key === '' ? undefined : key };
  if (record.problem !== undefined) return withProblem(row, 'bad-record', record.problem);
  if (key === '') return withProblem(row, 'bad-record', 'no key');
  const found = imageIn(cells, plan);
  if ('problem' in found) return withProblem(row, 'invalid-url', found.problem);
  return { ...row, ...found, title: titleOf(cells, plan.titleColumn) };
}

/** How a row that a file holds is called, as `toRow` calls the manifest's. @param cells of the manifest's columns */
export function nameOf(cells: readonly string[], plan: RowPlan): NamedRow {
  const found = imageIn(cells, plan);
  return { key: keyIn(cells, plan), image: 'problem' in found ? undefined : found.image };
}

/** The columns that say how rows are called. */
export function namingColumns({ urlColumn, keyColumn = urlColumn, prompt }: RowPlan): readonly number[] {
  return [urlColumn.index, keyColumn.index, ...(prompt?.columns ?? [])];
}

function keyIn(cells: readonly string[], { keyColumn }: RowPlan): string | undefined {
  return keyColumn === undefined ? undefined : cellAt(cells[keyColumn.index] ?? '', keyColumn.path);
}

function imageIn(cells: readonly string[], plan: RowPlan) {
  const raw = cellAt(cells[plan.urlColumn.index] ?? '', plan.urlColumn.path);
  const resolved = resolveImageUrl(raw, plan.baseUrl, plan.imageRoot, plan.areNames);
  if ('problem' in resolved) return resolved;
  const prompt = plan.prompt?.fill(plan.prompt.columns.map((column) => cells[column] ?? ''));
  return { url: resolved.url, prompt, image: imageHash(resolved.identity ?? resolved.url, prompt) };
}

const LONGEST_TITLE = 200;

/** It goes with the image's job: what a queue could not keep is left out of it. */
function titleOf(cells: readonly string[], column: ColumnRef | undefined): string | undefined {
  if (column === undefined) return undefined;
  const text = cellAt(cells[column.index] ?? '', column.path);
  const short = text.length > LONGEST_TITLE ? `${text.slice(0, LONGEST_TITLE - 1)}…` : text;
  const line = short.replace(/[\p{Cc}\p{Cs}\s]+/gu, ' ').trim();
  return line === '' ? undefined : line;
}

/** Where a row is in its manifest. */
export function placeOf({ file, line }: Pick<Row, 'file' | 'line'>): string {
  return file === undefined ? `line ${line}` : `${file}, line ${line}`;
}

function withProblem(row: Row, code: 'invalid-url' | 'bad-record', reason: string): Row {
  return { ...row, problem: { code, reason: `${placeOf(row)}: ${reason}` } };
}
