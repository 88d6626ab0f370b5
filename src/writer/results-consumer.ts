import { type Job, WaitingError } from 'bullmq';
import pLimit from 'p-limit';
import { resultsQueueName } from '../shared/account.js';
import { messageOf } from '../shared/errors.js';
import { type PublishedResults, type ResultJobData, resultsTogether, outcomesIn } from '../shared/jobs.js';
import type { Logger } from '../shared/log.js';
import { processName } from '../shared/process-identity.js';
import type { JobQueue, JobWorker, QueueConnection } from '../shared/queue/connection.js';
import { retryUntilUp } from '../shared/queue/outage.js';
import { reclaimJob } from '../shared/queue/job-moves.js';
import { sleep } from '../shared/waiting.js';

/**
 * What becomes of a result: it is on disk (or not needed) and can be acknowledged, or it goes back to
 * waiting, for the next start of this run.
 */
export type ResultFate = 'done' | 'put-back';

/** Results that may be held at once: no run has more images pending. */
const MOST_AT_WORK = 5000;
/**
 * How many results may be fetched before the first of them is looked at. Hazard: BullMQ's worker fetches up to its
 * concurrency before it processes anything, so where results come as fast as they are fetched, a large
 * concurrency alone would keep all of them waiting.
 */
const FETCHED_AHEAD = 8;
const AT_ONCE = 200;

/** The coordinator's end of a run's results queue. */
export class ResultsConsumer {
  readonly #id = processName();
  readonly #queue: JobQueue<PublishedResults, null>;
  readonly #worker: JobWorker<PublishedResults, null>;
  #atWork = 0;

  /** @param settle resolves when the result's rows are on disk; never rejects */
  constructor(
    private readonly connection: QueueConnection,
    run: string,
    private readonly settle: (result: ResultJobData) => Promise<ResultFate>,
    private readonly logger: Logger,
  ) {
    const name = resultsQueueName(run);
    this.#queue = connection.queue(name);
    this.#worker = connection.worker<PublishedResults, null>(
      name,
      (job, token) => this.#process(job, token ?? ''),
      {
        concurrency: FETCHED_AHEAD,
        name: this.#id,
        removeOnComplete: { count: 0 },
      },
    );
  }

  /** Reclaims what a dead coordinator has not acknowledged: whoever has the run's lease is its only one. */
  async reclaim(signal: AbortSignal): Promise<void> {
    const taken = await retryUntilUp(this.connection, () => this.#queue.getJobs(['active']), signal);
    const abandoned = taken.filter((job) => job.processedBy !== undefined && job.processedBy !== this.#id);
    await pLimit(AT_ONCE).map(abandoned, (job) =>
      retryUntilUp(this.connection, () => reclaimJob(job), signal),
    );
  }

  /** How many results nobody has looked at yet: they wait, or were fetched and wait for their turn. */
  async unseen(): Promise<number> {
    const { active = 0, ...waiting } = await this.#queue.getJobCounts(
      'waiting',
      'delayed',
      'prioritized',
      'active',
    );
    const backlog = Object.values(waiting).reduce((sum, count) => sum + count, 0);
    return backlog + Math.max(0, active - this.#atWork);
  }

  /** Waits until every result that is there has been looked at, or some were put back. */
  async drained(signal: AbortSignal): Promise<void> {
    const isOn = () => !signal.aborted && !this.#worker.isPaused();
    while (isOn() && (await retryUntilUp(this.connection, () => this.unseen(), signal)) > 0) {
      await sleep(20, signal);
    }
  }

  /** Ends when the results that were taken have been acknowledged or put back. */
  async close(): Promise<void> {
    await this.#worker.close();
  }

  /** Results at work take no place from those that are to be fetched. */
  #countAtWork(change: 1 | -1): void {
    this.#atWork += change;
    this.#worker.concurrency = Math.min(MOST_AT_WORK, this.#atWork) + FETCHED_AHEAD;
  }

  async #process(job: Job<PublishedResults, null>, token: string): Promise<null> {
    this.#countAtWork(1);
    try {
      return await this.#settle(job, token);
    } finally {
      this.#countAtWork(-1);
    }
  }

  async #settle(job: Job<PublishedResults, null>, token: string): Promise<null> {
    const outcomes = outcomesIn(job.data);
    const fates = await Promise.all(outcomes.map((outcome) => this.settle(outcome)));
    const left = outcomes.filter((_, number) => fates[number] === 'put-back');
    if (left.length === 0) return null;
    // It is for the next start: taken again now, it would go round and round.
    await this.#worker.pause(true);
    try {
      // What is on disk does not come again; if it does, it is dropped.
      if (left.length < outcomes.length)
        await retryUntilUp(this.connection, () => job.updateData(resultsTogether(left)));
      await retryUntilUp(this.connection, () => job.moveToWait(token));
    } catch (error) {
      // Its lock is gone, so it is on its way back to waiting without us.
      this.logger.debug({ error: messageOf(error) }, 'a result goes back by itself');
    }
    throw new WaitingError();
  }
}
