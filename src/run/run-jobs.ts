import type { Job, JobType } from 'bullmq';
import type { Row } from '../producer/row-reader.js';
import { type Account, describeQueueName, resultsQueueName } from '../shared/account.js';
import {
  DESCRIBE_JOB,
  type DescribeJobData,
  HELD,
  type PreviousFailure,
  type PublishedResults,
  type ResultJobData,
  UNFINISHED_STATES,
  describeJobId,
  freshJobData,
  imageOfJobId,
  isUntouched,
  notDescribable,
  outcomesIn,
  partsOfJobId,
} from '../shared/jobs.js';
import type { JobQueue, QueueConnection } from '../shared/queue/connection.js';
import { retryUntilUp } from '../shared/queue/outage.js';
import { reclaimJob, unlessMoved } from '../shared/queue/job-moves.js';
import { dropSetAside, hasCoordinator, listSetAside } from '../shared/run-leases.js';
import { nameOfKey } from '../writer/output-index.js';
import { RUN_DEFAULTS, type RunOptions } from './run-options.js';

/** Where a job of the run is, as far as the queue knows. */
export type JobPlace = 'unfinished' | 'completed' | 'failed';

/** A job of this run that was in the queue when the run started. */
export interface QueuedJob {
  /**
   * paid: it has been submitted, perhaps completed: it is taken over, not paid for again.
   * waiting: it has no message, and is held until its row is read. failed: it is replaced by a new one.
   */
  readonly state: 'paid' | 'waiting' | 'failed';
  readonly submits: number;
  readonly polls: number;
  readonly lastMessageId?: string | undefined;
  /** What its row is called, see `nameOfKey`. */
  readonly key?: string | undefined;
  /** Of a completed job. */
  readonly result?: ResultJobData | undefined;
}

/** An image that is to be added to the queue. */
export interface NewImage {
  readonly image: string;
  readonly url: string;
  readonly title?: string | undefined;
  readonly prompt?: string | undefined;
  readonly row: number;
  readonly key?: string | undefined;
  readonly previous?: PreviousFailure | undefined;
  /** Its job that is there: a failed one is replaced, one that waits goes on. */
  readonly queued?: QueuedJob | undefined;
}

/** What is added of a row. */
export function newImageOf(image: string, { url = '', title, prompt, key, number }: Row): NewImage {
  return { image, url, title, prompt, key, row: number };
}

/** HTTP calls made for an image over its whole life, and those of its submits that may have been paid for twice. */
export type Calls = Pick<ResultJobData, 'submits' | 'polls' | 'inputTokens' | 'outputTokens'> & {
  readonly maybePaid?: number | undefined;
};

type DescribeJob = Job<DescribeJobData, ResultJobData>;

const AT_ONCE = 200;

/** One run's jobs in its account's describe queue. */
export class RunJobs {
  readonly #queue: JobQueue<DescribeJobData, ResultJobData>;
  #abandoned: ReadonlyMap<string, number> = new Map();

  /** @param signal ends the waiting for a queue that is away */
  constructor(
    private readonly connection: QueueConnection,
    account: Account,
    private readonly run: string,
    private readonly signal?: AbortSignal,
    private readonly options: Pick<RunOptions, 'attempts' | 'deadlineMs'> = {},
  ) {
    this.#queue = connection.queue(describeQueueName(account));
  }

  /** The run's jobs by image, with the place of each. */
  async places(): Promise<Map<string, JobPlace>> {
    const places = new Map<string, JobPlace>();
    // Jobs move from left to right meanwhile: looked at in this order, none is overlooked.
    for (const place of ['unfinished', 'failed', 'completed'] as const) {
      for (const id of await this.#ids(place === 'unfinished' ? [...UNFINISHED_STATES] : [place])) {
        const image = imageOfJobId(this.run, id);
        if (image !== undefined) places.set(image, place);
      }
    }
    return places;
  }

  #persist<T>(operation: () => Promise<T>): Promise<T> {
    return retryUntilUp(this.connection, operation, this.signal);
  }

  /** The image's job. */
  get(image: string) {
    return this.#persist(() => this.#queue.getJob(describeJobId(this.run, image)));
  }

  #ids(types: JobType[]): Promise<string[]> {
    return this.#persist(() => this.#queue.getRanges(types, 0, -1));
  }

  /**
   * Reclaims what dead workers hold, to the head of the queue, so that it is polled before anything new is
   * submitted. BullMQ would find these jobs 10 to 15 s later.
   * @param isAlive whether the worker of a name lives
   * @returns how many there were
   */
  async reclaim(isAlive: (worker: string) => boolean): Promise<number> {
    const abandoned: DescribeJob[] = [];
    await this.#each(await this.#ids(['active']), async (id) => {
      const image = imageOfJobId(this.run, id);
      const job = image === undefined ? undefined : await this.get(image);
      if (job?.processedBy !== undefined && !isAlive(job.processedBy)) abandoned.push(job);
    });
    // Each goes before those that went before it: the ones with a message come last.
    const isInFlight = ({ data }: DescribeJob) => Number(data.messageId !== undefined);
    abandoned.sort((a, b) => isInFlight(a) - isInFlight(b));
    for (const job of abandoned) await this.#persist(() => reclaimJob(job));
    return abandoned.length;
  }

  /** What an earlier run of the same id has left in the queue, by image. */
  async leftOver(): Promise<Map<string, QueuedJob>> {
    const left = new Map<string, QueuedJob>();
    await this.#each([...(await this.places())], async ([image, place]) => {
      const job = await this.get(image);
      if (job === undefined) return;
      const { messageId, lastMessageId, key } = job.data;
      const paid = place === 'completed' || messageId !== undefined || job.progress !== HELD;
      const state = place === 'failed' ? 'failed' : paid ? 'paid' : 'waiting';
      const result = place === 'completed' ? job.returnvalue : undefined;
      const { submits, polls } = result ?? job.data;
      left.set(image, { state, submits, polls, lastMessageId: messageId ?? lastMessageId, key, result });
    });
    return left;
  }

  /** Adds images. One that is in the queue already is let go, if it was held; a failed job is replaced. */
  async add(images: readonly NewImage[]): Promise<void> {
    const inState = (state: QueuedJob['state']) => images.filter(({ queued }) => queued?.state === state);
    await this.#each(inState('failed'), ({ image }) => this.#remove(image));
    const jobs = images.map((image) => ({
      name: DESCRIBE_JOB,
      data: this.#data(image),
      opts: { jobId: describeJobId(this.run, image.image) },
    }));
    await this.#persist(() => this.#queue.addBulk(jobs));
    await this.#each(inState('waiting'), async ({ image }) => {
      const job = await this.get(image);
      if (job !== undefined) await this.#letGo(job);
    });
  }

  /**
   * At the start of a run: what has a message does not wait any longer. All else that earlier starts have left is held
   * until its row is read, so that it counts for `--limit` and is not paid for without a row.
   * @param isCollecting whether all of it goes on
   */
  async holdUnpaid(isCollecting: boolean): Promise<void> {
    await this.#eachUnfinished(async (_image, job) => {
      if (isCollecting || job.data.messageId !== undefined) await this.#letGo(job);
      else await this.#persist(() => unlessMoved(job.updateProgress(HELD)));
    });
  }

  async #letGo(job: DescribeJob): Promise<void> {
    if (job.progress === HELD) await this.#persist(() => unlessMoved(job.updateProgress(0)));
    if (await this.#persist(() => job.isDelayed())) await this.#persist(() => unlessMoved(job.promote()));
  }

  /**
   * Takes up what workers have set aside while this coordinator was not there: a job that was put off goes on at once,
   * one that was removed is added again. One that is held, or is being put off in this moment, is looked at again.
   * @param pending what the run waits for: the job to be added for an image, if it is one of them
   */
  async takeUpSetAside(pending: (image: string) => NewImage | undefined = () => undefined): Promise<void> {
    const { store } = this.connection;
    const images = await this.#persist(() => listSetAside(store, this.run));
    await this.#each(images, async (image) => {
      const job = await this.get(image);
      const missing = job === undefined ? pending(image) : undefined;
      if (missing !== undefined) await this.add([missing]);
      if (job !== undefined) {
        if (job.progress === HELD || (await this.#persist(() => job.isActive()))) return;
        await this.#letGo(job);
      }
      await this.#persist(() => dropSetAside(store, this.run, image));
    });
  }

  /**
   * Finds the images that other runs whose coordinators are not there have, or may have, paid for, and not written. They
   * are not this run's: where its manifest has them, they are paid for once more, and counted so.
   * @returns how many there are
   */
  async findAbandoned(): Promise<number> {
    const abandoned = new Map<string, number>();
    const note = (image: string, submits: number) =>
      abandoned.set(image, Math.max(submits, abandoned.get(image) ?? 0));
    const living = new Map<string, Promise<boolean>>([[this.run, Promise.resolve(true)]]);
    const lives = (run: string) => {
      const known = living.get(run) ?? this.#persist(() => hasCoordinator(this.connection.store, run));
      living.set(run, known);
      return known;
    };
    await this.#each(await this.#ids([...UNFINISHED_STATES, 'completed']), async (id) => {
      const parts = partsOfJobId(id);
      if (parts === undefined || (await lives(parts.run))) return;
      const job = await this.#persist(() => this.#queue.getJob(id));
      if (job === undefined || job.finishedOn !== undefined || notDescribable(job.data)) return;
      if (isUntouched(job)) return;
      const hasMessage = (job.data.messageId ?? job.data.lastMessageId) !== undefined;
      note(parts.image, lostSubmits(job) + (hasMessage ? 1 : 0));
    });
    for (const [run, isAlive] of living) {
      if (await isAlive) continue;
      const name = resultsQueueName(run);
      // To open the queue of a run that has ended would make one again.
      if ((await this.#persist(() => this.connection.countJobs(name, UNFINISHED_STATES))) === 0) continue;
      const queue = this.connection.passingQueue<PublishedResults, null>(name);
      const unwritten = await this.#persist(() => queue.getJobs([...UNFINISHED_STATES]));
      for (const { image, outcome, maybePaid } of unwritten.flatMap((job) => outcomesIn(job.data))) {
        if (outcome.status === 'described') note(image, maybePaid + 1);
      }
    }
    this.#abandoned = abandoned;
    return abandoned.size;
  }

  /** Removes a job that no worker holds. */
  async #remove(image: string): Promise<boolean> {
    const removed = await this.#persist(() => this.#queue.remove(describeJobId(this.run, image)));
    return removed === 1;
  }

  /**
   * Removes those of the run's jobs that have not ended and that nobody needs; not what a worker works on.
   * @returns the calls that were made for each image all the same, such as one that met a 429
   */
  async remove(isNeedless: (job: DescribeJob, image: string) => boolean): Promise<Map<string, Calls>> {
    const removed = new Map<string, Calls>();
    await this.#eachUnfinished(async (image, job) => {
      if (!isNeedless(job, image) || !(await this.#remove(image))) return;
      const { submits, polls, inputTokens, outputTokens } = job.data;
      removed.set(image, { submits, polls, maybePaid: lostSubmits(job), inputTokens, outputTokens });
    });
    return removed;
  }

  async #eachUnfinished(visit: (image: string, job: DescribeJob) => Promise<void>): Promise<void> {
    const unfinished = [...(await this.places())].filter(([, place]) => place === 'unfinished');
    await this.#each(unfinished, async ([image]) => {
      const job = await this.get(image);
      if (job !== undefined) await visit(image, job);
    });
  }

  #data({ image, previous, queued, ...about }: NewImage): DescribeJobData {
    const key = about.key === undefined ? undefined : nameOfKey(about.key);
    const lastMessageId = queued?.lastMessageId ?? previous?.outcome.messageId;
    const { attempts = RUN_DEFAULTS.attempts, deadlineMs = RUN_DEFAULTS.deadlineMs } = this.options;
    // A row that ended as lost may have been paid for: nothing is left that says so.
    const lost = previous?.outcome.code === 'lost' ? 1 : 0;
    const maybePaid = lost + (this.#abandoned.get(image) ?? 0);
    const job = { ...about, key, run: this.run, maxAttempts: attempts, deadlineMs };
    return freshJobData(job, { lastMessageId, maybePaid });
  }

  async #each<T>(items: readonly T[], visit: (item: T) => Promise<unknown>): Promise<void> {
    for (let start = 0; start < items.length; start += AT_ONCE) {
      await Promise.all(items.slice(start, start + AT_ONCE).map(visit));
    }
  }
}

/**
 * How many submits of a job that no worker holds may have been paid for, with nothing to show for it: each processing that did
 * not end in order may have lost one, which the job's data does not know yet.
 */
function lostSubmits({ data, attemptsStarted }: DescribeJob): number {
  const { maybePaid, unanswered = [], messageId, orderlyStarts } = data;
  const crashed = messageId === undefined ? Math.max(0, attemptsStarted - orderlyStarts) : 0;
  return maybePaid + unanswered.length + crashed;
}
