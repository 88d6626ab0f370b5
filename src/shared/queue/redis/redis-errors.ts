import { isSystemError, messageOf } from '../../errors.js';

/** Codes with which a connection fails that may succeed later. */
const PASSING_CODES = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'ETIMEDOUT',
  'EPIPE',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'EHOSTDOWN',
  'ENETUNREACH',
  'ENETDOWN',
]);

/** What ioredis says of commands that a lost connection took with it. */
const LOST =
  /^Connection is closed|^Command aborted due to connection close|Socket timeout|^Command timed out/;

/** What Redis answers in states that pass; before 7.0 a script's error has it after a dash. */
const PASSING_REPLIES: readonly (readonly [RegExp, string])[] = [
  [/(^|-)OOM /, 'Redis is out of memory (raise maxmemory)'],
  [/(^|-)LOADING /, 'Redis is loading its data'],
  [/(^|-)READONLY /, 'Redis has become a read-only replica'],
  [/(^|-)(MISCONF|NOREPLICAS) /, 'Redis accepts no writes (it cannot save its data, or misses its replicas)'],
  [/(^|-)(MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY) /, 'Redis is busy or has no primary'],
  [/^(NOAUTH|WRONGPASS) /, 'Redis refuses the password'],
  [/^EXECABORT /, 'Redis accepts no writes'],
];

/** Why a Redis operation failed, for people, if that is something that passes by itself; else undefined. */
export function passingRedisFailure(error: unknown): string | undefined {
  const message = messageOf(error);
  if (isSystemError(error) && PASSING_CODES.has(error.code)) return `Redis does not answer (${error.code})`;
  if (LOST.test(message)) return 'Redis does not answer';
  return PASSING_REPLIES.find(([pattern]) => pattern.test(message))?.[1];
}

/** Like `redis://host:6379 (ECONNREFUSED)`, the short reason of a connection failure. */
export function connectionReason(error: unknown): string {
  if (error instanceof AggregateError) return connectionReason(error.errors[0]);
  return isSystemError(error) ? error.code : messageOf(error);
}
