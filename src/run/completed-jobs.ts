import { messageOf } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import type { RunJobs } from './run-jobs.js';

/** Completed jobs that stay in the queue for people who watch it. */
const KEPT = 1000;
const REMOVED_AT_ONCE = 100;

/**
 * Removes completed jobs from the queue, once their rows are on disk: until then a job's return value is the
 * second copy of what was paid for.
 */
export class CompletedJobs {
  #written: string[] = [];
  #removing: Promise<void> = Promise.resolve();

  constructor(
    private readonly jobs: Pick<RunJobs, 'removeAll'>,
    private readonly logger: Logger,
  ) {}

  /** Jobs that an earlier run has left behind; those whose rows are in the output count as written. */
  foundWritten(images: Iterable<string>, isDescribed: (image: string) => boolean): void {
    for (const image of images) if (isDescribed(image)) this.#written.push(image);
  }

  /** The image's rows are on disk. */
  written(image: string): void {
    this.#written.push(image);
    if (this.#written.length < KEPT + REMOVED_AT_ONCE) return;
    const old = this.#written.splice(0, this.#written.length - KEPT);
    this.#removing = this.#removing.then(() => this.#remove(old));
  }

  /** How many of the run's jobs are still there, with their rows on disk. */
  get kept(): number {
    return this.#written.length;
  }

  /** Waits until nothing is being removed any more. */
  async settled(): Promise<void> {
    await this.#removing;
  }

  async #remove(images: readonly string[]): Promise<void> {
    try {
      await this.jobs.removeAll(images);
    } catch (error) {
      this.logger.debug({ error: messageOf(error) }, 'completed jobs stay a little longer');
    }
  }
}
