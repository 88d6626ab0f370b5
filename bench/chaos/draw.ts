import { type Random, seededRandom } from '../../src/simulator/messages.js';

/** Draws of one round, all from its seed. */
export class Draw {
  readonly #random: Random;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  /** A whole number from `low` to `high`, both included. */
  between(low: number, high: number): number {
    return low + Math.floor(this.#random() * (high - low + 1));
  }

  /** A share, rounded to whole percent. */
  share(low: number, high: number): number {
    return this.between(Math.round(low * 100), Math.round(high * 100)) / 100;
  }

  happens(probability: number): boolean {
    return this.#random() < probability;
  }

  oneOf<T>(first: T, ...others: T[]): T {
    return others[this.between(-1, others.length - 1)] ?? first;
  }
}
