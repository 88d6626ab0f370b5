import { expect, test } from 'vitest';
import { vanishedText } from '../../src/shared/queue/job-moves.js';

test.each([
  ['Missing key for job r.1. moveToFinished', /^jobs have gone from the queue[^\n]*$/],
  ['Missing lock for job r.1. moveToFinished', /^this process has lost hold of jobs[^\n]*$/],
  ['Lock mismatch for job r.1. Cmd moveToFinished from active', /^this process has lost hold/],
  ['could not renew lock for job r.1', /^this process has lost hold/],
  ['Job r.1 is not in the active state. moveToWait', /^this process has lost hold/],
])('%s has a meaning for people', (message, expected) => {
  expect(vanishedText(new Error(message))).toMatch(expected);
});

test.each(['Connection is closed.', 'NOPERM no', 'Missing key for parent job x. addJob'])(
  '%s is not about a job that is gone',
  (message) => {
    expect(vanishedText(new Error(message))).toBeUndefined();
  },
);
