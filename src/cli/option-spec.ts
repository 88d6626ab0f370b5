import { createReadStream } from 'node:fs';
import { UsageError, fileTrouble, shownPath } from '../shared/errors.js';
import { parseDuration, parseRate } from '../shared/limits.js';
import { ERROR_CODES } from '../shared/jobs.js';
import { parseJson } from '../shared/parse-json.js';
import { FAILURE_KINDS, type FailureShares } from '../simulator/options.js';
import { alternatives } from './text.js';

export interface OptionSpec {
  readonly flags: string;
  readonly about: string;
  /** The variable that stands in for it; of an option that names a file, the variable holds what would be in the file. */
  readonly env?: string;
  /** Of an option that names a small file, whose content is its value: what to put into it. */
  readonly file?: string;
  /** The key of another option that it cannot be without, and how to say so. */
  readonly needs?: { readonly name: string; readonly text: string };
  /** What holds without it, for people; the code that uses the value has the default itself. */
  readonly default?: string;
  /** It may be given several times; `parse` gets a line for each. */
  readonly isRepeatable?: boolean;
  /** Its value is not shown. */
  readonly isSecret?: boolean;
  /** It is said for one call, and is no key of a configuration file. */
  readonly onlyTyped?: boolean;
  readonly parse?: Parser;
}

interface Parser {
  (text: string, source: string): unknown;
  /** All that it takes, where these are few words. */
  readonly choices?: readonly string[];
}

/** An option. */
export function option<const F extends string, const M extends Omit<OptionSpec, 'flags' | 'about'> = object>(
  flags: F,
  about: string,
  more?: M,
) {
  return Object.assign({ flags, about }, more);
}

export const SCHEDULES = ['schedule add', 'schedule list', 'schedule run', 'schedule remove'] as const;
export const SERVICE = [
  'worker',
  'serve',
  'enqueue',
  'status',
  'retry',
  'cancel',
  'dashboard',
  'webhook',
] as const;
export const COMMANDS = [
  'run',
  'plan',
  'verify',
  'reparse',
  'export',
  'report',
  'simulate',
  ...SERVICE,
  ...SCHEDULES,
] as const;

/** The commands that have options, in files too; `config` and `completion` are about these. */
export type CommandName = (typeof COMMANDS)[number] | 'config' | 'completion';

/** The commands whose options one takes: `plan` stands in the place of `run`, whatever that was given. */
export function takesOptionsOf(command: CommandName): readonly CommandName[] {
  return command === 'plan' ? ['run', 'plan'] : [command];
}

/** The long name among an option's flags, with its dashes. */
export function longFlag(text: string): string {
  return /--[\w-]+/.exec(text)?.[0] ?? text;
}

/** Options under one heading, and the commands that take them. */
export function group<
  const Command extends CommandName,
  const Options extends Readonly<Record<string, OptionSpec>>,
>(heading: string, commands: readonly Command[], options: Options) {
  return { heading, commands, options };
}

// How the values of options are read. Each refuses what it cannot take with a UsageError that names the flag or variable.

const MOST_FILE_BYTES = 64 * 1024;

type Parse<T> = (text: string, source: string) => T;

/** A parser that says what is expected where `read` gives nothing. */
function parser<T>(expected: string, read: (text: string) => T | undefined): Parse<T> {
  return (text, source) => {
    const value = read(text);
    if (value !== undefined) return value;
    throw new UsageError(`${source} ${text}: expected ${expected}`);
  };
}

export function integer(min: number): Parse<number> {
  return parser(`a whole number of at least ${min}`, (text) => {
    const value = Number(text);
    return /^\d+$/.test(text) && Number.isSafeInteger(value) && value >= min ? value : undefined;
  });
}

export function oneOf<const T extends string>(choices: readonly T[]) {
  const parse = parser(alternatives(choices), (text) => choices.find((known) => known === text));
  return Object.assign(parse, { choices });
}

/** Who uses it refuses others, with the nearest one. */
export const dialect = Object.assign((text: string) => text, {
  choices: ['thenextleg', 'imaginepro', 'legnext', 'openai', 'mj'],
});

export const number = parser('a number of at least 0', readNumber);

export const positive = parser('a number above 0', (text) => readNumber(text) || undefined);

export const port = parser('a port up to 65535, or 0 for a free one', (text) =>
  /^\d+$/.test(text) && Number(text) <= 65_535 ? Number(text) : undefined,
);

function readNumber(text: string): number | undefined {
  return /^\d+(\.\d+)?$/.test(text) ? Number(text) : undefined;
}

const UNITS: Readonly<Record<string, number>> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 };

/** Reads `20MB`, `500k` or a number of bytes, up to 1 GB. */
export const bytes = parser('a size up to 1GB, such as 20MB', (text) => {
  const [, count = '', unit = ''] = /^(\d+)\s*([kmg]?)(?:i?b)?$/i.exec(text) ?? [];
  const value = Number(count) * (UNITS[unit.toLowerCase()] ?? NaN);
  return value >= 1 && value <= 1024 ** 3 ? value : undefined;
});

/** Reads `50` or `50%`. */
export const percent = parser('a percentage from 0 to 100', (text) => {
  const percent = readNumber(text.replace(/%$/, '')) ?? NaN;
  return percent <= 100 ? percent : undefined;
});

/** Reads how many answers a model gives. */
export const choices = parser<1 | 4>('1 (one answer with four prompts) or 4 (one prompt each)', (text) =>
  ([1, 4] as const).find((known) => String(known) === text),
);

/** Reads lines of `temperature=0.2`: values are JSON, or texts where they are none. */
export const parameters = (text: string, source: string) =>
  Object.fromEntries(
    text.split('\n').map((line): [string, unknown] => {
      const [, name, value] = /^([\w.-]+)=(.*)$/s.exec(line) ?? [];
      if (name === undefined || value === undefined)
        throw new UsageError(`${source} ${line}: expected name=value, such as temperature=0.2`);
      return [name, parseJson(value) ?? value];
    }),
  );

/** Reads lines of `name=value`, each a header. */
export const headers = (text: string, source: string) =>
  headersIn(
    text.split('\n'),
    /^([^=]+)=(.*)$/,
    () => `${source}: expected name=value, such as OpenAI-Project=proj_1`,
  );

/** Reads the lines of a file with a header each: `name: value`. */
export const secretHeaders = (text: string, source: string) =>
  headersIn(
    text.split(/\r?\n/).filter((line) => line.trim() !== ''),
    /^([^:]+):(.*)$/,
    (line) => `${source}: line ${line}: expected name: value`,
  );

/** @param expected says what a line is to be; the line itself may be a secret */
function headersIn(lines: readonly string[], pattern: RegExp, expected: (line: number) => string) {
  const found = new Map<string, string>();
  for (const [index, line] of lines.entries()) {
    const [, name, value] = pattern.exec(line.trim()) ?? [];
    if (name === undefined || value === undefined || value.trim() === '')
      throw new UsageError(expected(index + 1));
    if (found.has(name.trim())) throw new UsageError(`${expected(index + 1)}; this name is there twice`);
    found.set(name.trim(), value.trim());
  }
  return Object.fromEntries(found);
}

const failure = parser(`<kind>=<0 to 1>, with a kind of ${FAILURE_KINDS.join(', ')}`, (text) => {
  const [name = '', value = ''] = text.split('=');
  const kind = FAILURE_KINDS.find((known) => known === name.trim());
  const share = value === '' ? NaN : Number(value);
  return kind !== undefined && share >= 0 && share <= 1 ? ([kind, share] as const) : undefined;
});

/** Reads `reject=0.1,http500=0.05`: how often to fail in which way. */
export const failures = (text: string, source: string): FailureShares =>
  Object.fromEntries(text.split(',').map((part) => failure(part, source)));

const code = parser(`codes among ${ERROR_CODES.join(', ')}`, (text) =>
  ERROR_CODES.find((known) => known === text),
);

/** Reads `invalid-url,rejected`. */
const codes = (text: string, source: string) => text.split(',').map((part) => code(part.trim(), source));

/** Reads `id,url`. */
const columns = (text: string) => text.split(',').map((name) => name.trim());

// What others know how to read is loaded for those who give it.

export const delimiter = async (text: string) =>
  (await import('../producer/manifest.js')).parseDelimiter(text);

export const encoding = async (text: string) =>
  (await import('../producer/manifest-source.js')).parseEncoding(text);

const address = async (text: string, source: string) =>
  (await import('../webhook/receiver.js')).parseListenAddress(text, source);

export const publicUrl = async (text: string, source: string) =>
  (await import('../run/api-options.js')).checkPublicUrl(text, source);

export const pingUrl = async (text: string, source: string) =>
  (await import('../service/ping.js')).checkPingUrl(text, source);

export const secret = async (text: string, source: string) =>
  (await import('../webhook/callback-keys.js')).checkSecret(text, source);

/**
 * The text of a small file that a flag names. It may be a pipe.
 * @param source the flag and the path
 * @throws {UsageError} when it cannot be read, or goes on beyond 64 KB
 */
export async function readSmallFile(path: string, source: string): Promise<string> {
  const { text } = await import('node:stream/consumers');
  const content = await text(createReadStream(path, { end: MOST_FILE_BYTES })).catch((error: unknown) => {
    throw new UsageError(`${shownPath(source)} cannot be read: ${fileTrouble(error)}`);
  });
  if (Buffer.byteLength(content) <= MOST_FILE_BYTES) return content;
  throw new UsageError(`${source} is larger than 64 KB: is it the right file?`);
}

const PARSERS = {
  n: integer(1),
  duration: parseDuration,
  'n/duration': parseRate,
  amount: number,
  'host:port': address,
  'name,...': columns,
  'column,...': columns,
  'code,...': codes,
} as const;

/** How a value is read that has no parser of its own: what stands for it in the flags says so; other words are texts. */
export function parserOf(flags: string): Parser | undefined {
  const [, kind = ''] = /<(.*)>/.exec(flags) ?? [];
  return Object.entries<Parser>(PARSERS).find(([name]) => name === kind)?.[1];
}

/** What an option's value becomes. */
export type ValueOf<Spec> = Spec extends { parse: (text: string, source: string) => infer Value }
  ? Awaited<Value>
  : Spec extends { flags: `${string}<${infer Kind}>` }
    ? Kind extends keyof typeof PARSERS
      ? Awaited<ReturnType<(typeof PARSERS)[Kind]>>
      : string
    : boolean;
