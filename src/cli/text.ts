import { relative } from 'node:path';

/** A line each for a name and its value, in two columns; what has no value is left out. */
export function fields(
  ...entries: readonly (readonly [name: string, value: string | false | undefined])[]
): string[] {
  return entries.flatMap(([name, value]) =>
    value === undefined || value === false ? [] : [`${name.padEnd(9)} ${value}`],
  );
}

/** The parts that are not empty, as a list. */
export function listOf(parts: readonly (string | false)[]): string {
  return parts.filter((part): part is string => part !== false && part !== '').join(', ');
}

/** `add, list or remove`. */
export function alternatives(names: readonly string[]): string {
  return new Intl.ListFormat('en-GB', { type: 'disjunction' }).format(names);
}

// eslint-disable-next-line no-control-regex -- control characters are what is looked for
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/g;

/** Text of a manifest or an API, made safe for a terminal and for one line. */
export function printable(text: string, longest = 200): string {
  const clean = text.replace(CONTROL, ' ');
  return clean.length <= longest ? clean : `${clean.slice(0, longest - 1)}…`;
}

/** Writes lines to stdout; names of files and what comes from queues may be in them. */
export function print(...lines: readonly string[]): void {
  for (const line of lines) process.stdout.write(`${printable(line, Infinity)}\n`);
}

/** Writes a value to stdout on one line, as programs read it: every character is kept. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/**
 * A line in as many as a terminal of so many columns needs: broken between words, and indented below its own beginning, or
 * below its value where it begins with a name and a gap. A word that is longer than that is left as it is.
 */
export function wrapped(line: string, columns: number): string[] {
  const start = /^ *(?:\S+ {2,})?/.exec(line)?.[0] ?? '';
  const indent = start.trim() === '' ? start.length + 2 : start.length;
  const padding = ' '.repeat(Math.min(indent, Math.floor(columns / 3)));
  const lines: string[] = [];
  let rest = line;
  while (rest.length > columns) {
    const before = lines.length === 0 ? start.length : padding.length;
    const end = rest.lastIndexOf(' ', columns);
    if (end <= before) break;
    lines.push(rest.slice(0, end));
    rest = padding + rest.slice(end + 1);
  }
  return [...lines, rest];
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

/** An argument as it is shown to people: a queue's URL without its password, which would stay in logs. */
export function withoutPassword(argument: string): string {
  return argument.replace(
    /^((?:--queue=)?rediss?:\/\/)([^:@/]*):.*@/,
    (_, start: string, user: string) => start + (user === '' ? '' : `${user}@`),
  );
}

/** What is said behind a command that is shown without a password that was typed; empty where none was. */
export function passwordNote(args: readonly string[]): string {
  const isHidden = args.some((argument) => withoutPassword(argument) !== argument);
  return isHidden ? '    (the password of --queue is left out here: put it in, or set QUEUE_URL)' : '';
}
