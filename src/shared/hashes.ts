import { hash } from 'node:crypto';
import type { Hash64 } from './hash-table.js';

/** The six bits of each base64url digit, by its character code. */
const BITS = new Uint8Array(128);
for (const [bits, digit] of Array.from(
  'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_',
).entries()) {
  BITS[digit.charCodeAt(0)] = bits;
}

/**
 * The first 64 bits of an image's hash, which is 16 bytes of sha256 as 22 characters of base64url. Taken from the
 * characters: to have Buffer decode them takes ten times as long, and it is done four times for each row of a resumed output.
 */
export function hashOfImage(image: string): Hash64 {
  const bits = (place: number) => BITS[image.charCodeAt(place)] ?? 0;
  const shared = bits(5);
  const high =
    (bits(0) << 26) | (bits(1) << 20) | (bits(2) << 14) | (bits(3) << 8) | (bits(4) << 2) | (shared >> 4);
  const low =
    (shared << 28) | (bits(6) << 22) | (bits(7) << 16) | (bits(8) << 10) | (bits(9) << 4) | (bits(10) >> 2);
  return { high: high >>> 0, low: low >>> 0 };
}

/** The first 64 bits of a text's sha256. */
export function hashOfText(text: string): Hash64 {
  const digest = hash('sha256', text, 'buffer');
  return { high: digest.readUInt32BE(0), low: digest.readUInt32BE(4) };
}
