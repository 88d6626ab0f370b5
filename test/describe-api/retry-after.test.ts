import { expect, test } from 'vitest';
import { retryAfterIn } from '../../src/describe-api/retry-after.js';

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
  expect(retryAfterIn({ 'retry-after': header }, NOW)).toBe(ms);
});

test.each([
  ['the finer of the two', { 'retry-after-ms': '1234', 'retry-after': '2' }, 1234],
  ['decimals', { 'retry-after-ms': '20.4' }, 21],
  ['at most 15 minutes', { 'retry-after-ms': '9999999' }, 900_000],
  ['the other where it is none', { 'retry-after-ms': 'soon', 'retry-after': '2' }, 2000],
  ['neither', {}, undefined],
])('of the headers reads %s', (_title, headers, ms) => {
  expect(retryAfterIn(headers, NOW)).toBe(ms);
});
