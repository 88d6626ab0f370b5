import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { hostname } from 'node:os';
import { DelayedError, UnrecoverableError, WaitingError } from 'bullmq';
import type { RunStop } from '../run/receipt.js';
import type { RunEvent } from '../run/run-options.js';
import { messageOf } from '../shared/errors.js';
import { announceHome, withdrawHome } from '../shared/home-status.js';
import type { JobWorker, QueueConnection } from '../shared/queue/connection.js';
import { lastWord } from '../shared/queue/last-word.js';
import { unlessAborted } from '../shared/queue/retry-until-up.js';
import { listRuns, runState } from '../shared/run-status.js';
import { sleep } from '../shared/sleep.js';
import { type Execution, type ExecutorTools, executeRequest, refusal } from './execute-request.js';
import { type KeptRequest, keepRequest } from './kept-requests.js';
import { LateResults } from './late-results.js';
import { callOnDone } from './on-done.js';
import { type RunOutcome, type RunRequestJob, runJobProgress } from './run-outcome.js';
import { RUNS_QUEUE, type RunRequest, readRequest } from './run-request.js';
import { RunningRequest } from './running-request.js';
import { executeTurn } from './execute-turn.js';
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
/** A run that a dead home had is refused when another process has its output, and shows no life, for so long. */
const BUSY_LIMIT_MS = 60_000;
const STOP_DEADLINE_MS = 30_000;
/** The same while the queue is away, which then could not take the runs back, once they have written what they have. */
const AWAY_DEADLINE_MS = 2000;
const LOOK_EVERY_MS = 100;
const LAST_WORD_MS = 5000;

/**
 * A home that executes what is in the runs queue, several requests at once.
 *
 * What becomes of a request's job:
 *   waiting --taken--> active --over--> completed; failed when it was refused
 *   active --the home ends--> waiting, at the head of the queue: the next home resumes the run
 *   active --the home dies--> waiting, when its lock is over
 *   active --taken up again, and the dead home's lease still runs--> delayed
 */
export class RunsHome {
  readonly id = randomUUID();
  readonly #stopping = new AbortController();
  readonly #ended = new AbortController();
  readonly #running = new Map<string, RunningRequest>();
  readonly #busySince = new Map<string, number>();
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
    await Promise.race([closing.finally(() => isClosed.abort()), this.#outOfPatience(isClosed.signal)]);
    if (!isClosed.signal.aborted) {
      this.options.logger.error(
        'not all runs could be handed back in time: they are taken up when their locks end',
      );
    }
    await this.#ticking;
    const withdrawn = withdrawHome(this.options.connection.store, this.id);
    await unlessAborted(withdrawn, lastWord(this.options.connection, LAST_WORD_MS)).catch(
      (error: unknown) => {
        this.options.logger.debug(
          { error: messageOf(error) },
          'the home is taken off the list when its time is over',
        );
      },
    );
  }

  async #outOfPatience(isClosed: AbortSignal): Promise<void> {
    const startedAt = performance.now();
    const lasts = (ms: number) => performance.now() - startedAt < ms;
    const isHopeful = () =>
      !this.options.connection.isAway() || this.#executing > 0 || lasts(AWAY_DEADLINE_MS);
    while (lasts(STOP_DEADLINE_MS) && isHopeful()) {
      if (!(await sleep(LOOK_EVERY_MS, isClosed))) return;
    }
  }

  /** Whether it takes requests. */
  get isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  async #process(job: RunRequestJob, token: string): Promise<RunOutcome> {
    const running: RunningRequest = new RunningRequest(job, this.options.logger, (opened) =>
      this.#opened(running, opened),
    );
    this.#running.set(job.id ?? '', running);
    try {
      this.#executing++;
      const execution = await this.#execute(job, running).finally(() => this.#executing--);
      if (execution.kind === 'over') return await this.#over(running, execution.outcome, execution.stop);
      if (execution.kind === 'busy') return await this.#busy(job, token, running, execution);
      return await this.#handBack(job, token, running);
    } finally {
      await running.settled();
      this.#running.delete(job.id ?? '');
    }
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
    this.#busySince.delete(running.job.id ?? '');
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
    await keepRequest(connection.store, { run, request, root: root.path, ...end });
  }

  async #handBack(job: RunRequestJob, token: string, running: RunningRequest): Promise<never> {
    this.options.onEvent({
      type: 'handed-back',
      output: running.name,
    });
    await running.settled();
    await unlessAborted(job.moveToWait(token), AbortSignal.timeout(LAST_WORD_MS));
    throw new WaitingError();
  }

  /**
   * Two runs on one output never overlap: the second one is refused, a schedule's turn is skipped. But a run that is
   * taken up again may meet the lease of its own home that has died, and waits for its end.
   */
  async #busy(
    job: RunRequestJob,
    token: string,
    running: RunningRequest,
    { reason, exitCode }: Extract<Execution, { kind: 'busy' }>,
  ): Promise<RunOutcome> {
    if (job.attemptsStarted > 1 && (await this.#mayWait(running))) {
      this.options.onEvent({ type: 'waiting', reason });
      await job.moveToDelayed(Date.now() + (this.options.busyRetryMs ?? BUSY_RETRY_MS), token);
      throw new DelayedError();
    }
    const { request } = running;
    const isTurn = request?.schedule !== undefined || request?.collectOnly === true;
    return this.#over(running, { outcome: isTurn ? 'skipped' : 'refused', exitCode, reason });
  }

  /** Whether the process that has the output was there a minute ago at most, or the waiting has just begun. */
  async #mayWait({ job, names: { output } }: RunningRequest): Promise<boolean> {
    const now = Date.now();
    const runs = await listRuns(this.options.connection.store);
    const isAlive = runs.some(
      (status) => runState(status, now) === 'running' && (status.run === job.id || status.output === output),
    );
    const since = isAlive ? now : (this.#busySince.get(job.id ?? '') ?? now);
    this.#busySince.set(job.id ?? '', since);
    return now - since < BUSY_LIMIT_MS;
  }

  /** Tells whoever waits, then the command, and then the queue: a home that dies between does this again. */
  async #over(running: RunningRequest, outcome: RunOutcome, stop?: RunStop): Promise<RunOutcome> {
    const { job, names, request } = running;
    const { onDone, root, env, logger } = this.options;
    const reason = outcome.reason ?? '';
    this.#busySince.delete(job.id ?? '');
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
    if (names.schedule !== undefined) await this.#noteTurn(names.schedule, outcome);
    if (onDone !== undefined) {
      await callOnDone(
        { names, outcome, run, output },
        { command: onDone, cwd: root.path, env, logger, signal: this.#stopping.signal },
      );
    }
    if (outcome.outcome === 'refused') throw new UnrecoverableError(reason);
    return outcome;
  }

  async #noteTurn(schedule: string, outcome: RunOutcome): Promise<void> {
    const { connection, logger } = this.options;
    try {
      await noteTurn(connection, schedule, outcome, Date.now());
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
    const runs = [...this.#running.values()].map((running) => ({
      run: running.run,
      output: running.name,
    }));
    await announceHome(connection.store, this.id, {
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
