import { type Account, describeQueueName } from '../shared/account.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { RunJobs } from './run-jobs.js';
import { hasCoordinator } from '../shared/run-leases.js';

/** Completed jobs that stay in an account's queue for people who watch it, of all runs that have ended. */
const KEPT = 1000;

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
