/**
 * Group commit: the first entry is flushed at once, and whatever comes while a flush is under way goes into the
 * next one. So many entries share an fsync (or a job), and none waits for more to come. After a flush has failed
 * nothing is accepted any more, unless the options say otherwise: what is on disk is known, and stays so.
 */
export class GroupCommit<Entry> {
  /** The entries that the next flush takes; it resolves with them. */
  #next: { readonly entries: Entry[]; readonly flushed: Promise<void> } | undefined;
  /** Ends with the last flush, and never rejects. */
  #last: Promise<unknown> = Promise.resolve();
  #failure: { readonly error: unknown } | undefined;

  /** @param flush brings entries to where they are safe, all or none */
  constructor(
    private readonly flush: (entries: readonly Entry[]) => Promise<unknown>,
    private readonly options: {
      /** The most entries of a flush; more wait for the next one. Default: no limit. */
      readonly maxEntries?: number;
      /** Whether the entries that come after a failed flush are tried all the same. Default: nothing is accepted any more. */
      readonly goesOnAfterFailure?: boolean;
    } = {},
  ) {}

  /** Resolves when the entry is flushed; rejects with the flush's error when it is not. */
  commit(entry: Entry): Promise<void> {
    let next = this.#next;
    if (next === undefined || next.entries.length >= (this.options.maxEntries ?? Infinity)) {
      const entries: Entry[] = [];
      next = this.#next = { entries, flushed: this.#flushAfter(this.#last, entries) };
      this.#last = next.flushed.catch(() => undefined);
    }
    next.entries.push(entry);
    return next.flushed;
  }

  /** Waits until nothing is left to flush. Never rejects: failures went to those who committed. */
  async settled(): Promise<void> {
    let last: Promise<unknown>;
    do {
      last = this.#last;
      await last;
    } while (last !== this.#last);
  }

  async #flushAfter(last: Promise<unknown>, entries: readonly Entry[]): Promise<void> {
    await last;
    if (this.#next?.entries === entries) this.#next = undefined;
    if (this.#failure !== undefined) throw this.#failure.error;
    try {
      await this.flush(entries);
    } catch (error) {
      if (this.options.goesOnAfterFailure !== true) this.#failure = { error };
      throw error;
    }
  }
}

/** Does it for each run with the entries that are its own, for all of them at once. */
export async function forEachRun<Entry extends { readonly run: string }>(
  entries: readonly Entry[],
  task: (run: string, own: readonly Entry[]) => Promise<unknown>,
): Promise<void> {
  const runs = new Set(entries.map(({ run }) => run));
  const ownOf = (run: string) => entries.filter((entry) => entry.run === run);
  await Promise.all([...runs].map((run) => task(run, ownOf(run))));
}
