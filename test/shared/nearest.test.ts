import { describe, expect, test } from 'vitest';
import { nearest } from '../../src/shared/nearest.js';

describe('nearest', () => {
  test.each([
    ['outptu', 'output'],
    ['OUTPUT', 'output'],
    ['max-in-fligth', 'max-in-flight'],
    ['rat', 'rate'],
    ['raet', 'rate'],
    ['dash', 'dashboard'],
    ['max', 'max-in-flight'],
    ['pol', undefined],
    ['zzz', undefined],
    ['', undefined],
  ])('finds for %j %j', (word, found) => {
    expect(nearest(word, ['output', 'rate', 'max-in-flight', 'dashboard', 'poll-rate', 'poll-size'])).toBe(
      found,
    );
  });

  test('takes the nearest of several', () => {
    expect(nearest('rates', ['dates', 'rate', 'rates2'])).toBe('dates');
    expect(nearest('url_column', ['url-columns', 'url-column'])).toBe('url-column');
  });
});
