/**
 * Waits `ms` milliseconds or until the signal aborts, whichever is first.
 * Each image sleeps several times, so this makes no error to catch when it is cut short.
 * @returns true when the time has passed, false when the signal cut it short
 */
export function sleep(ms: number, signal?: AbortSignal): Promise<boolean> {
  return new Notifier().waitFor(ms, signal);
}

/** Node.js takes no longer ones: it would end them at once. */
const LONGEST_MS = 2 ** 31 - 1;

/**
 * Calls `done` after so many milliseconds, however long that is; never after `Infinity`.
 * @returns stops it
 */
export function startTimer(ms: number, done: () => void): () => void {
  let timer: NodeJS.Timeout | undefined;
  const wait = (leftMs: number): void => {
    const pieceMs = Math.min(leftMs, LONGEST_MS);
    timer = setTimeout(() => {
      if (leftMs > pieceMs) wait(leftMs - pieceMs);
      else done();
    }, pieceMs);
  };
  wait(Math.max(0, ms));
  return () => clearTimeout(timer);
}

const LONG_MS = 2000;

/** Waits for a task; says what for, once it takes longer than people wait without a word. */
export async function sayIfLong<T>(say: () => void, task: Promise<T>): Promise<T> {
  const stop = startTimer(LONG_MS, say);
  try {
    return await task;
  } finally {
    stop();
  }
}

/**
 * Settles like the work, or rejects as soon as the signal aborts. While Redis is away commands wait without end: the
 * signal has to end the wait for them.
 * @throws the signal's reason when it aborts first
 */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  if (signal.aborted) work.catch(() => undefined);
  signal.throwIfAborted();
  // Each poll comes by here: an AbortController of its own, whose abort makes an error with a stack, would cost more than the rest.
  let onAbort: () => void = () => undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(abortReason(signal));
    signal.addEventListener('abort', onAbort);
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/**
 * Does a task again and again, `everyMs` after the last time, until the signal aborts; that ends the wait for one that is
 * under way, too.
 * @param onError gets why a task failed
 */
export async function repeat(
  everyMs: number,
  signal: AbortSignal,
  task: () => Promise<unknown>,
  onError: (error: unknown) => void,
): Promise<void> {
  while (await sleep(everyMs, signal)) {
    try {
      await unlessAborted(task(), signal);
    } catch (error) {
      if (!signal.aborted) onError(error);
    }
  }
}

export function abortReason({ reason }: AbortSignal): Error {
  return reason instanceof Error ? reason : new Error('aborted', { cause: reason });
}

const LOOK_EVERY_MS = 1000;

/** Wakes all who wait for a change. It may be notified for every row: when nobody waits, that costs nothing. */
export class Notifier {
  readonly #waiting = new Set<() => void>();

  notify(): void {
    for (const wake of this.#waiting) wake();
  }

  /**
   * Waits until it is notified, `ms` milliseconds have passed or the signal has aborted.
   * @returns whether the time has passed
   */
  waitFor(ms: number, signal?: AbortSignal): Promise<boolean> {
    if (signal?.aborted) return Promise.resolve(false);
    return new Promise((resolve) => {
      const end = (hasPassed: boolean) => {
        stop();
        signal?.removeEventListener('abort', wake);
        this.#waiting.delete(wake);
        resolve(hasPassed);
      };
      const wake = () => end(false);
      const stop = startTimer(ms, () => end(true));
      signal?.addEventListener('abort', wake, { once: true });
      this.#waiting.add(wake);
    });
  }

  /**
   * Waits until `ready()` is true; it is asked after every change, and each second.
   * @returns false when the signal aborted first
   */
  async waitUntil(ready: () => boolean, signal: AbortSignal): Promise<boolean> {
    while (!signal.aborted) {
      if (ready()) return true;
      await this.waitFor(LOOK_EVERY_MS, signal);
    }
    return false;
  }
}

/** How many milliseconds the clock that may jump (`Date.now`) is ahead of the one that does not (`performance.now`). */
export function clockAheadMs(): number {
  return Date.now() - performance.now();
}
