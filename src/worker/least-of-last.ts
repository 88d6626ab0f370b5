const KEPT = 16;

/** The least of the last sixteen numbers: what takes so long, or is so late, always, and not for once. */
export class LeastOfLast {
  #last: readonly number[];

  /** @param first where there is something to compare the first number with */
  constructor(...first: readonly number[]) {
    this.#last = first;
  }

  /** Infinity as long as there is none. */
  get least(): number {
    return Math.min(...this.#last);
  }

  add(number: number): void {
    this.#last = [...this.#last, number].slice(-KEPT);
  }
}
