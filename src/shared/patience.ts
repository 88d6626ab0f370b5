import { sleep } from './sleep.js';

const LOOK_EVERY_MS = 100;

/**
 * Waits for something that may never be done, as long as that is worth while.
 * @param isDone aborts when it is done
 * @param isHopeful whether to go on after so many milliseconds; asked ten times a second
 */
export async function outOfPatience(
  isDone: AbortSignal,
  isHopeful: (waitedMs: number) => boolean,
): Promise<void> {
  const startedAt = performance.now();
  while (isHopeful(performance.now() - startedAt)) {
    if (!(await sleep(LOOK_EVERY_MS, isDone))) return;
  }
}
