import { expect, test } from 'vitest';
import { VanishedJobs } from '../../src/shared/queue/job-machinery.js';

function setUp() {
  const told: string[] = [];
  const clock = { now: 0 };
  const vanished = new VanishedJobs(
    (text) => told.push(text),
    () => clock.now,
  );
  return { told, clock, note: (message: string) => vanished.note(new Error(message)) };
}

test.each([
  ['Missing key for job r.1. moveToFinished', /^jobs have gone from the queue/],
  ['Missing lock for job r.1. moveToFinished', /^this process has lost hold of jobs/],
  ['Lock mismatch for job r.1. Cmd moveToFinished from active', /^this process has lost hold/],
  ['could not renew lock for job r.1', /^this process has lost hold/],
  ['Job r.1 is not in the active state. moveToWait', /^this process has lost hold/],
])('%s is told to people', (message, expected) => {
  const { told, note } = setUp();
  expect(note(message)).toBe(true);
  expect(told).toEqual([expect.stringMatching(expected)]);
  expect(told[0]).not.toContain('\n');
});

test.each(['Connection is closed.', 'NOPERM no', 'Missing key for parent job x. addJob'])(
  '%s is not about such a job',
  (message) => {
    const { told, note } = setUp();
    expect([note(message), told]).toEqual([false, []]);
  },
);

test('however many vanish, it is told once for each kind, and again after a minute without any', () => {
  const { told, clock, note } = setUp();
  for (let i = 0; i < 100; i++) {
    expect(note(`Missing key for job r.${i}. moveToFinished`)).toBe(true);
    expect(note(`could not renew lock for job r.${i}`)).toBe(true);
    clock.now += 50_000;
  }
  expect(told).toHaveLength(2);
  clock.now += 61_000;
  note('Missing key for job r.0. moveToFinished');
  expect(told).toHaveLength(3);
});
