import { UsageError } from '../shared/errors.js';

/** The columns that the output and the failures file add, which a manifest's may not be named like. */
export const OWN_COLUMNS: readonly string[] = [
  'prompt_1',
  'prompt_2',
  'prompt_3',
  'prompt_4',
  'message_id',
  'described_at',
  'error_code',
  'error',
  'attempts',
];

/**
 * Refuses column names that the output could not keep apart.
 * @param name the manifest, for messages
 * @throws {UsageError} for names that are empty, there twice, or ours
 */
export function checkColumnNames(columns: readonly string[], name: string): void {
  const empty = columns.findIndex((column) => column.trim() === '');
  if (empty !== -1) {
    throw new UsageError(`${name}: column ${empty + 1} of ${columns.length} has no name: give it one`);
  }
  const twice = unique(columns.filter((column, index) => columns.indexOf(column) !== index));
  if (twice.length > 0) {
    throw new UsageError(`${name}: several columns are named ${listNames(twice)}: rename all but one`);
  }
  const own = columns.filter((column) => OWN_COLUMNS.includes(column));
  if (own.length > 0) {
    throw new UsageError(
      `${name}: the output adds ${own.length === 1 ? 'a column' : 'columns'} named ${listNames(own)} of its own: rename the manifest's`,
    );
  }
}

/** Names for a message, on one line, not more than a screen can show. */
export function listNames(names: readonly string[], most = 30): string {
  const shown = names.slice(0, most).map((name) => name.replace(/\s+/g, ' '));
  return names.length > most ? `${shown.join(', ')} and ${names.length - most} more` : shown.join(', ');
}

function unique(names: readonly string[]): string[] {
  return [...new Set(names)];
}
