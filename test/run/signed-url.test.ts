import { expect, test } from 'vitest';
import { expiryOf } from '../../src/run/count-rows.js';

const AT = Date.UTC(2026, 0, 2, 3, 4, 5);

test.each([
  ['S3, version 4', 'X-Amz-Date=20260102T020405Z&X-Amz-Expires=3600&X-Amz-Signature=0', AT],
  ['S3, version 4, in small letters', 'x-amz-expires=3600&x-amz-date=20260102T020405Z', AT],
  ['S3, version 2, and CloudFront', `Expires=${AT / 1000}&Signature=0`, AT],
  ['Google Cloud Storage', 'X-Goog-Date=20260102T020405Z&X-Goog-Expires=3600', AT],
  ['Azure', 'sv=2024-01-01&se=2026-01-02T03%3A04%3A05Z&sig=0', AT],
  ['Azure, with a date alone', 'se=2026-01-02&sig=0', Date.UTC(2026, 0, 2)],
  ['no signature', `expires=${AT / 1000}`, undefined],
  ['no date', 'X-Amz-Expires=3600', undefined],
  ['a date that is none', 'X-Amz-Date=yesterday&X-Amz-Expires=3600', undefined],
  ['a number that is none', 'Expires=tomorrow&Signature=0', undefined],
  ['se that is something else', 'se=2026-01-02', undefined],
])('the expiry of a signed URL is what its parameters say: %s', (_, query, expected) => {
  expect(expiryOf(`https://images.test/a.jpg?w=20&${query}`)).toBe(expected);
});

test('a URL without parameters does not expire', () => {
  expect(expiryOf('https://images.test/expires=1/a.jpg')).toBeUndefined();
});
