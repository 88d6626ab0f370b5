import { expect, test } from 'vitest';
import { limitsWarning } from '../../src/cli/settings.js';
import { DEFAULT_LIMITS } from '../../src/shared/limits.js';

const limits = {
  ...DEFAULT_LIMITS,
  rate: { count: 10, perMs: 1000 },
  pollRate: { count: 1, perMs: 1000 },
};

test('a poll rate below the rate is warned of where messages are polled', () => {
  expect(limitsWarning(limits, { dialect: 'legnext' })).toContain('--poll-rate is lower than --rate');
  expect(limitsWarning({ ...limits, pollRate: limits.rate }, { dialect: 'legnext' })).toBeUndefined();
});

test.each([
  { dialect: 'openai' },
  { api: 'https://api.openai.com/v1' },
  { api: 'simulator', dialect: 'openai' },
])('of %o it is not, since nothing is polled there', (api) => {
  expect(limitsWarning(limits, api)).toBeUndefined();
});
