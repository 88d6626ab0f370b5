import { UsageError } from '../shared/errors.js';
import type { Dialect } from './dialects/dialect.js';

/** What every call bears beside what its dialect says. */
export interface CallHeaders {
  /** Where the token is: `bearer`, or the name of a header that holds it alone; the dialect's own header unless it is given. */
  readonly authHeader?: string | undefined;
  /** More headers of each call, by their names. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** More of them, whose values are secrets: no error shows them. */
  readonly secretHeaders?: Readonly<Record<string, string>> | undefined;
}

const NAME = /^[!#$%&'*+.^_`|~\w-]+$/;
const VALUE = /^[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?$/;

/** What HTTP, or the client, decides. */
const NOT_YOURS: ReadonlySet<string> = new Set(
  (
    'accept accept-encoding connection content-encoding content-length content-type expect host keep-alive ' +
    'proxy-authorization te trailer transfer-encoding upgrade'
  ).split(' '),
);

/**
 * The headers of each call, by their names in lower case: what it accepts, the token's, and those that are given.
 * @throws {UsageError} for a name or value that cannot be, and a header that is there twice
 */
export function callHeaders(
  dialect: Pick<Dialect, 'credentials'>,
  token: string | undefined,
  { authHeader, headers = {}, secretHeaders = {} }: CallHeaders,
): Record<string, string> {
  if (authHeader !== undefined) checkName('--auth-header', authHeader);
  const all: Record<string, string> = { accept: 'application/json' };
  const add = (source: string, given: Readonly<Record<string, string>>) => {
    for (const [name, value] of Object.entries(given)) {
      checkName(source, name);
      // The value is not shown: it may be a secret.
      if (!VALUE.test(value)) throw new UsageError(`${source} ${name}: a header cannot have this value`);
      if (Object.hasOwn(all, name.toLowerCase()))
        throw new UsageError(`${source} ${name}: this header is there twice, or holds the token already`);
      all[name.toLowerCase()] = value;
    }
  };
  if (token) add('--auth-header', credentials(dialect, token, authHeader));
  add('--header', headers);
  add('--header-file', secretHeaders);
  return all;
}

function credentials(
  dialect: Pick<Dialect, 'credentials'>,
  token: string,
  authHeader: string | undefined,
): Record<string, string> {
  if (authHeader !== undefined && authHeader.toLowerCase() !== 'bearer') return { [authHeader]: token };
  const own = authHeader === undefined ? dialect.credentials?.(token) : undefined;
  return own ?? { authorization: `Bearer ${token}` };
}

function checkName(source: string, name: string): void {
  if (!NAME.test(name)) throw new UsageError(`${source}: ${JSON.stringify(name)} is no name of a header`);
  if (NOT_YOURS.has(name.toLowerCase()))
    throw new UsageError(`${source} ${name}: this header is not yours to set: leave it away`);
}

/** What of the headers and the query of a base URL is never to be shown, beside the token. */
export function secretsIn({ secretHeaders = {} }: CallHeaders, query: URLSearchParams): string[] {
  const ofHeaders = Object.values(secretHeaders).flatMap((value) => [value, value.replace(/^\w+\s+/, '')]);
  const ofQuery = [...query].flatMap(([name, value]) => (SECRET_PARAMETER.test(name) ? [value] : []));
  return [...ofHeaders, ...ofQuery].filter((value) => value.length >= SHORTEST_SECRET);
}

const SECRET_PARAMETER = /key|token|secret|sig|auth|password|code/i;
/** What is shorter is in every text, and is none. */
const SHORTEST_SECRET = 4;
