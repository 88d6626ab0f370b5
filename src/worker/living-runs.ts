import {
  type DescribeJobData,
  type ResultJobData,
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
  readonly #looks = new Map<string, { readonly at: number; readonly lives: Promise<boolean> }>();
  #sweptAt = -Infinity;

  constructor(
    private readonly connection: QueueConnection,
    private readonly logger: Logger,
  ) {}

  /**
   * Whether the run's coordinator lives. A yes holds for a second. A no is always looked up anew: the run may have been
   * resumed in this moment.
   */
  has(run: string): Promise<boolean> {
    const last = this.#looks.get(run);
    if (last !== undefined && performance.now() - last.at < FRESH_MS) return last.lives;
    const { connection } = this;
    const lives = retryUntilUp(connection, () => hasCoordinator(connection.store, run));
    this.#looks.set(run, { at: performance.now(), lives });
    const forget = () => this.#looks.delete(run);
    lives.then((isAlive) => isAlive || forget(), forget);
    return lives;
  }

  /**
   * Removes the untried jobs of runs without a coordinator, every few seconds: a worker that took them would spend permits
   * of the living runs to find that out. Each is noted first, so that a coordinator that was only frozen adds it again.
   */
  async sweep(queue: JobQueue<DescribeJobData, ResultJobData>): Promise<void> {
    if (performance.now() - this.#sweptAt < SWEEP_EVERY_MS) return;
    const ids = await queue.getRanges(['waiting', 'prioritized', 'delayed'], 0, -1);
    let removed = 0;
    for (let start = 0; start < ids.length; start += AT_ONCE) {
      const swept = ids.slice(start, start + AT_ONCE).map((id) => this.#setAside(queue, id));
      removed += (await Promise.all(swept)).filter(Boolean).length;
    }
    if (removed > 0) this.logger.info({ images: removed }, 'unsubmitted images of dead runs are set aside');
    this.#sweptAt = performance.now();
    for (const [run, { at }] of this.#looks) if (this.#sweptAt - at > FRESH_MS) this.#looks.delete(run);
  }

  async #setAside(queue: JobQueue<DescribeJobData, ResultJobData>, id: string): Promise<boolean> {
    const parts = partsOfJobId(id);
    if (parts === undefined || (await this.has(parts.run))) return false;
    const job = await queue.getJob(id);
    if (job === undefined || notDescribable(job.data) !== undefined || !isUntried(job)) return false;
    await noteSetAside(this.connection.store, parts.run, parts.image);
    if ((await queue.remove(id)) !== 1) return false;
    // A coordinator that came back in between has found the job still there, and dropped the note.
    await noteSetAside(this.connection.store, parts.run, parts.image);
    return true;
  }
}
