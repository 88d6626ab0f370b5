import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { hostname } from 'node:os';
import { DelayedError, UnrecoverableError, WaitingError } from 'bullmq';
import type { RunStop } from '../run/receipt.js';
import type { RunEvent } from '../run/run-options.js';
import { messageOf } from '../shared/errors.js';
import { RUNS, runState, SERVERS } from '../shared/published.js';
import * as registry from '../shared/queue/registry.js';
import { outOfPatience } from '../shared/patience.js';
import type { JobWorker, QueueConnection } from '../shared/queue/connection.js';
import { lastWord } from '../shared/queue/last-word.js';
import { retryUntilUp } from '../shared/queue/retry-until-up.js';
import { unlessAborted } from '../shared/unless-aborted.js';
import { sleep } from '../shared/sleep.js';
import { type Execution, type ExecutorTools, executeRequest, refusal } from './execute-request.js';
import {
  KEPT_REQUESTS,
  type KeptRequest,
  RUNS_QUEUE,
  type RunOutcome,
  type RunRequest,
  type RunRequestJob,
  readRequest,
  runJobProgress,
} from './run-request.js';
import { LateResults } from './late-results.js';
import { mayWait } from './may-wait.js';
import { callOnDone } from './on-done.js';
import { keepEnd, takeEnd } from './request-ends.js';
import { RunningRequest } from './running-request.js';
import { executeTurn } from './scheduled-run.js';
import { noteTurn } from './schedules.js';

export interface RunsHomeOptions extends ExecutorTools {
  readonly connection: QueueConnection;
  /** Called through the shell at every end of a run. */
  readonly onDone?: string | undefined;
  /** 20. */
  readonly runsAtOnce?: number | undefined;
  readonly onEvent: (event: HomeEvent) => void;
  /** How often the results of ended runs are looked at, and how long a run that is taken up again waits for its output. */
  readonly lateResultsEveryMs?: number | undefined;
  readonly busyRetryMs?: number | undefined;
}

/** What a home tells people. */
export type HomeEvent =
  | { readonly type: 'opened'; readonly run: string; readonly output: string }
  | { readonly type: 'over'; readonly name: string; readonly outcome: RunOutcome }
  /** What a run tells of its queue, its workers and its manifest. */
  | { readonly type: 'notice'; readonly output: string; readonly text: string }
  | { readonly type: 'handed-back'; readonly output: string }
  | { readonly type: 'waiting'; readonly reason: string };

const RUNS_AT_ONCE = 20;
/** Requests that are over stay in the queue for people who watch. */
const KEPT_JOBS = 200;
const TICK_MS = 1000;
const BUSY_RETRY_MS = 2000;
/** As long as the worker's locks. */
const LOCK_MS = 10_000;
const STOP_DEADLINE_MS = 30_000;
/** The same while the queue is away, which then could not take the runs back, once they have written what they have. */
const AWAY_DEADLINE_MS = 2000;
const LAST_WORD_MS = 5000;

/** What becomes of a request's job. */
type Ending =
  | { readonly kind: 'over'; readonly outcome: RunOutcome }
  /** It is in the queue again; the error tells BullMQ so. */
  | { readonly kind: 'put-back'; readonly error: Error };

interface Begun {
  readonly running: RunningRequest;
  readonly ending: Promise<Ending>;
}

/**
 * A home that executes what is in the runs queue, several requests at once.
 *
 * What becomes of a request's job:
 *   waiting --taken--> active --over--> completed; failed when it was refused
 *   active --the home ends--> waiting, at the head of the queue: the next home resumes the run
 *   active --the home dies--> waiting, when its lock is over
 *   active --taken up again, while its home lives or the dead home's lease still runs--> delayed
 *   active --the lock is lost, the home is not--> waiting: given to this home once more, it joins what goes on; another
 *     home puts it off, and ends it as the first one did
 */
export class RunsHome {
  readonly id = randomUUID();
  readonly #stopping = new AbortController();
  readonly #ended = new AbortController();
  readonly #running = new Map<string, Begun>();
  /** Of requests that wait: since when without a sign of life, and what people were told of it. */
  readonly #waiting = new Map<string, { readonly since: number; readonly told?: string }>();
  #executing = 0;
  readonly #since = Date.now();
  readonly #lateResults: LateResults;
  #worker: JobWorker<unknown, RunOutcome> | undefined;
  #ticking: Promise<unknown> = Promise.resolve();

  private constructor(private readonly options: RunsHomeOptions) {
    // Each of the runs that go on listens.
    setMaxListeners(0, this.#stopping.signal);
    this.#lateResults = new LateResults(options.connection, options.root.path, {
      logger: options.logger,
      everyMs: options.lateResultsEveryMs,
    });
  }

  /** Starts a home on an open queue. */
  static async start(options: RunsHomeOptions): Promise<RunsHome> {
    const home = new RunsHome(options);
    await home.#announce();
    home.#worker = options.connection.worker<unknown, RunOutcome>(
      RUNS_QUEUE,
      (job, token) => home.#process(job, token ?? ''),
      {
        concurrency: options.runsAtOnce ?? RUNS_AT_ONCE,
        name: home.id,
        removeOnComplete: { count: KEPT_JOBS },
        removeOnFail: { count: KEPT_JOBS },
      },
    );
    home.#ticking = Promise.all([home.#tick(), home.#lateResults.watch(home.#ended.signal)]);
    return home;
  }

  /** Takes no more requests, and hands the runs that go on back: with everything on disk. */
  async stop(): Promise<void> {
    const closing = this.#worker?.close() ?? Promise.resolve();
    this.#stopping.abort();
    this.#ended.abort();
    const isClosed = new AbortController();
    const outOfTime = outOfPatience(isClosed.signal, (waitedMs) => this.#isHopeful(waitedMs));
    await Promise.race([closing.finally(() => isClosed.abort()), outOfTime]);
    if (!isClosed.signal.aborted) {
      this.options.logger.error(
        'not all runs could be handed back in time: they are taken up when their locks end',
      );
    }
    await this.#ticking;
    const withdrawn = registry.withdraw(this.options.connection.store, SERVERS, this.id);
    await unlessAborted(withdrawn, lastWord(this.options.connection, LAST_WORD_MS)).catch(
      (error: unknown) => {
        this.options.logger.debug(
          { error: messageOf(error) },
          'the home is taken off the list when its time is over',
        );
      },
    );
  }

  #isHopeful(waitedMs: number): boolean {
    const mayAnswer = !this.options.connection.isAway() || this.#executing > 0;
    return waitedMs < STOP_DEADLINE_MS && (mayAnswer || waitedMs < AWAY_DEADLINE_MS);
  }

  /** Whether it takes requests. */
  get isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  /**
   * A home is given its own running request once more when the queue has lost the lock, since it was away, or this process
   * frozen. There is one execution, which ends the job of the newest activation; the others leave it alone.
   */
  async #process(job: RunRequestJob, token: string): Promise<RunOutcome> {
    const known = this.#running.get(job.id ?? '');
    known?.running.hold(job, token);
    const { running, ending } = known ?? this.#begin(job, token);
    const end = await ending;
    if (running.token !== token) throw new WaitingError();
    if (end.kind === 'put-back') throw end.error;
    if (end.outcome.outcome === 'refused') throw new UnrecoverableError(end.outcome.reason ?? '');
    return end.outcome;
  }

  #begin(job: RunRequestJob, token: string): Begun {
    const running: RunningRequest = new RunningRequest(job, token, this.options.logger, (opened) =>
      this.#opened(running, opened),
    );
    const ending = this.#runToEnd(running).finally(() => this.#running.delete(running.id));
    const begun = { running, ending };
    this.#running.set(running.id, begun);
    return begun;
  }

  async #runToEnd(running: RunningRequest): Promise<Ending> {
    try {
      const elsewhere = await this.#lookElsewhere(running);
      if (elsewhere !== undefined) return elsewhere;
      this.#executing++;
      const execution = await this.#execute(running.job, running).finally(() => this.#executing--);
      if (execution.kind === 'over') return await this.#over(running, execution.outcome, execution.stop);
      if (execution.kind === 'busy') return await this.#busy(running, execution);
      return await this.#handBack(running);
    } finally {
      await running.settled();
    }
  }

  /** A request that is taken up again may go on in another home, or have ended there. */
  async #lookElsewhere(running: RunningRequest): Promise<Ending | undefined> {
    if (running.job.attemptsStarted <= 1) return undefined;
    const { store } = this.options.connection;
    const servers = await registry.listLiving(store, SERVERS);
    servers.delete(this.id);
    const other = [...servers.values()].find((server) => server?.runs.some(({ job }) => job === running.id));
    if (other !== undefined) {
      return this.#putOff(running, `the home with pid ${other.pid} on ${other.host} has ${running.name}`);
    }
    const outcome = await takeEnd(store, running.id);
    return outcome === undefined ? undefined : { kind: 'over', outcome };
  }

  async #execute(job: RunRequestJob, running: RunningRequest): Promise<Execution> {
    let request: RunRequest;
    try {
      request = takenUpAgain(job, readRequest(job.data, `the request of job ${job.id ?? ''}`));
    } catch (error) {
      return { kind: 'over', outcome: refusal(error, this.options.logger) };
    }
    const options = {
      newRun: /^[a-z][a-z0-9]{11}$/.test(job.id ?? '') ? job.id : undefined,
      signal: this.#stopping.signal,
      onEvent: (event: RunEvent) => {
        running.hear(event);
        if (event.type !== 'notice' || event.isOutage === true) return;
        this.options.onEvent({ type: 'notice', output: running.name, text: event.text });
      },
    };
    return request.schedule === undefined
      ? executeRequest(request, this.options, options)
      : executeTurn(job, request, this.options, options);
  }

  /** Kept from here on, so that the run can be retried and cancelled by its id or output. */
  async #opened(running: RunningRequest, { run, output }: { run: string; output: string }): Promise<void> {
    this.#waiting.delete(running.id);
    this.options.onEvent({ type: 'opened', run, output });
    await this.#keep(running, { run, output });
  }

  async #keep(
    running: RunningRequest,
    { run, output }: { run: string; output: string },
    end: Pick<KeptRequest, 'endedAt' | 'stop'> = {},
  ): Promise<void> {
    const { connection, root } = this.options;
    if (running.request === undefined) return;
    const request = lastingRequest(running.request, output);
    await registry.publish(connection.store, KEPT_REQUESTS, run, { run, request, root: root.path, ...end });
  }

  async #handBack(running: RunningRequest): Promise<Ending> {
    const { connection, logger } = this.options;
    this.options.onEvent({ type: 'handed-back', output: running.name });
    await running.settled();
    // The next home looks whether this one still has it.
    this.#running.delete(running.id);
    await unlessAborted(this.#announce(), lastWord(connection, LAST_WORD_MS)).catch((error: unknown) => {
      logger.debug({ error: messageOf(error) }, 'the run is taken up when this home is off the list');
    });
    if (await this.#isOurs(running)) {
      const moving = running.job.moveToWait(running.token);
      await unlessAborted(moving, AbortSignal.timeout(LAST_WORD_MS));
    }
    return { kind: 'put-back', error: new WaitingError() };
  }

  /**
   * Two runs on one output never overlap: the second one is refused, a schedule's turn is skipped. But a run that is
   * taken up again may meet its own home, or the lease of one that has died, and waits for the end of that.
   */
  async #busy(
    running: RunningRequest,
    { reason, exitCode }: Extract<Execution, { kind: 'busy' }>,
  ): Promise<Ending> {
    if (await this.#mayWait(running)) return await this.#putOff(running, reason);
    const { request } = running;
    const isTurn = request?.schedule !== undefined || request?.collectOnly === true;
    return this.#over(running, { outcome: isTurn ? 'skipped' : 'refused', exitCode, reason });
  }

  async #mayWait({ id, job, wasOpened, names: { output } }: RunningRequest): Promise<boolean> {
    const now = Date.now();
    const runs = await registry.list(this.options.connection.store, RUNS);
    const isHolderAlive = runs.some(
      (status) => runState(status, now) === 'running' && (status.run === id || status.output === output),
    );
    const { since = now } = this.#waiting.get(id) ?? {};
    if (isHolderAlive) this.#waiting.set(id, { since: now });
    const { attemptsStarted } = job;
    return mayWait({ attemptsStarted, wasOpened, isHolderAlive, silentMs: now - since });
  }

  /** Looks again in a moment, here or elsewhere. */
  async #putOff(running: RunningRequest, reason: string): Promise<Ending> {
    const { id, job, token } = running;
    const { since = Date.now(), told } = this.#waiting.get(id) ?? {};
    if (told !== reason) this.options.onEvent({ type: 'waiting', reason });
    this.#waiting.set(id, { since, told: reason });
    await job.moveToDelayed(Date.now() + (this.options.busyRetryMs ?? BUSY_RETRY_MS), token);
    return { kind: 'put-back', error: new DelayedError() };
  }

  /** Tells whoever waits, then the command, and then the queue: a home that dies between does this again. */
  async #over(running: RunningRequest, outcome: RunOutcome, stop?: RunStop): Promise<Ending> {
    const { id, job, names, request } = running;
    const { connection, onDone, root, env, logger } = this.options;
    const reason = outcome.reason ?? '';
    this.#waiting.delete(id);
    if (outcome.outcome === 'refused') running.refuse(outcome.exitCode, reason);
    const run = outcome.receipt?.run ?? running.run;
    const output = outcome.receipt?.output ?? running.output;
    if (run !== undefined && output !== undefined) {
      await this.#keep(running, { run, output }, { endedAt: Date.now(), stop }).catch((error: unknown) => {
        logger.debug({ run, error: messageOf(error) }, 'the request is not kept');
      });
      if (request?.collectOnly === true) await this.#lateResults.collected(run);
    }
    this.options.onEvent({ type: 'over', name: running.name, outcome });
    if (names.schedule !== undefined) await this.#noteTurn(names.schedule, job, outcome);
    if (onDone !== undefined) {
      await callOnDone(
        { names, outcome, run, output },
        { command: onDone, cwd: root.path, env, logger, signal: this.#stopping.signal },
      );
    }
    if (!(await this.#isOurs(running))) {
      await retryUntilUp(connection, () => keepEnd(connection.store, id, outcome), this.#patience());
    }
    return { kind: 'over', outcome };
  }

  /** Whether this home still has the lock on a request's job. Waits for a queue that is away, but not at the home's end. */
  async #isOurs(running: RunningRequest): Promise<boolean> {
    const { connection, logger } = this.options;
    const { job, token } = running;
    if (token === undefined) return false;
    try {
      const extend = () => job.extendLock(token, LOCK_MS);
      if ((await retryUntilUp(connection, extend, this.#patience())) === 0) running.letGo(token);
    } catch (error) {
      logger.debug({ job: running.id, error: messageOf(error) }, 'nobody knows who has the request');
    }
    return running.token !== undefined;
  }

  #patience(): AbortSignal {
    const { signal } = this.#stopping;
    return signal.aborted ? lastWord(this.options.connection, LAST_WORD_MS) : signal;
  }

  async #noteTurn(schedule: string, job: RunRequestJob, outcome: RunOutcome): Promise<void> {
    const { connection, logger } = this.options;
    try {
      await noteTurn(connection, { name: schedule, turn: job }, outcome, Date.now());
    } catch (error) {
      logger.warn({ schedule, error: messageOf(error) }, "the end of a schedule's run is not kept");
    }
  }

  async #tick(): Promise<void> {
    while (await sleep(TICK_MS, this.#ended.signal)) {
      try {
        await unlessAborted(this.#announce(), this.#ended.signal);
      } catch (error) {
        this.options.logger.debug({ error: messageOf(error) }, 'the queue did not answer; trying again');
      }
    }
  }

  async #announce(): Promise<void> {
    const { connection, root, runsAtOnce = RUNS_AT_ONCE } = this.options;
    const runs = [...this.#running.values()].map(({ running }) => ({
      run: running.run,
      output: running.name,
      job: running.run === undefined ? undefined : running.id,
    }));
    await registry.publish(connection.store, SERVERS, this.id, {
      host: hostname(),
      pid: process.pid,
      root: root.path,
      since: this.#since,
      runsAtOnce,
      runs,
    });
  }
}

/** A run that has begun has changed the account's limits already; somebody may have changed them since. */
function takenUpAgain(job: RunRequestJob, request: RunRequest): RunRequest {
  return runJobProgress(job)?.state === 'opened' ? { ...request, limits: undefined } : request;
}

/** Without what was said for one time: whoever asks again may want something else, and limits are the account's by now. */
function lastingRequest(request: RunRequest, output: string): RunRequest {
  const once = [
    'retryAll',
    'onlyFailed',
    'collectOnly',
    'stoppedBefore',
    'limits',
    'schedule',
    'timeZone',
    'begunAt',
    'outputPattern',
    'payAgain',
    'newColumns',
  ];
  const lasting = Object.entries(request).filter(([name]) => !once.includes(name));
  return readRequest({ ...Object.fromEntries(lasting), output });
}
