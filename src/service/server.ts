import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { hostname } from 'node:os';
import { UnrecoverableError, WaitingError } from 'bullmq';
import type { RunStop } from '../run/receipt.js';
import type { RunEvent } from '../run/run-options.js';
import { messageOf } from '../shared/errors.js';
import { outOfPatience } from '../shared/patience.js';
import { RUNS, SERVERS, runState } from '../shared/published.js';
import type { JobWorker, QueueConnection } from '../shared/queue/connection.js';
import { lastWord } from '../shared/queue/last-word.js';
import * as registry from '../shared/queue/registry.js';
import { sleep } from '../shared/sleep.js';
import { unlessAborted } from '../shared/unless-aborted.js';
import { Claim, SHUTDOWN_TIMEOUT_MS, mayWait } from './claim.js';
import { type Execution, type ExecutorDeps, executeRequest, refusal } from './execute-request.js';
import { LateResults } from './late-results.js';
import { callOnDone } from './on-done.js';
import {
  KEPT_REQUESTS,
  type KeptRequest,
  RUNS_QUEUE,
  type RunOutcome,
  type RunRequest,
  type RunRequestJob,
  lastingRequest,
  readRequest,
} from './run-request.js';
import { RunningRequest } from './running-request.js';
import { executeScheduledRun } from './scheduled-run.js';
import { noteScheduledRun } from './schedules.js';

export interface RunsServerOptions extends ExecutorDeps {
  readonly connection: QueueConnection;
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

/** How a request's job is to end; an error tells BullMQ that it is in the queue again. */
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
  /** Of requests that wait: since when without a sign of life, and what was reported of it. */
  readonly #waiting = new Map<string, { readonly since: number; readonly reported?: string }>();
  #executing = 0;
  readonly #lateResults: LateResults;
  #worker: JobWorker<unknown, RunOutcome> | undefined;
  #background: Promise<unknown> = Promise.resolve();

  private constructor(private readonly options: RunsServerOptions) {
    // Each of the runs that go on listens.
    setMaxListeners(0, this.#stopping.signal);
    const { connection, root, logger, lateResultsEveryMs: everyMs } = options;
    this.#lateResults = new LateResults(connection, root.path, { logger, everyMs });
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
    server.#background = Promise.all([server.#beat(signal), server.#lateResults.watch(signal)]);
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
    await this.#inTime(withdrawn, 'the server is taken off the list when its time is over');
  }

  /** One execution ends the job of the newest activation; the others leave it alone. */
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
    const { connection, logger } = this.options;
    const stopping = this.#stopping.signal;
    const claim = new Claim(job, token, { connection, logger, serverId: this.#id, stopping });
    const request: RunningRequest = new RunningRequest(claim, logger, async (opened) => {
      this.#waiting.delete(claim.id);
      this.options.onEvent({ type: 'opened', ...opened });
      // Kept from here on, so that the run can be retried and cancelled by its id or output.
      await this.#keep(request, opened);
    });
    const end = this.#runToEnd(request).finally(() => this.#running.delete(claim.id));
    const begun = { request, end };
    this.#running.set(claim.id, begun);
    return begun;
  }

  async #runToEnd(request: RunningRequest): Promise<JobEnd> {
    try {
      const elsewhere = await request.claim.elsewhere();
      if (elsewhere?.kind === 'ended') return elsewhere.outcome;
      if (elsewhere !== undefined) {
        const { pid, host } = elsewhere.server;
        return await this.#delay(request, `the home with pid ${pid} on ${host} has ${request.name}`);
      }
      this.#executing++;
      const execution = await this.#execute(request).finally(() => this.#executing--);
      if (execution.kind === 'over') return await this.#over(request, execution.outcome, execution.stop);
      if (execution.kind === 'busy') return await this.#busy(request, execution);
      return await this.#release(request);
    } finally {
      await request.settled();
    }
  }

  async #execute(running: RunningRequest): Promise<Execution> {
    const { job, id } = running;
    let request: RunRequest;
    try {
      request = readRequest(job.data, `the request of job ${id}`);
    } catch (error) {
      return { kind: 'over', outcome: refusal(error, this.options.logger) };
    }
    // A run that has begun has changed the account's limits already; somebody may have changed them since.
    if (running.wasOpened) request = { ...request, limits: undefined };
    const options = {
      newRun: /^[a-z][a-z0-9]{11}$/.test(id) ? id : undefined,
      signal: this.#stopping.signal,
      onEvent: (event: RunEvent) => {
        running.note(event);
        if (event.type !== 'notice' || event.isOutage === true) return;
        this.options.onEvent({ type: 'notice', output: running.name, text: event.text });
      },
    };
    return request.schedule === undefined
      ? executeRequest(request, this.options, options)
      : executeScheduledRun(job, request, this.options, options);
  }

  async #release(request: RunningRequest): Promise<JobEnd> {
    this.options.onEvent({ type: 'released', output: request.name });
    await request.settled();
    // The next server looks whether this one still has it.
    this.#running.delete(request.id);
    await this.#inTime(this.#publish(), 'the run is taken up when this server is off the list');
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
    const { id, job, wasOpened, names, request } = running;
    const now = Date.now();
    const isHolderAlive = (await registry.list(this.options.connection.store, RUNS)).some(
      (status) =>
        runState(status, now) === 'running' && (status.run === id || status.output === names.output),
    );
    if (isHolderAlive) this.#waiting.set(id, { since: now });
    const silentMs = now - (this.#waiting.get(id)?.since ?? now);
    if (mayWait({ attemptsStarted: job.attemptsStarted, wasOpened, isHolderAlive, silentMs })) {
      return this.#delay(running, reason);
    }
    const isSkipped = request?.schedule !== undefined || request?.collectOnly === true;
    return this.#over(running, { outcome: isSkipped ? 'skipped' : 'refused', exitCode, reason });
  }

  async #delay({ id, claim }: RunningRequest, reason: string): Promise<Error> {
    const { since = Date.now(), reported } = this.#waiting.get(id) ?? {};
    if (reported !== reason) this.options.onEvent({ type: 'waiting', reason });
    this.#waiting.set(id, { since, reported: reason });
    return claim.delay(this.options.busyRetryMs ?? BUSY_RETRY_MS);
  }

  /** Reports the end, then calls the command, and then ends the job: a server that dies between does this again. */
  async #over(running: RunningRequest, outcome: RunOutcome, stop?: RunStop): Promise<RunOutcome> {
    const { claim, names, request } = running;
    const { connection, onDone, root, env, logger } = this.options;
    this.#waiting.delete(claim.id);
    if (outcome.outcome === 'refused') running.refuse(outcome.exitCode, outcome.reason ?? '');
    const run = outcome.receipt?.run ?? running.run;
    const output = outcome.receipt?.output ?? running.output;
    if (run !== undefined && output !== undefined) {
      await this.#keep(running, { run, output }, { endedAt: Date.now(), stop }).catch((error: unknown) => {
        logger.debug({ run, error: messageOf(error) }, 'the request is not kept');
      });
      if (request?.collectOnly === true) await this.#lateResults.collected(run);
    }
    this.options.onEvent({ type: 'over', name: running.name, outcome });
    if (names.schedule !== undefined) {
      await noteScheduledRun(connection, { name: names.schedule, job: claim.job }, outcome).catch(
        (error: unknown) => {
          const { schedule } = names;
          logger.warn({ schedule, error: messageOf(error) }, "the end of a schedule's run is not kept");
        },
      );
    }
    if (onDone !== undefined) {
      const end = { names, outcome, run, output };
      const { signal } = this.#stopping;
      await callOnDone(end, { command: onDone, cwd: root.path, env, logger, signal });
    }
    await claim.keepEnd(outcome);
    return outcome;
  }

  async #keep(
    { request }: RunningRequest,
    { run, output }: { run: string; output: string },
    end: Pick<KeptRequest, 'endedAt' | 'stop'> = {},
  ): Promise<void> {
    if (request === undefined) return;
    const { connection, root } = this.options;
    const kept = { run, request: lastingRequest(request, output), root: root.path, ...end };
    await registry.publish(connection.store, KEPT_REQUESTS, run, kept);
  }

  async #beat(signal: AbortSignal): Promise<void> {
    while (await sleep(HEARTBEAT_MS, signal)) {
      try {
        await unlessAborted(this.#publish(), signal);
      } catch (error) {
        this.options.logger.debug({ error: messageOf(error) }, 'the queue did not answer; trying again');
      }
    }
  }

  async #publish(): Promise<void> {
    const { connection, root, runsAtOnce = RUNS_AT_ONCE } = this.options;
    const runs = [...this.#running.values()].map(({ request: { run, name, id } }) => ({
      run,
      output: name,
      job: run === undefined ? undefined : id,
    }));
    const about = { host: hostname(), pid: process.pid, root: root.path, since: this.#since };
    await registry.publish(connection.store, SERVERS, this.#id, { ...about, runsAtOnce, runs });
  }

  /** Waits for the queue, but not for long. @param otherwise what follows when it does not answer */
  async #inTime(work: Promise<void>, otherwise: string): Promise<void> {
    const { connection, logger } = this.options;
    await unlessAborted(work, lastWord(connection, SHUTDOWN_TIMEOUT_MS)).catch((error: unknown) => {
      logger.debug({ error: messageOf(error) }, otherwise);
    });
  }
}
