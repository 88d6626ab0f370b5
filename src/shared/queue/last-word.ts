import type { QueueConnection } from './connection.js';

/** What is known to be away is given this long all the same: it may just have come back. */
const AWAY_MS = 300;

/**
 * How long something that ends waits for the queue to take its last word: `ms`, or a moment where the queue is away,
 * so that a person who ends a process does not wait for a server that is not there.
 */
export function lastWordMs(connection: Pick<QueueConnection, 'isAway'>, ms: number): number {
  return connection.isAway() ? Math.min(ms, AWAY_MS) : ms;
}

/** The same as a signal that aborts then. */
export function lastWord(connection: Pick<QueueConnection, 'isAway'>, ms: number): AbortSignal {
  return AbortSignal.timeout(lastWordMs(connection, ms));
}
