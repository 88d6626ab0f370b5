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
