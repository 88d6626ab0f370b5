import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Notifier, sleep, startTimer } from '../../src/shared/waiting.js';

const DAY_MS = 86_400_000;

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

const waits: [string, (ms: number, done: () => void) => void][] = [
  ['a timer', startTimer],
  ['a sleep', (ms, done) => void sleep(ms).then(done)],
  [
    'a wait for a notifier',
    (ms, done) => void new Notifier().waitFor(ms, new AbortController().signal).then(done),
  ],
];

test.each(waits)('%s of 60 days, which Node.js has no timer for, ends after 60 days', async (_name, wait) => {
  const done = vi.fn();
  wait(60 * DAY_MS, done);
  await vi.advanceTimersByTimeAsync(60 * DAY_MS - 1);
  expect(done).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(1);
  expect(done).toHaveBeenCalledOnce();
});

test('one without an end never ends, and one that is over before it begins does so at once', async () => {
  const never = vi.fn();
  const stop = startTimer(Infinity, never);
  const atOnce = vi.fn();
  startTimer(-5, atOnce);
  await vi.advanceTimersByTimeAsync(1);
  expect(atOnce).toHaveBeenCalledOnce();
  await vi.advanceTimersByTimeAsync(1000 * DAY_MS);
  expect(never).not.toHaveBeenCalled();
  stop();
  expect(vi.getTimerCount()).toBe(0);
});

test('one that is stopped in its second piece does not end', async () => {
  const done = vi.fn();
  const stop = startTimer(60 * DAY_MS, done);
  await vi.advanceTimersByTimeAsync(30 * DAY_MS);
  stop();
  await vi.advanceTimersByTimeAsync(60 * DAY_MS);
  expect(done).not.toHaveBeenCalled();
});
