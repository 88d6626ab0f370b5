import { parseArgs } from 'node:util';
import { UsageError } from '../shared/errors.js';
import { nearest } from '../shared/nearest.js';

/** A command's flag: what it takes, and the variable that stands in for it. */
export interface Flag {
  /** optional: a value may follow after `=`, and only there. */
  readonly takes: 'value' | 'nothing' | 'optional';
  readonly short?: string;
  readonly env?: string;
}

export type FlagTable = Readonly<Record<string, Flag>>;

/** A command line taken apart. Values from the environment are filled in where no flag was given. */
export class ParsedFlags<Table extends FlagTable> {
  constructor(
    readonly positionals: readonly string[],
    private readonly values: ReadonlyMap<string, string>,
    /** Flags that were typed, as opposed to read from the environment. */
    private readonly typed: ReadonlySet<string>,
    private readonly table: Table,
  ) {}

  get(name: keyof Table & string): string | undefined {
    return this.values.get(name);
  }

  has(name: keyof Table & string): boolean {
    return this.values.has(name);
  }

  /** How to name the value's source in a message: the flag, or the variable it came from. */
  source(name: keyof Table & string): string {
    return this.typed.has(name) ? `--${name}` : (this.table[name]?.env ?? `--${name}`);
  }

  /** Reads a whole number of at least `min`. */
  integer(name: keyof Table & string, min: number): number | undefined {
    const text = this.values.get(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < min) {
      throw new UsageError(`${this.source(name)} ${text}: expected a whole number of at least ${min}`);
    }
    return value;
  }
}

/**
 * Reads a command line.
 * @param command the command's name, for messages
 * @throws {UsageError} for an unknown flag (with the nearest known one), a missing or an unexpected value,
 *   a flag that is given twice, or an empty argument
 */
export function parseFlags<Table extends FlagTable>(
  command: string,
  argv: readonly string[],
  table: Table,
  env: NodeJS.ProcessEnv,
): ParsedFlags<Table> {
  const options = Object.fromEntries(
    Object.entries(table).map(([name, flag]) => [
      name,
      {
        type: flag.takes === 'value' ? ('string' as const) : ('boolean' as const),
        ...(flag.short === undefined ? {} : { short: flag.short }),
      },
    ]),
  );
  const { tokens, positionals } = parseArgs({
    args: [...argv],
    options,
    strict: false,
    tokens: true,
    allowPositionals: true,
  });
  if (positionals.includes('')) {
    throw new UsageError(
      `an argument of ${command} is empty: is it a variable of the shell that is not set?`,
    );
  }
  const values = new Map<string, string>();
  for (const token of tokens) {
    if (token.kind !== 'option') continue;
    const flag = Object.hasOwn(table, token.name) ? table[token.name] : undefined;
    if (flag === undefined) throw unknownFlag(command, token.rawName, Object.keys(table));
    if (values.has(token.name)) throw new UsageError(`--${token.name} is given twice: give it once`);
    // A forgotten value must not make the next flag its value: `-o --dry-run` would pay.
    const isNextFlag = token.value !== undefined && !token.inlineValue && isFlag(token.value, table);
    values.set(token.name, readValue(token.name, flag, isNextFlag ? undefined : token.value));
  }
  const typed = new Set(values.keys());
  for (const [name, flag] of Object.entries(table)) {
    const value = flag.env === undefined ? undefined : env[flag.env];
    if (value !== undefined && value !== '' && !values.has(name)) values.set(name, value);
  }
  return new ParsedFlags<Table>(positionals, values, typed, table);
}

function isFlag(text: string, table: FlagTable): boolean {
  if (text.startsWith('--')) return Object.hasOwn(table, text.slice(2).split('=')[0] ?? '');
  return Object.values(table).some(({ short }) => short !== undefined && text === `-${short}`);
}

function readValue(name: string, flag: Flag, value: string | undefined): string {
  if (flag.takes === 'nothing') {
    if (value !== undefined) throw new UsageError(`--${name} takes no value: leave =${value} away`);
    return 'true';
  }
  if (flag.takes === 'optional' && value === undefined) return '';
  if (value === undefined || value === '') throw new UsageError(`--${name} needs a value`);
  return value;
}

function unknownFlag(command: string, given: string, known: readonly string[]): UsageError {
  if (given === '--token') {
    return new UsageError(
      'there is no --token, since arguments are visible to other users: use --token-file <path> or DESCRIBE_API_TOKEN',
    );
  }
  const near = nearest(given.replace(/^-+/, ''), known);
  const hint = near === undefined ? `see \`bulk-describe ${command} --help\`` : `did you mean --${near}?`;
  return new UsageError(`unknown flag ${given}: ${hint}`);
}
