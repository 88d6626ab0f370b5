import { describe, expect, it } from 'vitest';
import { Bell } from '../../src/shared/waiting.js';

const NEVER_MS = 60_000;
const forever = new AbortController().signal;

describe('a bell', () => {
  it('wakes all who wait, and none who comes later', async () => {
    const bell = new Bell();
    const woken: number[] = [];
    const waits = [1, 2].map((who) => bell.wait(NEVER_MS, forever).then(() => woken.push(who)));
    bell.ring();
    await Promise.all(waits);
    expect(woken).toEqual([1, 2]);
    const late = bell.wait(NEVER_MS, forever).then(() => 'woken');
    const soon = new Promise((resolve) => setImmediate(resolve, 'waiting'));
    expect(await Promise.race([late, soon])).toBe('waiting');
    bell.ring();
    expect(await late).toBe('woken');
  });

  it('ends a wait when its time is over, when the signal aborts, and at once when it has aborted', async () => {
    const bell = new Bell();
    await bell.wait(1, forever);
    const ending = new AbortController();
    const wait = bell.wait(NEVER_MS, ending.signal);
    ending.abort();
    await wait;
    await bell.wait(NEVER_MS, ending.signal);
  });
});
