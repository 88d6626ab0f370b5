import fc from 'fast-check';
import { expect, test } from 'vitest';
import { imageHash } from '../../src/producer/image-url.js';
import { hashOfImage } from '../../src/shared/hash-table.js';

test('an image is indexed by the first 64 bits of its hash', () => {
  fc.assert(
    fc.property(fc.webUrl(), (url) => {
      const image = imageHash(url);
      const bytes = Buffer.from(image, 'base64url');
      expect(hashOfImage(image)).toEqual({ high: bytes.readUInt32BE(0), low: bytes.readUInt32BE(4) });
    }),
  );
});
