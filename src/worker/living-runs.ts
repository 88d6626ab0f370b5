import {
  type DescribeJobData,
  type ResultJobData,
  describeJobId,
  isUntried,
  notDescribable,
  partsOfJobId,
} from '../shared/jobs.js';
import type { Logger } from '../shared/log.js';
import type { JobQueue, QueueConnection } from '../shared/queue/connection.js';
import { retryUntilUp } from '../shared/queue/outage.js';
import { hasCoordinator, noteSetAside } from '../shared/run-leases.js';

/** A coordinator that was seen so lately need not be looked for before each submit. */
const FRESH_MS = 1000;
const AT_ONCE = 200;
const SWEEP_EVERY_MS = 5000;

/**
 * Which runs have a coordinator that lives. Only for those is anything paid: a killed run leaves its window of
 * unsubmitted images in the account's queue, and nobody has asked whoever works there next to pay for them.
 */
export class LivingRuns {
  /** When each was last seen to live. */
  readonly #seenAt = new Map<string, number>();
  readonly #looking = new Map<string, Promise<boolean>>();
  #sweptAt = -Infinity;

  constructor(
    private readonly connection: QueueConnection,
    private readonly logger: Logger,
  ) {}

  /**
   * Whether the run's coordinator lives. A yes holds for a second. A no is always looked up anew: the run may have been
   * resumed in this moment.
   */
  async has(run: string): Promise<boolean> {
    if (performance.now() - (this.#seenAt.get(run) ?? -Infinity) < FRESH_MS) return true;
    const looking = this.#looking.get(run) ?? this.#look(run).finally(() => this.#looking.delete(run));
    this.#looking.set(run, looking);
    return looking;
  }

  /**
   * Removes the untried jobs of runs without a coordinator, every few seconds: a worker that took them would spend permits
   * of the living runs to find that out. Each is noted first, so that a coordinator that was only frozen adds it again.
   * To be called each second or so.
   */
  async sweep(queue: JobQueue<DescribeJobData, ResultJobData>): Promise<void> {
    if (performance.now() - this.#sweptAt < SWEEP_EVERY_MS) return;
    let removed = 0;
    for (const [run, images] of await waitingImages(queue)) {
      for (let start = 0; start < images.length && !(await this.has(run)); start += AT_ONCE) {
        const swept = images.slice(start, start + AT_ONCE).map((image) => this.#setAside(queue, run, image));
        removed += (await Promise.all(swept)).filter(Boolean).length;
      }
    }
    if (removed > 0) this.logger.info({ images: removed }, 'unsubmitted images of dead runs are set aside');
    this.#sweptAt = performance.now();
  }

  async #setAside(
    queue: JobQueue<DescribeJobData, ResultJobData>,
    run: string,
    image: string,
  ): Promise<boolean> {
    const id = describeJobId(run, image);
    const job = await queue.getJob(id);
    if (job === undefined || notDescribable(job.data) !== undefined || !isUntried(job)) return false;
    await noteSetAside(this.connection.store, run, image);
    return (await queue.remove(id)) === 1;
  }

  async #look(run: string): Promise<boolean> {
    const { connection } = this;
    const lives = await retryUntilUp(connection, () => hasCoordinator(connection.store, run));
    if (lives) this.#seenAt.set(run, performance.now());
    else this.#seenAt.delete(run);
    return lives;
  }
}

/** The images that wait in the queue, by their runs. */
async function waitingImages(
  queue: JobQueue<DescribeJobData, ResultJobData>,
): Promise<Map<string, string[]>> {
  const imagesByRun = new Map<string, string[]>();
  for (const id of await queue.getRanges(['waiting', 'prioritized', 'delayed'], 0, -1)) {
    const parts = partsOfJobId(id);
    if (parts === undefined) continue;
    const images = imagesByRun.get(parts.run) ?? [];
    imagesByRun.set(parts.run, images);
    images.push(parts.image);
  }
  return imagesByRun;
}
