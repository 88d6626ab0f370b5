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
  lastingRequest,
} from './run-request.js';

const EVERY_MS = 5000;
/** Whose results are looked for: the newest of the runs that ended within the last day. */
const LOOKED_AT_MS = 24 * 3_600_000;
const MOST_LOOKED_AT = 200;

/** Keeps the request of a run, so that it can be executed again by the run's id or output. */
export async function keepRequest(
  { connection, root }: { readonly connection: QueueConnection; readonly root: { readonly path: string } },
  request: RunRequest | undefined,
  { run, output, ...end }: Pick<KeptRequest, 'run' | 'endedAt' | 'stop'> & { readonly output: string },
): Promise<void> {
  if (request === undefined) return;
  const kept = { run, request: lastingRequest(request, output), root: root.path, ...end };
  await registry.publish(connection.store, KEPT_REQUESTS, run, kept);
}

/**
 * Watches runs that have ended: somebody may have put a failed job back on the board, which its worker then sets aside,
 * or a worker may have finished what was left in flight. Such a run is executed once more, in a way that pays for
 * nothing but what was put back.
 */
export class LateResults {
  /** Results that a run has left in its queue, since their rows are not in the manifest any more. */
  readonly #left = new Map<string, number>();
  /** @param root of the server: another one's files are not there */
  constructor(
    private readonly connection: QueueConnection,
    private readonly root: string,
    private readonly options: { readonly logger: Logger; readonly everyMs?: number | undefined },
  ) {}

  /** The results of a run have been collected: what is there still has no row. */
  async collected(run: string): Promise<void> {
    await this.#count(run).then(
      (count) => this.#left.set(run, count),
      debugError(this.options.logger, 'its results are looked at once more', { run }),
    );
  }

  #count(run: string): Promise<number> {
    return this.connection.countJobs(resultsQueueName(run), UNFINISHED_STATES);
  }

  /** Looks until the signal aborts. */
  async watch(signal: AbortSignal): Promise<void> {
    const { everyMs = EVERY_MS, logger } = this.options;
    const onError = debugError(logger, 'the queue did not answer; looking again');
    await repeat(everyMs, signal, () => this.#look(), onError);
  }

  async #look(): Promise<void> {
    const { store } = this.connection;
    const now = Date.now();
    const ended = (await registry.list(store, KEPT_REQUESTS))
      .filter(({ root, endedAt = 0 }) => root === this.root && now - endedAt < LOOKED_AT_MS)
      .sort((a, b) => (b.endedAt ?? 0) - (a.endedAt ?? 0))
      .slice(0, MOST_LOOKED_AT);
    if (ended.length === 0) return;
    const runs = await registry.list(store, RUNS);
    const living = new Set(runs.filter((run) => runState(run, now) === 'running').map(({ run }) => run));
    for (const kept of ended) if (!living.has(kept.run)) await this.#lookAt(kept);
  }

  async #lookAt(kept: KeptRequest): Promise<void> {
    const { run } = kept;
    const setAside = await listSetAside(this.connection.store, run);
    const count = (await this.#count(run)) + setAside.length;
    const left = Math.min(count, this.#left.get(run) ?? 0);
    this.#left.set(run, left);
    if (count <= left) return;
    this.options.logger.info(
      { run, results: count - left },
      'results have come, or images were put back, for a run that has ended',
    );
    await this.connection
      .queue<RunRequest, RunOutcome>(RUNS_QUEUE)
      .add(
        RUN_JOB,
        { ...kept.request, collectOnly: true, stoppedBefore: kept.stop },
        { deduplication: { id: `collect-${run}` } },
      );
    this.#left.set(run, count);
  }
}
