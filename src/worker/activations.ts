import type { DescribeJobData } from '../shared/jobs.js';
import type { ProcessingOutcome } from './processing.js';

/** One job that this process is working on. */
interface Activation {
  /** Ends it: a newer activation of the job has begun, or this worker stops. */
  readonly end: AbortController;
  isSuperseded: boolean;
  readonly ending: Promise<ProcessingOutcome>;
  /** Resolves when the queue has been told of the ending, or was not to be told. */
  readonly settled: Promise<unknown>;
}

/** How an activation is to begin when an earlier one of the same job was still going on. */
export type Inherited =
  | { readonly kind: 'nothing' }
  /** As far as the earlier one has brought it, which the job as it was fetched does not say. */
  | { readonly kind: 'data'; readonly data: DescribeJobData }
  /** The earlier one came to an outcome, which is to be settled by the new one. */
  | { readonly kind: 'ending'; readonly ending: ProcessingOutcome };

/** Says that a newer activation of the job goes on, and that this one has nothing to settle. */
export class SupersededError extends Error {}

/**
 * The jobs that this process is working on: each of them once.
 *
 * A process that slept for longer than its locks live (a suspended machine, a queue that was away) is given
 * its own jobs once more, as if it had died. The new activation then waits for the old one to stop where it is:
 * a submit that is on the wire is not made a second time, but awaited.
 */
export class Activations {
  readonly #running = new Map<string, Activation>();

  /** @param stopping aborts when all of them are to hand their jobs back */
  constructor(private readonly stopping?: AbortSignal) {
    // One listener for all: combined signals of each job would take more time than the jobs do.
    stopping?.addEventListener('abort', () => {
      for (const { end } of this.#running.values()) end.abort();
    });
  }

  get isIdle(): boolean {
    return this.#running.size === 0;
  }

  isRunning(jobId: string): boolean {
    return this.#running.has(jobId);
  }

  /**
   * @param describe brings the job as far as it goes, from where the earlier activation has left it, until its signal
   *   aborts
   * @param settle tells the queue
   * @throws {SupersededError} when a newer activation of the job has begun meanwhile
   */
  async run<T>(
    jobId: string,
    describe: (inherited: Inherited, stopping: AbortSignal) => Promise<ProcessingOutcome>,
    settle: (ending: ProcessingOutcome) => Promise<T>,
  ): Promise<T> {
    const earlier = this.#running.get(jobId);
    const end = new AbortController();
    if (this.stopping?.aborted === true) end.abort();
    const ending = stop(earlier).then((inherited) => describe(inherited, end.signal));
    const settled = ending.then((endsWith) => {
      if (activation.isSuperseded) throw new SupersededError('a newer activation goes on');
      return settle(endsWith);
    });
    const activation: Activation = { end, isSuperseded: false, ending, settled };
    this.#running.set(jobId, activation);
    try {
      return await settled;
    } finally {
      if (this.#running.get(jobId) === activation) this.#running.delete(jobId);
    }
  }
}

/** Waits until the earlier activation has stopped. */
async function stop(earlier: Activation | undefined): Promise<Inherited> {
  if (earlier === undefined) return { kind: 'nothing' };
  earlier.isSuperseded = true;
  earlier.end.abort();
  try {
    const ending = await earlier.ending;
    await earlier.settled.catch(() => undefined);
    return ending.kind === 'outcome' ? { kind: 'ending', ending } : { kind: 'data', data: ending.data };
  } catch {
    // It failed, and was told so: the job begins where the queue has it.
    return { kind: 'nothing' };
  }
}
