import { UsageError } from '../shared/errors.js';
import { cellAt } from '../shared/json-cells.js';
import { columnAt } from './columns.js';
import type { ManifestRecord } from './manifest-format.js';

/** A prompt with the row's cells in it: `A caption for {{title}}`. */
export interface PromptTemplate {
  /** Of what it names, each name once. */
  readonly columns: readonly number[];
  /** @param cells of `columns`, in their order */
  fill(cells: readonly string[]): string;
}

const PLACEHOLDER = /\{\{\s*([^{}\s][^{}]*?)\s*\}\}/g;

/**
 * Reads a prompt with `{{column}}` in it, or `{{column.key}}` of the objects in one.
 * @param sample see `columnAt`
 * @param flag for messages
 * @returns undefined when it is the same for every row
 * @throws {UsageError} when it names a column that the manifest does not have, or none between its braces
 */
export function parsePromptTemplate(
  text: string,
  columns: readonly string[],
  sample?: readonly ManifestRecord[],
  flag = '--prompt',
): PromptTemplate | undefined {
  const [open] = /\{\{[^]{0,30}/.exec(text.replace(PLACEHOLDER, ' ')) ?? [];
  if (open !== undefined)
    throw new UsageError(
      `${flag}: ${JSON.stringify(open)} names no column: write {{name}} for a column's value, and braces that are text with a blank between: { {`,
    );
  const named = new Set(Array.from(text.matchAll(PLACEHOLDER), ([, name = '']) => name));
  if (named.size === 0) return undefined;
  const refs = new Map(
    Array.from(named, (name, at) => [name, { at, ...columnAt(flag, columns, name, sample) }]),
  );
  const valueOf = (cells: readonly string[], name: string) => {
    const ref = refs.get(name);
    return ref === undefined ? '' : cellAt(cells[ref.at] ?? '', ref.path).trim();
  };
  return {
    columns: Array.from(refs.values(), ({ index }) => index),
    fill: (cells) => text.replace(PLACEHOLDER, (_, name: string) => valueOf(cells, name)),
  };
}
