import fc from 'fast-check';
import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { imageHash } from '../../src/producer/image-url.js';

test('an image is called by the first 16 bytes of the sha256 of its URL, in base64url', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (url) => {
      const bytes = createHash('sha256').update(url).digest().subarray(0, 16);
      expect(imageHash(url)).toBe(bytes.toString('base64url'));
    }),
    { numRuns: 1000 },
  );
});
