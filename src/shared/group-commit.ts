/** Entries that wait for one flush together. */
interface Group<Entry> {
  readonly entries: Entry[];
  readonly done: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export interface GroupCommitOptions {
  /** The most entries of a flush; more wait for the next one. Default: no limit. */
  readonly maxEntries?: number;
  /** Whether the entries that come after a failed flush are tried all the same. Default: nothing is accepted any more. */
  readonly goesOnAfterFailure?: boolean;
}

/**
 * Group commit: the first entry is flushed at once, and whatever comes while a flush is under way goes into the
 * next one. So many entries share an fsync (or a job), and none waits for more to come. After a flush has failed
 * nothing is accepted any more, unless the options say otherwise: what is on disk is known, and stays so.
 */
export class GroupCommit<Entry> {
  readonly #maxEntries: number;
  readonly #goesOnAfterFailure: boolean;
  readonly #groups: Group<Entry>[] = [];
  #flushing: Promise<void> | undefined;
  #failure: { error: unknown } | undefined;

  /** @param flush brings entries to where they are safe, all or none */
  constructor(
    private readonly flush: (entries: readonly Entry[]) => Promise<unknown>,
    { maxEntries = Infinity, goesOnAfterFailure = false }: GroupCommitOptions = {},
  ) {
    this.#maxEntries = maxEntries;
    this.#goesOnAfterFailure = goesOnAfterFailure;
  }

  /** Resolves when the entry is flushed; rejects with the flush's error when it is not. */
  commit(entry: Entry): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(asError(this.#failure.error));
    let group = this.#groups.at(-1);
    if (group === undefined || group.entries.length >= this.#maxEntries) {
      this.#groups.push((group = createGroup()));
    }
    group.entries.push(entry);
    this.#flushing ??= this.#flushAll();
    return group.done;
  }

  /** Whether nothing is left to flush. */
  get isIdle(): boolean {
    return this.#flushing === undefined;
  }

  /** Waits until nothing is left to flush. Never rejects: failures went to those who committed. */
  async settled(): Promise<void> {
    while (this.#flushing !== undefined) await this.#flushing;
  }

  async #flushAll(): Promise<void> {
    // Entries of the same turn of the event loop join the first flush.
    await Promise.resolve();
    for (let group = this.#groups.shift(); group !== undefined; group = this.#groups.shift()) {
      try {
        if (this.#failure !== undefined) throw asError(this.#failure.error);
        await this.flush(group.entries);
        group.resolve();
      } catch (error) {
        if (!this.#goesOnAfterFailure) this.#failure ??= { error };
        group.reject(error);
      }
    }
    this.#flushing = undefined;
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

function createGroup<Entry>(): Group<Entry> {
  let resolve: (() => void) | undefined;
  let reject: ((error: unknown) => void) | undefined;
  const done = new Promise<void>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { entries: [], done, resolve: () => resolve?.(), reject: (error) => reject?.(error) };
}
