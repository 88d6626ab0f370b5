import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
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
  const home = env['HOME'] ?? homedir();
  const state = env['XDG_STATE_HOME'] ?? '';
  const own = join(state.startsWith('/') ? state : join(home, '.local', 'state'), 'bulk-describe');
  const directory = path === '' ? own : resolve(path.replace(/^~(?=\/|$)/, home));
  return { kind: 'embedded', directory, label: `embedded:${directory}` };
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
