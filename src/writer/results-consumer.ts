import { type Job, WaitingError } from 'bullmq';
import { resultsQueueName } from '../shared/account.js';
import { messageOf } from '../shared/errors.js';
import type { ResultJobData } from '../shared/jobs.js';
import type { Logger } from '../shared/log.js';
import type { JobQueue, JobWorker, QueueConnection } from '../shared/queue/connection.js';
import { retryUntilUp } from '../shared/queue/retry-until-up.js';
import { sleep } from '../shared/sleep.js';

/**
 * What becomes of a result: it is on disk (or not needed) and can be acknowledged, or it goes back to
 * waiting, for the next start of this run.
 */
export type Disposal = 'done' | 'put-back';

/** Results that may be held at once: no run has more images outstanding. */
const CONCURRENCY = 5000;

/** The home's end of a run's results queue. */
export class ResultsConsumer {
  readonly #queue: JobQueue<ResultJobData, null>;
  readonly #worker: JobWorker<ResultJobData, null>;

  /** @param settle resolves when the result's rows are on disk; never rejects */
  constructor(
    private readonly connection: QueueConnection,
    run: string,
    private readonly settle: (result: ResultJobData) => Promise<Disposal>,
    private readonly logger: Logger,
  ) {
    const name = resultsQueueName(run);
    this.#queue = connection.queue(name);
    this.#worker = connection.worker<ResultJobData, null>(
      name,
      (job, token) => this.#process(job, token ?? ''),
      {
        concurrency: CONCURRENCY,
        removeOnComplete: { count: 0 },
      },
    );
  }

  /** How many results nobody has looked at yet. */
  async backlog(): Promise<number> {
    const counts = await this.#queue.getJobCounts('waiting', 'delayed', 'prioritized');
    return Object.values(counts).reduce((sum, count) => sum + count, 0);
  }

  /** Results that have come and have neither been acknowledged nor put back. */
  async active(): Promise<number> {
    return this.#queue.getActiveCount();
  }

  /** Waits until every result that is there has been looked at. */
  async drained(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && (await retryUntilUp(this.connection, () => this.backlog(), signal)) > 0) {
      await sleep(20, signal);
    }
  }

  /** Ends when the results that were taken have been acknowledged or put back. */
  async close(): Promise<void> {
    await this.#worker.close();
  }

  async #process(job: Job<ResultJobData, null>, token: string): Promise<null> {
    const disposal = await this.settle(job.data);
    if (disposal === 'done') return null;
    try {
      await retryUntilUp(this.connection, () => job.moveToWait(token));
    } catch (error) {
      // Its lock is gone, so it is on its way back to waiting without us.
      this.logger.debug({ error: messageOf(error) }, 'a result goes back by itself');
    }
    throw new WaitingError();
  }
}
