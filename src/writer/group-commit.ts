/** Entries that wait for one flush together, and who is told of its end. */
interface Group<Entry> {
  readonly entries: Entry[];
  readonly done: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Group commit: whatever has come while one flush was under way goes into the next one, so that many
 * entries share an fsync and none waits for more to come. After a flush has failed nothing is accepted any
 * more: what is on disk is known, and stays so.
 */
export class GroupCommit<Entry> {
  #next: Group<Entry> | undefined;
  #flushing: Promise<void> | undefined;
  #failure: { error: unknown } | undefined;

  constructor(private readonly flush: (entries: readonly Entry[]) => Promise<void>) {}

  /** Resolves when the entry is on disk; rejects with the flush's error when it is not. */
  commit(entry: Entry): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(asError(this.#failure.error));
    this.#next ??= createGroup();
    this.#next.entries.push(entry);
    const { done } = this.#next;
    this.#flushing ??= this.#run();
    return done;
  }

  /** Waits until nothing is left to flush. Never rejects: failures went to those who committed. */
  async settled(): Promise<void> {
    while (this.#flushing !== undefined) await this.#flushing;
  }

  async #run(): Promise<void> {
    // Entries of the same turn of the event loop join the first flush.
    await Promise.resolve();
    while (this.#next !== undefined) {
      const group = this.#next;
      this.#next = undefined;
      try {
        if (this.#failure !== undefined) throw asError(this.#failure.error);
        await this.flush(group.entries);
        group.resolve();
      } catch (error) {
        this.#failure ??= { error };
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
