import { userInfo } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { UsageError } from '../errors.js';

/** Where a queue is: a Redis server, or a directory of this machine. `label` is for people: no password. */
export type QueueTarget =
  | { readonly kind: 'redis'; readonly url: string; readonly label: string }
  | { readonly kind: 'embedded'; readonly directory: string; readonly label: string };

const EXPECTED =
  'expected redis://[user:password@]host[:port][/db], rediss://... for TLS, embedded:<directory> or embedded:';

/**
 * Reads `--queue`. `embedded:` alone is the user's own queue, under `$XDG_STATE_HOME` or `~/.local/state`.
 * @throws {UsageError} that says what is expected; it never repeats the text, which may hold a password
 */
export function parseQueueUrl(text: string, env: NodeJS.ProcessEnv): QueueTarget {
  const trimmed = text.trim();
  if (trimmed.startsWith('embedded:')) return embeddedTarget(trimmed.slice('embedded:'.length), env);
  if (/^rediss?:\/\//.test(trimmed)) return redisTarget(trimmed);
  throw new UsageError(`--queue: ${EXPECTED}`);
}

function embeddedTarget(path: string, env: NodeJS.ProcessEnv): QueueTarget {
  if (path.startsWith('//')) throw new UsageError(`--queue: ${EXPECTED} (one colon, no slashes after it)`);
  const directory = path === '' ? ownDirectory(env) : resolve(path.replace(/^~(?=\/|$)/, () => homeOf(env)));
  return { kind: 'embedded', directory, label: `embedded:${directory}` };
}

function ownDirectory(env: NodeJS.ProcessEnv): string {
  const state = env['XDG_STATE_HOME'] ?? '';
  return join(isAbsolute(state) ? state : join(homeOf(env), '.local', 'state'), 'bulk-describe');
}

const NO_HOME =
  '--queue: there is no home folder to keep the queue in: set HOME, or name --queue embedded:<directory>';

/** @throws {UsageError} when there is none: a relative one would be another folder with each place of a start */
function homeOf(env: NodeJS.ProcessEnv): string {
  let home = env['HOME'] ?? '';
  try {
    if (home === '') home = userInfo().homedir;
  } catch (error) {
    // The system does not know its user, as in some containers.
    throw new UsageError(NO_HOME, { cause: error });
  }
  if (isAbsolute(home)) return home;
  throw new UsageError(NO_HOME);
}

function redisTarget(text: string): QueueTarget {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || url.hostname === '') throw new UsageError(`--queue: ${EXPECTED}`);
  if (!/^\/?$|^\/\d+$/.test(url.pathname)) {
    throw new UsageError(`--queue: the path of a Redis URL is the number of a database: ${EXPECTED}`);
  }
  const user = url.username === '' ? '' : `${url.username}@`;
  const port = url.port === '' ? '6379' : url.port;
  const database = /^\/0*$/.test(url.pathname) ? '' : url.pathname;
  return { kind: 'redis', url: text, label: `${url.protocol}//${user}${url.hostname}:${port}${database}` };
}
