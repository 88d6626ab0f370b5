import { hash } from 'node:crypto';

/** Of 16 bytes the last of 22 characters holds two bits; the others are of the 17th byte, which does not count. */
const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const LAST_DIGIT = new Map(Array.from(DIGITS, (digit, value) => [digit, DIGITS[value & 0b110000] ?? '']));
const WHOLE_DIGITS = 21;

/**
 * What stands for an image in ids and in the output's index: the first 16 bytes of the sha256 of its absolute
 * URL, as 22 characters of base64url. Taken from the whole hash as text, since to make a buffer of it takes longer than
 * to compute it, and a million rows have one each.
 */
export function imageHash(url: string): string {
  const digest = hash('sha256', url, 'base64url');
  return digest.slice(0, WHOLE_DIGITS) + (LAST_DIGIT.get(digest.charAt(WHOLE_DIGITS)) ?? '');
}

/**
 * What tells a row from all others of its manifest.
 * @param row `key`: its cell in the key column, when there is one
 * @param occurrence how many rows with the same URL come before it; counts only without a key
 */
export function rowKeyFor(row: { readonly key?: string; readonly url: string }, occurrence: number): string {
  return row.key ?? `${row.url}#${occurrence}`;
}
