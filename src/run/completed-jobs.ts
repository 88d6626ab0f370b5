import { type Account, describeQueueName } from '../shared/account.js';
import { messageOf } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { hasCoordinator } from '../shared/run-leases.js';
import { RunJobs } from './run-jobs.js';

/** Completed jobs of a run, and of all runs of an account that have ended, that stay in the queue for people who watch it. */
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

/**
 * Runs that have ended with completed jobs still in the queue: when, and how many. All their rows are on disk, so that
 * nothing needs these jobs any more, and those of the runs that ended first make room: a new file each night would fill
 * the queue otherwise.
 */
export class KeptJobs {
  readonly #record: string;

  constructor(
    private readonly connection: QueueConnection,
    private readonly account: Account,
    private readonly most = KEPT,
  ) {
    this.#record = `kept:${describeQueueName(account)}`;
  }

  /** The run begins, or goes on: its jobs are its own affair again. */
  async takeOut(run: string): Promise<void> {
    const fields = await this.connection.store.getFields(this.#record);
    if (fields[run] !== undefined) await this.connection.store.setFields(this.#record, { [run]: null });
  }

  /**
   * The run has ended; every row that its completed jobs are for is on disk.
   * @param count how many there are
   */
  async add(run: string, count: number): Promise<void> {
    const { store } = this.connection;
    if (count > 0) await store.setFields(this.#record, { [run]: `${Date.now()} ${count}` });
    for (const old of runsTooMany(await store.getFields(this.#record), this.most)) {
      if (old === run || (await hasCoordinator(store, old))) continue;
      await this.#jobsOf(old).removeCompleted();
      await store.setFields(this.#record, { [old]: null });
    }
  }

  /** For looking and removing alone. */
  #jobsOf(run: string): RunJobs {
    return new RunJobs(this.connection, this.account, run, { maxAttempts: 1, deadlineMs: 0 });
  }
}

/** The runs that ended first, whose jobs are more than are to be kept. */
function runsTooMany(fields: Readonly<Record<string, string>>, most: number): string[] {
  const runs = Object.entries(fields).map(([run, text]) => {
    const [endedAt = 0, count = 0] = text.split(' ').map(Number);
    return { run, endedAt, count };
  });
  let total = 0;
  return runs
    .sort((one, other) => other.endedAt - one.endedAt)
    .filter(({ count }) => (total += count) > most)
    .map(({ run }) => run);
}
