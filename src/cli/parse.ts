import type { ManifestFormat } from '../producer/manifest.js';
import { UsageError } from '../shared/errors.js';
import type { ListenAddress } from '../shared/http-server.js';
import { ERROR_CODES, type ErrorCode } from '../shared/jobs.js';
import type { LogLevel } from '../shared/log.js';

// How the values of options are read. Each refuses what it cannot take with a UsageError that names the flag or variable.

const HIGHEST_PORT = 65_535;

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
export const number = parser('a number of at least 0', (text) =>
  /^\d+(\.\d+)?$/.test(text) ? Number(text) : undefined,
);

/** Reads a port. */
export const port = parser(`a port up to ${HIGHEST_PORT}, or 0 for a free one`, (text) =>
  /^\d+$/.test(text) && Number(text) <= HIGHEST_PORT ? Number(text) : undefined,
);

/** Reads `50` or `50%`. */
export const percent = parser('a percentage from 0 to 100', (text) => {
  const percent = Number(text.replace(/%$/, ''));
  return /^\d+(\.\d+)?%?$/.test(text) && percent <= 100 ? percent : undefined;
});

/** Reads how many answers a model gives. */
export const choices = parser<1 | 4>('1 (one answer with four prompts) or 4 (one prompt each)', (text) =>
  ([1, 4] as const).find((known) => String(known) === text),
);

/** Reads `post` or `get`. */
export const method = oneOf(['post', 'get'], 'post or get');

/** Reads the format of a manifest. @throws {UsageError} */
export const format = oneOf(['csv', 'tsv', 'jsonl', 'list'] satisfies ManifestFormat[]);

/** Reads how a 429 of the simulator says when to come again. @throws {UsageError} */
export const retryAfter = oneOf(['seconds', 'date', 'none']);

/** Reads a level to log at. The logger, which knows them, is loaded for those who log alone. @throws {UsageError} */
export async function logLevel(text: string, source: string): Promise<LogLevel> {
  const { LOG_LEVELS } = await import('../shared/log.js');
  return oneOf(LOG_LEVELS)(text, source);
}

/** Reads what separates the cells of a .csv. @throws {UsageError} */
export async function delimiter(text: string): Promise<string> {
  return (await import('../producer/manifest.js')).parseDelimiter(text);
}

/** Reads `127.0.0.1:8787`. @throws {UsageError} */
export async function address(text: string, source: string): Promise<ListenAddress> {
  return (await import('../webhook/receiver.js')).parseListenAddress(text, source);
}

/** Reads what the path of webhooks is made from. @throws {UsageError} */
export async function secret(text: string, source: string): Promise<string> {
  const { checkSecret } = await import('../webhook/callback-keys.js');
  return checkSecret(text, source);
}

/** Reads the port of `--dashboard`, which may be left away; then the dashboard has its own default. @throws {UsageError} */
export function dashboardPort(text: string, source: string): { readonly port: number | undefined } {
  return { port: text === '' ? undefined : port(text, source) };
}

/** Reads `invalid-url,rejected`. @throws {UsageError} */
export function codes(text: string, source: string): ErrorCode[] {
  return text.split(',').map((part) => {
    const code = ERROR_CODES.find((known) => known === part.trim());
    if (code !== undefined) return code;
    throw new UsageError(`${source} ${part.trim()}: expected codes among ${ERROR_CODES.join(', ')}`);
  });
}
