import { UsageError } from '../shared/errors.js';
import { columnNamed } from './columns.js';

/** A prompt with the row's cells in it: `A caption for {{title}}`. */
export interface PromptTemplate {
  /** Of the columns it names, each once. */
  readonly columns: readonly number[];
  /** @param cells of `columns`, in their order */
  fill(cells: readonly string[]): string;
}

const PLACEHOLDER = /\{\{\s*([^{}\s][^{}]*?)\s*\}\}/g;

/**
 * Reads a prompt with `{{column}}` in it.
 * @returns undefined when it is the same for every row
 * @throws {UsageError} when it names a column that the manifest does not have, or none between its braces
 */
export function parsePromptTemplate(text: string, columns: readonly string[]): PromptTemplate | undefined {
  const [open] = /\{\{[^]{0,30}/.exec(text.replace(PLACEHOLDER, ' ')) ?? [];
  if (open !== undefined)
    throw new UsageError(
      `--prompt: ${JSON.stringify(open)} names no column: write {{name}} for a column's value, and braces that are text with a blank between: { {`,
    );
  const named = new Set(Array.from(text.matchAll(PLACEHOLDER), ([, name = '']) => name));
  if (named.size === 0) return undefined;
  const places = new Map(Array.from(named, (name, at) => [name, at]));
  return {
    columns: Array.from(named, (name) => columnNamed('--prompt', columns, name)),
    fill: (cells) =>
      text.replace(PLACEHOLDER, (_, name: string) => cells[places.get(name) ?? -1]?.trim() ?? ''),
  };
}
