import { setMaxListeners } from 'node:events';
import { hostname } from 'node:os';
import { UnrecoverableError, WaitingError } from 'bullmq';
import { resultsQueueName } from '../shared/account.js';
import { RUNS_QUEUE, RUN_JOB, UNFINISHED_STATES } from '../shared/jobs.js';
import { isLocked } from '../shared/file-lock.js';
import { debugError } from '../shared/log.js';
import { atShutdown, isDoneInTime } from '../shared/queue/outage.js';
import { processName } from '../shared/process-identity.js';
import { SERVERS, listRuns } from '../shared/published.js';
import type { JobWorker } from '../shared/queue/connection.js';
import { listSetAside } from '../shared/run-leases.js';
import { repeat } from '../shared/waiting.js';
import { runPaths } from '../writer/output-paths.js';
import {
  KEPT_REQUESTS,
  type KeptRequest,
  type RunOutcome,
  type RunRequest,
  type RunRequestJob,
} from './run-request.js';
import {
  type RequestDeps,
  RunningRequest,
  type RunsServerOptions,
  SHUTDOWN_TIMEOUT_MS,
} from './running-request.js';

const RUNS_AT_ONCE = 20;
/** Requests that are over stay in the queue for people who watch. */
const KEPT_JOBS = { count: 200 };
const HEARTBEAT_MS = 1000;
const STOP_DEADLINE_MS = 30_000;
/** The same while the queue is away, which then could not take the runs back, once they have written what they have. */
const AWAY_DEADLINE_MS = 2000;

/**
 * Executes what is in the runs queue, several requests at once. What becomes of a request's job:
 *
 *   waiting --taken--> active --over--> completed; failed when it was refused
 *   active --the server stops--> waiting, at the head of the queue: the next server resumes the run
 *   active --the server dies, or the lock is lost--> waiting: see `RunningRequest` for who goes on with it
 *   active --the output is busy--> delayed; or over, when it may not wait
 */
export class RunsServer {
  readonly #id = processName();
  readonly #since = Date.now();
  readonly #stopping = new AbortController();
  readonly #running = new Map<string, RunningRequest>();
  readonly #deps: RequestDeps;
  readonly #lateResults: LateResults;
  #worker: JobWorker<unknown, RunOutcome> | undefined;
  #background: Promise<unknown> = Promise.resolve();

  private constructor(private readonly options: RunsServerOptions) {
    // Each of the runs that go on listens.
    setMaxListeners(0, this.#stopping.signal);
    this.#lateResults = new LateResults(options);
    this.#deps = {
      ...options,
      serverId: this.#id,
      stopping: this.#stopping.signal,
      collected: (run) => this.#lateResults.collected(run),
      waiting: new Map(),
      leave: (id) => {
        this.#running.delete(id);
        return this.#publish();
      },
    };
  }

  /** Starts a server on an open queue. */
  static async start(options: RunsServerOptions): Promise<RunsServer> {
    const server = new RunsServer(options);
    await server.#publish();
    const concurrency = options.runsAtOnce ?? RUNS_AT_ONCE;
    server.#worker = options.connection.worker<unknown, RunOutcome>(
      RUNS_QUEUE,
      (job, token) => server.#process(job, token ?? ''),
      { concurrency, name: server.#id, removeOnComplete: KEPT_JOBS, removeOnFail: KEPT_JOBS },
    );
    const { signal } = server.#stopping;
    const onError = debugError(options.logger, 'the queue did not answer; trying again');
    const beating = repeat(HEARTBEAT_MS, signal, () => server.#publish(), onError);
    server.#background = Promise.all([beating, server.#lateResults.watch(signal)]);
    return server;
  }

  /** Takes no more requests, and releases the runs that go on: with everything on disk. */
  async stop(): Promise<void> {
    const { connection, logger } = this.options;
    const closing = this.#worker?.close() ?? Promise.resolve();
    this.#stopping.abort();
    const inTime = await isDoneInTime(closing, (waitedMs) => {
      const isExecuting = [...this.#running.values()].some((request) => request.isExecuting);
      const mayAnswer = !connection.outage.isDown || isExecuting;
      return waitedMs < STOP_DEADLINE_MS && (mayAnswer || waitedMs < AWAY_DEADLINE_MS);
    });
    if (!inTime)
      logger.error('not all runs could be released in time: they are taken up when their locks end');
    await this.#background;
    const withdrawn = SERVERS.withdraw(connection.store, this.#id);
    const onError = debugError(logger, 'the server is taken off the list when its time is over');
    await atShutdown(connection, SHUTDOWN_TIMEOUT_MS, withdrawn, onError);
  }

  /** Of several processings of a job the newest one ends it; the others leave it alone. */
  async #process(job: RunRequestJob, token: string): Promise<RunOutcome> {
    const id = job.id ?? '';
    const known = this.#running.get(id);
    known?.rejoin(job, token);
    const request = known ?? new RunningRequest(job, token, this.#deps);
    this.#running.set(id, request);
    const ended = await request.execute().finally(() => this.#running.delete(id));
    if (!request.isOf(token)) throw new WaitingError();
    if (ended.outcome === 'refused') throw new UnrecoverableError(ended.reason ?? '');
    return ended;
  }

  async #publish(): Promise<void> {
    const { connection, root, runsAtOnce = RUNS_AT_ONCE } = this.options;
    const runs = [...this.#running.values()].map((request) => request.shown);
    const about = { host: hostname(), pid: process.pid, root: root.path, since: this.#since };
    await SERVERS.publish(connection.store, this.#id, { ...about, runsAtOnce, runs });
  }
}

const LATE_RESULTS_EVERY_MS = 5000;
/** Whose results are looked for: the newest of the runs that ended within the last day. */
const LOOKED_AT_MS = 24 * 3_600_000;
const MOST_LOOKED_AT = 200;

/**
 * Watches runs that have ended: somebody may have put a failed job back on the dashboard, which its worker then sets aside,
 * or a worker may have finished what was left in flight. Such a run is executed once more, in a way that pays for
 * nothing but what was put back.
 */
class LateResults {
  /** Results that a run has left in its queue, since their rows are not in the manifest any more. */
  readonly #left = new Map<string, number>();

  constructor(private readonly options: RunsServerOptions) {}

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
    const { lateResultsEveryMs = LATE_RESULTS_EVERY_MS, logger } = this.options;
    const onError = debugError(logger, 'the queue did not answer; looking again');
    await repeat(lateResultsEveryMs, signal, () => this.#look(), onError);
  }

  async #look(): Promise<void> {
    const { connection, root } = this.options;
    const now = Date.now();
    const ended = (await KEPT_REQUESTS.list(connection.store))
      .filter((kept) => kept.root === root.path && now - (kept.endedAt ?? 0) < LOOKED_AT_MS)
      .slice(0, MOST_LOOKED_AT);
    if (ended.length === 0) return;
    const runs = await listRuns(connection.store);
    const living = new Set(runs.filter(({ state }) => state === 'running').map(({ run }) => run));
    for (const kept of ended) if (!living.has(kept.run)) await this.#lookAt(kept);
  }

  async #lookAt({ run, request, stop }: KeptRequest): Promise<void> {
    const { connection, logger, root } = this.options;
    const setAside = await listSetAside(connection.store, run);
    const count = (await this.#count(run)) + setAside.length;
    const left = Math.min(count, this.#left.get(run) ?? 0);
    this.#left.set(run, left);
    if (count <= left) return;
    const queue = connection.queue<RunRequest, RunOutcome>(RUNS_QUEUE);
    const id = `collect-${run}`;
    // One that has collected already may still call --on-done, and no other is added before its job is over.
    if ((await queue.getDeduplicationJobId(id)) !== null) return;
    // Whoever has the output takes them up, or may end soon: a request would be skipped at once, with exit code 5. Where
    // that cannot be told, its execution says why.
    const isTaken = async () => isLocked(runPaths(await root.output(request.output ?? '')).lock);
    if (await isTaken().catch(() => false)) return;
    const text = 'results have come, or images were put back, for a run that has ended';
    logger.info({ run, results: count - left }, text);
    const again = { ...request, collectOnly: true, stoppedBefore: stop };
    await queue.add(RUN_JOB, again, { deduplication: { id } });
    this.#left.set(run, count);
  }
}
