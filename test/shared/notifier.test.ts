import { describe, expect, test } from 'vitest';
import { Notifier } from '../../src/shared/waiting.js';

const NEVER_MS = 60_000;
const forever = new AbortController().signal;

describe('a notifier', () => {
  test('wakes all who wait, and none who comes later', async () => {
    const notifier = new Notifier();
    const woken: number[] = [];
    const waits = [1, 2].map((who) => notifier.waitFor(NEVER_MS, forever).then(() => woken.push(who)));
    notifier.notify();
    await Promise.all(waits);
    expect(woken).toEqual([1, 2]);
    const late = notifier.waitFor(NEVER_MS, forever).then(() => 'woken');
    const soon = new Promise((resolve) => setImmediate(resolve, 'waiting'));
    expect(await Promise.race([late, soon])).toBe('waiting');
    notifier.notify();
    expect(await late).toBe('woken');
  });

  test('ends a wait when its time is over, when the signal aborts, and at once when it has aborted', async () => {
    const notifier = new Notifier();
    await notifier.waitFor(1, forever);
    const ending = new AbortController();
    const wait = notifier.waitFor(NEVER_MS, ending.signal);
    ending.abort();
    await wait;
    await notifier.waitFor(NEVER_MS, ending.signal);
  });
});
