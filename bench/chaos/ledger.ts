import type { JobAccount } from './queue.js';

/**
 * What the product counts as possibly paid twice, by image: the jobs' own counts, read whenever a process has ended.
 * They are what receipts are summed up from; but a process that is killed leaves no receipt, and the images that
 * it has written are in nobody else's.
 */
export class Ledger {
  readonly #jobs = new Map<string, JobAccount>();
  /** What only a receipt has counted, without saying for which images. */
  unnamed = 0;

  note(jobs: readonly JobAccount[]): void {
    for (const job of jobs) {
      const known = this.#jobs.get(job.name);
      if (known === undefined || known.maybePaid < job.maybePaid) this.#jobs.set(job.name, job);
    }
  }

  of(url: string): number {
    let sum = 0;
    for (const job of this.#jobs.values()) if (job.url === url) sum += job.maybePaid;
    return sum;
  }

  get total(): number {
    let sum = this.unnamed;
    for (const job of this.#jobs.values()) sum += job.maybePaid;
    return sum;
  }
}
