import { hash } from 'node:crypto';

/** The first 16 bytes of a text's sha256, as 22 characters of base64url. */
export function shortHash(text: string): string {
  // By way of hexadecimal digits: a million rows have one each, and to make a buffer of the whole hash takes longer.
  return Buffer.from(hash('sha256', text, 'hex').slice(0, 32), 'hex').toString('base64url');
}
