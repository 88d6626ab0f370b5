import { relative } from 'node:path';

/** Whole numbers as people write them: 12,345. */
export function count(value: number): string {
  return value.toLocaleString('en-US');
}

/** `1 row`, `2 rows`. */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** The parts that are not empty, as a list. */
export function listOf(parts: readonly (string | false)[]): string {
  return parts.filter((part): part is string => part !== false && part !== '').join(', ');
}

// eslint-disable-next-line no-control-regex -- control characters are what is looked for
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/g;

/** Text of a manifest or an API, made safe for a terminal and for one line. */
export function printable(text: string, longest = 200): string {
  const clean = text.replace(CONTROL, ' ');
  return clean.length <= longest ? clean : `${clean.slice(0, longest - 1)}…`;
}

/** A path or argument as a POSIX shell takes it. */
export function shellQuote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A path as a person at this folder would write it. */
export function nearPath(path: string): string {
  const near = relative(process.cwd(), path);
  return near === '' || near.startsWith('..') ? path : near;
}
