import { basename, dirname, join } from 'node:path';
import { UsageError } from '../shared/errors.js';

/** What stands for the date in an output's name. */
export const DATE = '{date}';

/** Whether an output's name begins a new file each day. */
export function isDated(output: string): boolean {
  return output.includes(DATE);
}

/**
 * Checks the output of a schedule.
 * @throws {UsageError} when the date is in a folder's name, or there twice
 */
export function checkDatedOutput(output: string): void {
  if (!isDated(output)) return;
  const inName = basename(output).split(DATE).length - 1;
  if (inName === 1 && !isDated(dirname(output))) return;
  throw new UsageError(
    `-o ${output}: ${DATE} can be there once, in the file's name, since the files of all nights are looked for in one folder`,
  );
}

/**
 * The day in a time zone, as YYYY-MM-DD.
 * @param atMs epoch milliseconds
 * @param timeZone an IANA name such as `Europe/Prague`
 */
export function localDate(atMs: number, timeZone: string): string {
  const format = new Intl.DateTimeFormat('en-u-ca-gregory-nu-latn', {
    timeZone,
    year: 'numeric',
    month: '2-digit',
    day: '2-digit',
  });
  const parts = new Map(format.formatToParts(atMs).map(({ type, value }) => [type, value]));
  return [parts.get('year'), parts.get('month'), parts.get('day')].join('-');
}

/** An output's name with its date. */
export function datedOutput(pattern: string, date: string): string {
  return pattern.replace(DATE, date);
}

/**
 * Of the files in an output's folder, those that are the same output with another date.
 * @param own the name of the one that is written now
 * @returns names in the order of their dates
 */
export function otherDates(pattern: string, own: string, names: readonly string[]): string[] {
  const [before = '', after = ''] = basename(pattern).split(DATE);
  return names
    .filter((name) => name !== basename(own) && name.startsWith(before) && name.endsWith(after))
    .filter((name) => isDate(name.slice(before.length, name.length - after.length)))
    .sort();
}

/** The files beside an output by their paths. */
export function besideOutput(output: string, names: readonly string[]): string[] {
  return names.map((name) => join(dirname(output), name));
}

function isDate(text: string): boolean {
  if (!/^\d{4}-\d\d-\d\d$/.test(text)) return false;
  const at = new Date(`${text}T00:00:00Z`);
  return !Number.isNaN(at.getTime()) && at.toISOString().startsWith(text);
}
