import { createHash } from 'node:crypto';

/** A source of numbers in [0, 1). */
export type Random = () => number;

/** Mulberry32: small, fast, and the same numbers for the same seed everywhere. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What a message id carries of its URL: 16 hex digits, enough to make the prompts from. */
export function hashUrl(url: string): string {
  return createHash('sha256').update(url).digest('hex').slice(0, 16);
}

/** A source that depends on an image (and on a salt, so that independent choices are independent). */
export function randomOfHash(urlHash: string, salt: number): Random {
  return seededRandom(parseInt(urlHash.slice(0, 8), 16) ^ Math.imul(salt + 1, 0x9e3779b1));
}

/** One of the list. */
export function pick<T>(list: readonly [T, ...T[]], random: Random): T {
  return list[Math.floor(random() * list.length)] ?? list[0];
}

/** Lognormal: `median` times e to a normally distributed power (Box-Muller); whole numbers. */
export function drawLatencyMs(median: number, spread: number, random: Random): number {
  const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return Math.round(median * Math.exp(spread * normal));
}

/** Which of several exclusive kinds happens, each as often as its share says; usually none. */
export function drawKind<K extends string>(
  kinds: readonly K[],
  shares: Readonly<Partial<Record<K, number | undefined>>>,
  random: Random,
): K | undefined {
  let rest = random();
  return kinds.find((kind) => (rest -= shares[kind] ?? 0) < 0);
}
