import { expect, test } from 'vitest';
import { retryAfterToMs } from '../../src/describe-api/retry-after.js';

const NOW = Date.parse('2024-03-01T12:00:00Z');

test.each([
  ['seconds', '7', 7000],
  ['zero', '0', 0],
  ['decimals', '1.5', 1500],
  ['white space around', ' 3 ', 3000],
  ['more than 15 minutes', '3600', 900_000],
  ['absurdly many', '9'.repeat(400), 900_000],
  ['an HTTP date', 'Fri, 01 Mar 2024 12:00:30 GMT', 30_000],
  ['an HTTP date in the past', 'Fri, 01 Mar 2024 11:00:00 GMT', 0],
  ['an HTTP date far ahead', 'Sat, 02 Mar 2024 12:00:00 GMT', 900_000],
  ['the RFC 850 form', 'Friday, 01-Mar-24 12:00:10 GMT', 10_000],
  ['the asctime form, which is GMT', 'Fri Mar  1 12:00:20 2024', 20_000],
  ['negative', '-5', undefined],
  ['garbage', 'soon', undefined],
  ['numbers that are no seconds', '1e3', undefined],
  ['a weekday with garbage', 'Fri, 99 Foo 2024 12:00:30 GMT', undefined],
  ['empty', '', undefined],
  ['no header', undefined, undefined],
])('reads %s', (_title, header, ms) => {
  expect(retryAfterToMs(header, NOW)).toBe(ms);
});
