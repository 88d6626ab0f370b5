import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { hostname } from 'node:os';
import { UnrecoverableError, WaitingError } from 'bullmq';
import type { RunStop } from '../run/run-options.js';
import { messageOf } from '../shared/errors.js';
import { debugError } from '../shared/log.js';
import { atShutdown, outOfPatience } from '../shared/queue/outage.js';
import { SERVERS } from '../shared/published.js';
import type { JobWorker } from '../shared/queue/connection.js';
import * as registry from '../shared/queue/registry.js';
import { repeat } from '../shared/waiting.js';
import { type Execution, type ExecutorDeps, executeJob } from './execute-request.js';
import { LateResults, keepRequest } from './late-results.js';
import { callOnDone } from './on-done.js';
import { RUNS_QUEUE, type RunOutcome, type RunRequestJob } from './run-request.js';
import { Claim, type ClaimDeps, RunningRequest, SHUTDOWN_TIMEOUT_MS } from './running-request.js';
import { noteScheduledRun } from './schedules.js';

export interface RunsServerOptions extends ExecutorDeps {
  /** Called through the shell at every end of a run. */
  readonly onDone?: string | undefined;
  /** 20. */
  readonly runsAtOnce?: number | undefined;
  readonly onEvent: (event: ServerEvent) => void;
  /** How often the results of ended runs are looked at, and how long a run that is taken up again waits for its output. */
  readonly lateResultsEveryMs?: number | undefined;
  readonly busyRetryMs?: number | undefined;
}

/** What a server reports to people. */
export type ServerEvent =
  | { readonly type: 'opened'; readonly run: string; readonly output: string }
  | { readonly type: 'over'; readonly name: string; readonly outcome: RunOutcome }
  /** What a run says of its queue, its workers and its manifest. */
  | { readonly type: 'notice'; readonly output: string; readonly text: string }
  | { readonly type: 'released'; readonly output: string }
  | { readonly type: 'waiting'; readonly reason: string };

const RUNS_AT_ONCE = 20;
/** Requests that are over stay in the queue for people who watch. */
const KEPT_JOBS = { count: 200 };
const HEARTBEAT_MS = 1000;
const BUSY_RETRY_MS = 2000;
const STOP_DEADLINE_MS = 30_000;
/** The same while the queue is away, which then could not take the runs back, once they have written what they have. */
const AWAY_DEADLINE_MS = 2000;

/** How a request's job is to end; by an error BullMQ knows that it is in the queue again. */
type JobEnd = RunOutcome | Error;

/**
 * Executes what is in the runs queue, several requests at once. What becomes of a request's job:
 *
 *   waiting --taken--> active --over--> completed; failed when it was refused
 *   active --the server stops--> waiting, at the head of the queue: the next server resumes the run
 *   active --the server dies, or the lock is lost--> waiting: see `Claim` for who goes on with it
 *   active --the output is busy--> delayed; or over, when it may not wait
 */
export class RunsServer {
  readonly #id = randomUUID();
  readonly #since = Date.now();
  readonly #stopping = new AbortController();
  readonly #ended = new AbortController();
  readonly #running = new Map<string, { readonly request: RunningRequest; readonly end: Promise<JobEnd> }>();
  readonly #claims: ClaimDeps;
  #executing = 0;
  readonly #lateResults: LateResults;
  #worker: JobWorker<unknown, RunOutcome> | undefined;
  #background: Promise<unknown> = Promise.resolve();

  private constructor(private readonly options: RunsServerOptions) {
    // Each of the runs that go on listens.
    setMaxListeners(0, this.#stopping.signal);
    const { connection, root, logger, lateResultsEveryMs: everyMs, busyRetryMs } = options;
    this.#lateResults = new LateResults(connection, root.path, { logger, everyMs });
    this.#claims = {
      connection,
      logger,
      serverId: this.#id,
      stopping: this.#stopping.signal,
      retryMs: busyRetryMs ?? BUSY_RETRY_MS,
      onWaiting: (reason) => options.onEvent({ type: 'waiting', reason }),
      waits: new Map(),
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
    const { signal } = server.#ended;
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
    this.#ended.abort();
    const isClosed = new AbortController();
    const outOfTime = outOfPatience(isClosed.signal, (waitedMs) => {
      const mayAnswer = !connection.isAway() || this.#executing > 0;
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
    const known = this.#running.get(job.id ?? '');
    known?.request.claim.rejoin(job, token);
    const { request, end } = known ?? this.#begin(job, token);
    const ended = await end;
    if (!request.claim.isOf(token)) throw new WaitingError();
    if (ended instanceof Error) throw ended;
    if (ended.outcome === 'refused') throw new UnrecoverableError(ended.reason ?? '');
    return ended;
  }

  #begin(job: RunRequestJob, token: string) {
    const claim = new Claim(job, token, this.#claims);
    const request: RunningRequest = new RunningRequest(claim, this.options.logger, async (opened) => {
      claim.noteProgress();
      this.options.onEvent({ type: 'opened', ...opened });
      // Kept from here on, so that the run can be retried and cancelled by its id or output.
      await keepRequest(this.options, request.request, opened);
    });
    const end = this.#runToEnd(request).finally(() => this.#running.delete(claim.id));
    const begun = { request, end };
    this.#running.set(claim.id, begun);
    return begun;
  }

  async #runToEnd(request: RunningRequest): Promise<JobEnd> {
    try {
      const elsewhere = await request.claim.elsewhere(request.name);
      if (elsewhere !== undefined) return elsewhere;
      this.#executing++;
      const execution = await this.#execute(request).finally(() => this.#executing--);
      if (execution.kind === 'over') return await this.#over(request, execution.outcome, execution.stop);
      if (execution.kind === 'busy') return await this.#busy(request, execution);
      return await this.#release(request);
    } finally {
      await request.settled();
    }
  }

  #execute(request: RunningRequest): Promise<Execution> {
    return executeJob(request.job, this.options, {
      wasOpened: request.wasOpened,
      signal: this.#stopping.signal,
      onEvent: (event) => {
        request.note(event);
        if (event.type !== 'notice' || event.isOutage === true) return;
        this.options.onEvent({ type: 'notice', output: request.name, text: event.text });
      },
    });
  }

  async #release(request: RunningRequest): Promise<JobEnd> {
    this.options.onEvent({ type: 'released', output: request.name });
    await request.settled();
    // The next server looks whether this one still has it.
    this.#running.delete(request.claim.id);
    const { connection, logger } = this.options;
    const onError = debugError(logger, 'the run is taken up when this server is off the list');
    await atShutdown(connection, SHUTDOWN_TIMEOUT_MS, this.#publish(), onError);
    return request.claim.release();
  }

  /**
   * Two runs on one output never overlap: the second one is refused, a scheduled run is skipped. But a run that is
   * taken up again may meet its own server, or the lease of one that has died, and waits for the end of that.
   */
  async #busy(
    running: RunningRequest,
    { reason, exitCode }: Extract<Execution, { kind: 'busy' }>,
  ): Promise<JobEnd> {
    const { claim, wasOpened, names, request } = running;
    if (await claim.mayWait(wasOpened, names.output)) return claim.delay(reason);
    const isSkipped = request?.schedule !== undefined || request?.collectOnly === true;
    return this.#over(running, { outcome: isSkipped ? 'skipped' : 'refused', exitCode, reason });
  }

  /** Reports the end, then calls the command, and then ends the job: a server that dies between does this again. */
  async #over(running: RunningRequest, outcome: RunOutcome, stop?: RunStop): Promise<RunOutcome> {
    const { claim, names, request } = running;
    const { connection, onDone, root, env, logger } = this.options;
    claim.noteProgress();
    if (outcome.outcome === 'refused') running.refuse(outcome.exitCode, outcome.reason ?? '');
    const run = outcome.receipt?.run ?? running.run;
    const output = outcome.receipt?.output ?? running.output;
    if (run !== undefined && output !== undefined) {
      const ended = { run, output, endedAt: Date.now(), stop };
      const kept = keepRequest(this.options, request, ended);
      await kept.catch(debugError(logger, 'the request is not kept', { run }));
      if (request?.collectOnly === true) await this.#lateResults.collected(run);
    }
    this.options.onEvent({ type: 'over', name: running.name, outcome });
    const { schedule } = names;
    if (schedule !== undefined) {
      const noted = noteScheduledRun(connection, { name: schedule, job: claim.job }, outcome);
      await noted.catch((error: unknown) => {
        logger.warn({ schedule, error: messageOf(error) }, "the end of a schedule's run is not kept");
      });
    }
    if (onDone !== undefined) {
      const end = { names, outcome, run, output };
      const { signal } = this.#stopping;
      await callOnDone(end, { command: onDone, cwd: root.path, env, logger, signal });
    }
    await claim.keepEnd(outcome);
    return outcome;
  }

  async #publish(): Promise<void> {
    const { connection, root, runsAtOnce = RUNS_AT_ONCE } = this.options;
    const runs = [...this.#running.values()].map(({ request: { run, name, claim } }) => ({
      run,
      output: name,
      job: run === undefined ? undefined : claim.id,
    }));
    const about = { host: hostname(), pid: process.pid, root: root.path, since: this.#since };
    await registry.publish(connection.store, SERVERS, this.#id, { ...about, runsAtOnce, runs });
  }
}
