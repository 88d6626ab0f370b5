import { createReadStream } from 'node:fs';
import type { ManifestFormat } from '../producer/manifest.js';
import { UsageError, messageOf } from '../shared/errors.js';
import type { ListenAddress } from '../shared/http-server.js';
import type { LogLevel } from '../shared/log.js';
import { ERROR_CODES, type ErrorCode } from '../shared/jobs.js';

const MOST_BYTES = 64 * 1024;
const HIGHEST_PORT = 65_535;

export interface OptionSpec {
  /** As commander takes them. A value in brackets follows after `=`, and only there. */
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
  /** Reads the text. `source` is the flag or the variable that it comes from, for the message. */
  readonly parse?: (text: string, source: string) => unknown;
}

type More = Omit<OptionSpec, 'flags' | 'about'>;

export function option<const F extends string>(flags: F, about: string): { flags: F; about: string };
export function option<const F extends string, M extends More>(
  flags: F,
  about: string,
  more: M,
): { flags: F; about: string } & M;
export function option(flags: string, about: string, more?: More): OptionSpec {
  return { flags, about, ...more };
}

type Parse<T> = (text: string, source: string) => T;

/** A parser that throws a UsageError with what is expected where `read` gives nothing. */
function parser<T>(expected: string, read: (text: string) => T | undefined): Parse<T> {
  return (text, source) => {
    const value = read(text);
    if (value !== undefined) return value;
    throw new UsageError(`${source} ${text}: expected ${expected}`);
  };
}

/** Reads a whole number of at least `min`. */
export function integer(min: number): Parse<number> {
  return parser(`a whole number of at least ${min}`, (text) => {
    const value = Number(text);
    return /^\d+$/.test(text) && Number.isSafeInteger(value) && value >= min ? value : undefined;
  });
}

/** Reads one of a few names. */
export function oneOf<const T extends string>(
  choices: readonly T[],
  expected = `one of ${choices.join(', ')}`,
): Parse<T> {
  return parser(expected, (text) => choices.find((known) => known === text));
}

/** Reads a number of at least 0. */
export const parseNumber = parser('a number of at least 0', (text) =>
  /^\d+(\.\d+)?$/.test(text) ? Number(text) : undefined,
);

/** Reads a port. */
export const parsePort = parser(`a port up to ${HIGHEST_PORT}, or 0 for a free one`, (text) =>
  /^\d+$/.test(text) && Number(text) <= HIGHEST_PORT ? Number(text) : undefined,
);

/** Reads `50` or `50%`. */
export const parsePercent = parser('a percentage from 0 to 100', (text) => {
  const percent = Number(text.replace(/%$/, ''));
  return /^\d+(\.\d+)?%?$/.test(text) && percent <= 100 ? percent : undefined;
});

/** Reads how many answers a model gives. */
export const parseChoices = parser<1 | 4>('1 (one answer with four prompts) or 4 (one prompt each)', (text) =>
  ([1, 4] as const).find((known) => String(known) === text),
);

/** Reads `post` or `get`. */
export const parseMethod = oneOf(['post', 'get'], 'post or get');

/** Reads the format of a manifest. @throws {UsageError} */
export const parseFormat = oneOf(['csv', 'tsv', 'jsonl', 'list'] satisfies ManifestFormat[]);

/** Reads how a 429 of the simulator says when to come again. @throws {UsageError} */
export const parseRetryAfter = oneOf(['seconds', 'date', 'none']);

/** Reads a level to log at. The logger, which knows them, is loaded for those who log alone. @throws {UsageError} */
export async function parseLogLevel(text: string, source: string): Promise<LogLevel> {
  const { LOG_LEVELS } = await import('../shared/log.js');
  return oneOf(LOG_LEVELS)(text, source);
}

/** Reads what separates the cells of a .csv. @throws {UsageError} */
export async function parseDelimiter(text: string): Promise<string> {
  return (await import('../producer/manifest.js')).parseDelimiter(text);
}

/** Reads `127.0.0.1:8787`. @throws {UsageError} */
export async function parseAddress(text: string, source: string): Promise<ListenAddress> {
  return (await import('../webhook/receiver.js')).parseListenAddress(text, source);
}

/** Reads what the path of webhooks is made from. @throws {UsageError} */
export async function parseSecret(text: string, source: string): Promise<string> {
  const { checkSecret } = await import('../webhook/callback-keys.js');
  return checkSecret(text, source);
}

/**
 * The text of a small file that a flag names, without space around it. It may be a pipe.
 * @param source the flag and the path
 * @throws {UsageError} when it cannot be read, or goes on beyond 64 KB
 */
export async function readSmallFile(path: string, source: string): Promise<string> {
  const { text } = await import('node:stream/consumers');
  const content = await text(createReadStream(path, { end: MOST_BYTES })).catch((error: unknown) => {
    throw new UsageError(`${source} cannot be read: ${messageOf(error)}`);
  });
  if (Buffer.byteLength(content) <= MOST_BYTES) return content.trim();
  throw new UsageError(`${source} is larger than 64 KB: is it the right file?`);
}

/** Reads the port of `--dashboard`, which may be left away; then the dashboard has its own default. @throws {UsageError} */
export function parseDashboardPort(text: string, source: string): { readonly port: number | undefined } {
  return { port: text === '' ? undefined : parsePort(text, source) };
}

/** Reads `invalid-url,rejected`. @throws {UsageError} */
export function parseCodes(text: string, source: string): ErrorCode[] {
  return text.split(',').map((part) => {
    const code = ERROR_CODES.find((known) => known === part.trim());
    if (code !== undefined) return code;
    throw new UsageError(`${source} ${part.trim()}: expected codes among ${ERROR_CODES.join(', ')}`);
  });
}
