import { startTimer } from './timer.js';

/**
 * Waits `ms` milliseconds or until the signal aborts, whichever is first.
 * Each image sleeps several times, so this makes no error to catch when it is cut short.
 * @returns true when the time has passed, false when the signal cut it short
 */
export function sleep(ms: number, signal?: AbortSignal): Promise<boolean> {
  if (signal?.aborted) return Promise.resolve(false);
  return new Promise((resolve) => {
    const cutShort = () => {
      stop();
      resolve(false);
    };
    const stop = startTimer(ms, () => {
      signal?.removeEventListener('abort', cutShort);
      resolve(true);
    });
    signal?.addEventListener('abort', cutShort, { once: true });
  });
}
