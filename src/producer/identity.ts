import { hash } from 'node:crypto';

const HASH_BYTES = 16;

/**
 * What stands for an image in ids and in the output's index: the first 16 bytes of the sha256 of its absolute
 * URL, as 22 characters of base64url.
 */
export function imageHash(url: string): string {
  return hash('sha256', url, 'buffer').subarray(0, HASH_BYTES).toString('base64url');
}

/**
 * What tells a row from all others of its manifest.
 * @param row `key`: its cell in the key column, when there is one
 * @param occurrence how many rows with the same URL come before it; counts only without a key
 */
export function rowKeyFor(row: { readonly key?: string; readonly url: string }, occurrence: number): string {
  return row.key ?? `${row.url}#${occurrence}`;
}
