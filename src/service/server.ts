import { setMaxListeners } from 'node:events';
import { hostname } from 'node:os';
import { UnrecoverableError, WaitingError } from 'bullmq';
import { debugError } from '../shared/log.js';
import { atShutdown, outOfPatience } from '../shared/queue/outage.js';
import { processName } from '../shared/process-identity.js';
import { SERVERS } from '../shared/published.js';
import type { JobWorker } from '../shared/queue/connection.js';
import * as registry from '../shared/queue/registry.js';
import { repeat } from '../shared/waiting.js';
import { LateResults } from './late-results.js';
import { RUNS_QUEUE, type RunOutcome, type RunRequestJob } from './run-request.js';
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
  #worker: JobWorker<unknown, RunOutcome> | undefined;
  #background: Promise<unknown> = Promise.resolve();

  private constructor(private readonly options: RunsServerOptions) {
    // Each of the runs that go on listens.
    setMaxListeners(0, this.#stopping.signal);
    this.#deps = {
      ...options,
      serverId: this.#id,
      stopping: this.#stopping.signal,
      lateResults: new LateResults(options),
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
    server.#worker = options.connection.worker<unknown, RunOutcome>(
      RUNS_QUEUE,
      (job, token) => server.#process(job, token ?? ''),
      {
        concurrency: options.runsAtOnce ?? RUNS_AT_ONCE,
        name: server.#id,
        removeOnComplete: KEPT_JOBS,
        removeOnFail: KEPT_JOBS,
      },
    );
    const { signal } = server.#stopping;
    const onError = debugError(options.logger, 'the queue did not answer; trying again');
    const beating = repeat(HEARTBEAT_MS, signal, () => server.#publish(), onError);
    server.#background = Promise.all([beating, server.#deps.lateResults.watch(signal)]);
    return server;
  }

  /** Takes no more requests, and releases the runs that go on: with everything on disk. */
  async stop(): Promise<void> {
    const { connection, logger } = this.options;
    const closing = this.#worker?.close() ?? Promise.resolve();
    this.#stopping.abort();
    const isClosed = new AbortController();
    const outOfTime = outOfPatience(isClosed.signal, (waitedMs) => {
      const isExecuting = [...this.#running.values()].some((request) => request.isExecuting);
      const mayAnswer = !connection.isAway() || isExecuting;
      return waitedMs < STOP_DEADLINE_MS && (mayAnswer || waitedMs < AWAY_DEADLINE_MS);
    });
    await Promise.race([closing.finally(() => isClosed.abort()), outOfTime]);
    if (!isClosed.signal.aborted) {
      logger.error('not all runs could be released in time: they are taken up when their locks end');
    }
    await this.#background;
    const withdrawn = registry.withdraw(connection.store, SERVERS, this.#id);
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
    if (ended instanceof Error) throw ended;
    if (ended.outcome === 'refused') throw new UnrecoverableError(ended.reason ?? '');
    return ended;
  }

  async #publish(): Promise<void> {
    const { connection, root, runsAtOnce = RUNS_AT_ONCE } = this.options;
    const runs = [...this.#running.values()].map((request) => request.shown);
    const about = { host: hostname(), pid: process.pid, root: root.path, since: this.#since };
    await registry.publish(connection.store, SERVERS, this.#id, { ...about, runsAtOnce, runs });
  }
}
