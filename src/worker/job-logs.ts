import { messageOf } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import type { JobQueue, QueueConnection } from '../shared/queue/connection.js';
import { sleep, unlessAborted } from '../shared/waiting.js';

const EVERY_MS = 2000;
/** Entries that a job keeps, the newest ones. */
const KEEP = 50;
/** Jobs whose lines are kept in memory and sent at once. Nobody reads the stories of more images a second. */
const JOBS_AT_ONCE = 400;

/**
 * The logs of a worker's jobs, for people who look at one on the board.
 *
 * Lines are collected and sent every other second, a job's lines as one entry, and nobody waits for them: what is
 * paid for never depends on them. A queue that is away costs the lines of that time.
 */
export class JobLogs {
  #lines = new Map<string, string[]>();
  #dropped = 0;
  readonly #ended = new AbortController();
  #sending: Promise<void> = Promise.resolve();

  constructor(
    private readonly connection: Pick<QueueConnection, 'noteTrouble'>,
    private readonly queue: Pick<JobQueue<unknown, unknown>, 'addJobLog'>,
    private readonly logger: Logger,
  ) {}

  /** Begins to send; to be ended with `stop`. */
  start(): void {
    this.#sending = this.#sendRegularly();
  }

  /** Adds a line to a job's log, with the time of the day (UTC). */
  add(jobId: string, line: string): void {
    const lines = this.#lines.get(jobId);
    const text = `${new Date().toISOString().slice(11, 23)} ${line}`;
    if (lines !== undefined) lines.push(text);
    else if (this.#lines.size < JOBS_AT_ONCE) this.#lines.set(jobId, [text]);
    else this.#dropped++;
  }

  /** Sends what has not been sent. */
  async stop(): Promise<void> {
    this.#ended.abort();
    await this.#sending;
    await this.#send();
  }

  async #sendRegularly(): Promise<void> {
    const { signal } = this.#ended;
    // A queue that is away does not answer: whoever stops the worker does not wait for that.
    while (await sleep(EVERY_MS, signal)) await unlessAborted(this.#send(), signal).catch(() => undefined);
  }

  async #send(): Promise<void> {
    const { logger } = this;
    const collected = this.#lines;
    this.#lines = new Map();
    if (this.#dropped > 0) logger.debug({ lines: this.#dropped }, 'too many images at once for job logs');
    this.#dropped = 0;
    const sent = [...collected].map(async ([jobId, lines]) => {
      try {
        await this.queue.addJobLog(jobId, lines.slice(-KEEP).join('\n'), KEEP);
      } catch (error) {
        // The job was removed meanwhile, or the queue is away: the lines were for people only.
        this.connection.noteTrouble(error);
        logger.debug({ job: jobId, error: messageOf(error) }, 'lines of a job log are lost');
      }
    });
    await Promise.all(sent);
  }
}
