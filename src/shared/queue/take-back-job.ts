import type { Job } from 'bullmq';
import { messageOf } from '../errors.js';

/** BullMQ's word for "whoever holds the lock": without it only the holder may move an active job. */
const ANY_TOKEN = '0';

/**
 * Puts a job of a worker that is dead back to the head of its queue; whoever activates it next replaces the
 * lock that the dead one has left. May be called twice. A job that has gone elsewhere meanwhile stays there.
 * Hazard: of a worker that lives it would make a second one.
 */
export async function takeBackJob<D, R>(job: Job<D, R>): Promise<void> {
  await unlessMoved(job.moveToWait(ANY_TOKEN));
}

/** Ends a delayed job's wait. One that has gone elsewhere meanwhile stays there. */
export async function promoteJob<D, R>(job: Job<D, R>): Promise<void> {
  await unlessMoved(job.promote());
}

async function unlessMoved(moving: Promise<unknown>): Promise<void> {
  try {
    await moving;
  } catch (error) {
    if (!/^(Missing key for job|Job .* is not in the \w+ state)/.test(messageOf(error))) throw error;
  }
}
