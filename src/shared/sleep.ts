import { setTimeout as delay } from 'node:timers/promises';

/**
 * Waits `ms` milliseconds or until the signal aborts, whichever is first.
 * @returns true when the time has passed, false when the signal cut it short
 */
export async function sleep(ms: number, signal?: AbortSignal): Promise<boolean> {
  if (signal?.aborted) return false;
  try {
    await delay(Math.max(0, ms), undefined, { signal });
    return true;
  } catch (error) {
    if (signal?.aborted) return false;
    throw error;
  }
}
