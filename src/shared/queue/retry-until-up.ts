import { sleep } from '../sleep.js';
import { unlessAborted } from '../unless-aborted.js';
import type { QueueConnection } from './connection.js';

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 3000;

/**
 * Runs a queue operation until it succeeds, however long the queue is away, out of memory, loading or
 * read-only. The connection's `onTrouble` tells once about each such time.
 *
 * An operation may have been executed although it failed (the answer was lost): it has to be one that can
 * be done twice.
 * @param signal ends the waiting, for an operation under way too
 * @throws the operation's own error when trying again cannot help; the signal's reason when it aborts
 */
export async function retryUntilUp<T>(
  connection: Pick<QueueConnection, 'noteTrouble'>,
  operation: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
    signal?.throwIfAborted();
    try {
      return await unlessAborted(operation(), signal);
    } catch (error) {
      signal?.throwIfAborted();
      if (!connection.noteTrouble(error)) throw error;
    }
    await sleep(pauseMs, signal);
  }
}
