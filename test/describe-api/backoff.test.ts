import { expect, test } from 'vitest';
import { backoffMs } from '../../src/describe-api/backoff.js';

test.each([
  [1, 0, 500],
  [1, 1, 1000],
  [2, 0.5, 1500],
  [3, 0, 2000],
  [7, 1, 60_000],
  [7, 0, 30_000],
  [5000, 0.5, 45_000],
  [0, 1, 1000],
])('waits half to all of the doubled second: attempt %i, random %d', (attempt, random, ms) => {
  expect(backoffMs(attempt, random)).toBe(ms);
});
