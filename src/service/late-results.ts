import { resultsQueueName } from '../shared/account.js';
import { type Logger, debugError } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { UNFINISHED_STATES } from '../shared/jobs.js';
import { repeat } from '../shared/waiting.js';
import { RUNS, runState } from '../shared/published.js';
import * as registry from '../shared/queue/registry.js';
import { listSetAside } from '../shared/run-leases.js';
import {
  KEPT_REQUESTS,
  type KeptRequest,
  RUNS_QUEUE,
  RUN_JOB,
  type RunOutcome,
  type RunRequest,
} from './run-request.js';

const EVERY_MS = 5000;
/** Whose results are looked for: the newest of the runs that ended within the last day. */
const LOOKED_AT_MS = 24 * 3_600_000;
const MOST_LOOKED_AT = 200;

/**
 * Watches runs that have ended: somebody may have put a failed job back on the dashboard, which its worker then sets aside,
 * or a worker may have finished what was left in flight. Such a run is executed once more, in a way that pays for
 * nothing but what was put back.
 */
export class LateResults {
  /** Results that a run has left in its queue, since their rows are not in the manifest any more. */
  readonly #left = new Map<string, number>();

  constructor(
    private readonly options: {
      readonly connection: QueueConnection;
      /** Of the server: another one's files are not there. */
      readonly root: { readonly path: string };
      readonly logger: Logger;
      /** How often it looks; 5 seconds. */
      readonly lateResultsEveryMs?: number | undefined;
    },
  ) {}

  /** The results of a run have been collected: what is there still has no row. */
  async collected(run: string): Promise<void> {
    await this.#count(run).then(
      (count) => this.#left.set(run, count),
      debugError(this.options.logger, 'its results are looked at once more', { run }),
    );
  }

  #count(run: string): Promise<number> {
    return this.options.connection.countJobs(resultsQueueName(run), UNFINISHED_STATES);
  }

  /** Looks until the signal aborts. */
  async watch(signal: AbortSignal): Promise<void> {
    const { lateResultsEveryMs = EVERY_MS, logger } = this.options;
    const onError = debugError(logger, 'the queue did not answer; looking again');
    await repeat(lateResultsEveryMs, signal, () => this.#look(), onError);
  }

  async #look(): Promise<void> {
    const { connection, root } = this.options;
    const now = Date.now();
    const ended = (await registry.list(connection.store, KEPT_REQUESTS))
      .filter((kept) => kept.root === root.path && now - (kept.endedAt ?? 0) < LOOKED_AT_MS)
      .slice(0, MOST_LOOKED_AT);
    if (ended.length === 0) return;
    const runs = await registry.list(connection.store, RUNS);
    const living = new Set(runs.filter((run) => runState(run, now) === 'running').map(({ run }) => run));
    for (const kept of ended) if (!living.has(kept.run)) await this.#lookAt(kept);
  }

  async #lookAt({ run, request, stop }: KeptRequest): Promise<void> {
    const { connection, logger } = this.options;
    const setAside = await listSetAside(connection.store, run);
    const count = (await this.#count(run)) + setAside.length;
    const left = Math.min(count, this.#left.get(run) ?? 0);
    this.#left.set(run, left);
    if (count <= left) return;
    const text = 'results have come, or images were put back, for a run that has ended';
    logger.info({ run, results: count - left }, text);
    const again = { ...request, collectOnly: true, stoppedBefore: stop };
    const once = { deduplication: { id: `collect-${run}` } };
    await connection.queue<RunRequest, RunOutcome>(RUNS_QUEUE).add(RUN_JOB, again, once);
    this.#left.set(run, count);
  }
}
