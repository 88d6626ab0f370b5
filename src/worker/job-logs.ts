import { type Logger, debugError } from '../shared/log.js';
import type { JobQueue } from '../shared/queue/connection.js';

/** Entries that a job keeps, the newest ones. */
const KEEP = 50;
/** Jobs whose lines are kept in memory and sent at once. Nobody reads the stories of more images a second. */
const JOBS_AT_ONCE = 400;

/**
 * The logs of a worker's jobs, for people who look at one on the board. A job's lines are sent as one entry, and no image
 * waits for that: a queue that is away costs the lines of that time.
 */
export class JobLogs {
  #lines = new Map<string, string[]>();

  constructor(
    private readonly queue: Pick<JobQueue<unknown, unknown>, 'addJobLog'>,
    private readonly logger: Logger,
  ) {}

  /** Adds a line to a job's log, with the time of the day (UTC). */
  add(jobId: string, line: string): void {
    const lines = this.#lines.get(jobId) ?? [];
    lines.push(`${new Date().toISOString().slice(11, 23)} ${line}`);
    if (this.#lines.size < JOBS_AT_ONCE || lines.length > 1) this.#lines.set(jobId, lines);
  }

  /** Sends what has not been sent. */
  async send(): Promise<void> {
    const collected = [...this.#lines];
    this.#lines = new Map();
    await Promise.all(
      collected.map(([job, lines]) =>
        this.queue
          .addJobLog(job, lines.slice(-KEEP).join('\n'), KEEP)
          .catch(debugError(this.logger, 'lines of a job log are lost', { job })),
      ),
    );
  }
}
