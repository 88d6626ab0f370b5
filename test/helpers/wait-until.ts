import { setTimeout as delay } from 'node:timers/promises';

/** For `vi.waitFor`: no test is about how long it takes, and machines are shared and slow. */
export const soon = { timeout: 60_000, interval: 10 };

/** Waits until the condition holds; fails with `what` after the deadline. */
export async function waitUntil(
  what: string,
  condition: () => boolean | Promise<boolean>,
  deadlineMs = 60_000,
): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await delay(20);
  }
}
