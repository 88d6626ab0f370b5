/** How many images a run may pay for (`--limit`). What fails was not paid for, and gives its place back. */
export class PayBudget {
  #taken = 0;
  #spent = 0;

  /** @param limit images; Infinity without `--limit` */
  constructor(private readonly limit: number) {}

  /** Takes a place for an image that is to be submitted; false when there is none at the moment. */
  take(): boolean {
    if (this.#taken >= this.limit) return false;
    this.#taken++;
    return true;
  }

  /** The image was described: its place is used up. */
  spend(): void {
    this.#spent++;
  }

  /** The image failed: its place is free again. */
  giveBack(): void {
    this.#taken--;
  }

  get hasRoom(): boolean {
    return this.#taken < this.limit;
  }

  /** True when no place can become free any more. */
  get isSpent(): boolean {
    return this.#spent >= this.limit;
  }
}
