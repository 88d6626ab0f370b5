import type { Job } from 'bullmq';
import type { JobQueue } from './connection.js';
import { messageOf } from '../errors.js';

/** What it means to people when BullMQ says that a job is not its worker's any more; undefined for other errors. */
export function vanishedText(error: unknown): string | undefined {
  const message = messageOf(error);
  if (message.startsWith('Missing key for job ')) {
    return (
      'jobs have gone from the queue (was Redis emptied?): what is in flight is still finished, the rest fails as ' +
      '`lost` in about a minute, and the same command takes it up'
    );
  }
  if (
    /^(Missing lock for job |Lock mismatch for job |could not renew lock for job |Job \S+ is not in the active state)/.test(
      message,
    )
  ) {
    return (
      'this process has lost hold of jobs that it works on (was Redis emptied or silent, or this machine asleep?): other workers ' +
      'may take them up, and do not submit again what has a message'
    );
  }
  return undefined;
}

/** BullMQ's word for "whoever holds the lock": without it only the holder may move an active job. */
const ANY_TOKEN = '0';

/**
 * Puts a job of a worker that is dead back to the head of its queue; whoever activates it next replaces the
 * lock that the dead one has left. May be called twice. A job that has gone elsewhere meanwhile stays there.
 * Hazard: of a worker that lives it would make a second one.
 */
export async function reclaimJob<D, R>(job: Job<D, R>): Promise<void> {
  await unlessMoved(job.moveToWait(ANY_TOKEN));
}

/** Clocks of several machines differ by so much. */
const CLOCK_SKEW_MS = 5000;

/**
 * Ends the wait of jobs that were delayed by a clock which has gone back since: they would wait for as long as it jumped.
 */
export async function promoteFromTheFuture<D, R>(queue: JobQueue<D, R>): Promise<void> {
  const latest = Date.now() + CLOCK_SKEW_MS;
  for (const job of await queue.getDelayed()) {
    if ((job.processedOn ?? job.timestamp) > latest) await unlessMoved(job.promote());
  }
}

/**
 * Awaits what is done to a job. One that has gone elsewhere meanwhile, or altogether, stays there.
 * @returns whether it was still there
 */
export async function unlessMoved(moving: Promise<unknown>): Promise<boolean> {
  try {
    await moving;
    return true;
  } catch (error) {
    if (!/^(Missing key for job|Job .* is not in the \w+ state)/.test(messageOf(error))) throw error;
    return false;
  }
}
