import { hash } from 'node:crypto';
import type { Hash64 } from '../shared/hash-table.js';

const scratch = Buffer.alloc(16);

/** The first 64 bits of an image's hash, which is 16 bytes of sha256 as 22 characters of base64url. */
export function hashOfImage(image: string): Hash64 {
  scratch.write(image, 'base64url');
  return { high: scratch.readUInt32LE(0), low: scratch.readUInt32LE(4) };
}

/** The first 64 bits of a text's sha256. */
export function hashOfText(text: string): Hash64 {
  const digest = hash('sha256', text, 'buffer');
  return { high: digest.readUInt32LE(0), low: digest.readUInt32LE(4) };
}
