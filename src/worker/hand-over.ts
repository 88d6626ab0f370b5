import type { ResultJobData } from '../shared/jobs.js';

/** Outcomes of one run that wait to be handed over together, and who is told of it. */
interface Group {
  readonly results: ResultJobData[];
  readonly done: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** More in one job would keep the home's memory and Redis busy for too long at a time. */
const MOST_TOGETHER = 50;

/**
 * Hands outcomes over to their runs: the first at once, and those that come while that is under way together in the
 * next job. So a home takes and acknowledges many of them at a time when there are many, and none waits for more to
 * come.
 */
export class HandOver {
  readonly #waiting = new Map<string, Group[]>();

  /** @param add stores outcomes of a run, all or none */
  constructor(private readonly add: (run: string, results: readonly ResultJobData[]) => Promise<unknown>) {}

  /** Resolves when the outcome is where its run finds it; rejects when it could not be stored. */
  give(run: string, result: ResultJobData): Promise<void> {
    const groups = this.#waiting.get(run) ?? [];
    let last = groups.at(-1);
    if (last === undefined || last.results.length >= MOST_TOGETHER) groups.push((last = createGroup()));
    last.results.push(result);
    if (!this.#waiting.has(run)) {
      this.#waiting.set(run, groups);
      void this.#giveAll(run, groups);
    }
    return last.done;
  }

  async #giveAll(run: string, groups: Group[]): Promise<void> {
    // Outcomes of the same turn of the event loop go together.
    await Promise.resolve();
    for (let group = groups.shift(); group !== undefined; group = groups.shift()) {
      await this.add(run, group.results).then(group.resolve, group.reject);
    }
    this.#waiting.delete(run);
  }
}

function createGroup(): Group {
  let resolve: (() => void) | undefined;
  let reject: ((error: unknown) => void) | undefined;
  const done = new Promise<void>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { results: [], done, resolve: () => resolve?.(), reject: (error) => reject?.(error) };
}
