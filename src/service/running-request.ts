import { DelayedError, WaitingError } from 'bullmq';
import type { RunEvent, RunStop } from '../run/run-options.js';
import { messageOf } from '../shared/errors.js';
import { debugError } from '../shared/log.js';
import { SERVERS } from '../shared/published.js';
import { LOCK_MS } from '../shared/queue/connection.js';
import { atShutdown, retryUntilUp, shutdownTimeout } from '../shared/queue/outage.js';
import { unlessMoved } from '../shared/queue/job-moves.js';
import { unlessAborted } from '../shared/waiting.js';
import { type Execution, type ExecutorDeps, executeJob } from './execute-request.js';
import { callOnDone } from './on-done.js';
import { Ping, pingUrlOf } from './ping.js';
import {
  KEPT_REQUESTS,
  RUNS_QUEUE,
  type RequestNames,
  type RunJobProgress,
  type RunOutcome,
  type RunRequest,
  type RunRequestJob,
  lastingRequest,
  openedRun,
  requestNames,
  outcomeText,
  runJobProgress,
  runRequestSchema,
} from './run-request.js';
import { noteScheduledRun } from './schedules.js';

export interface RunsServerOptions extends ExecutorDeps {
  /** Called through the shell at every end of a run. */
  readonly onDone?: string | undefined;
  /** Pinged at every start and end of a run. */
  readonly ping?: string | undefined;
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

/** What the requests of one server have in common. */
export interface RequestDeps extends RunsServerOptions {
  readonly serverId: string;
  /** Aborts when the server is to end. */
  readonly stopping: AbortSignal;
  /** The results of a run that had ended have been collected once more. */
  readonly collected: (run: string) => Promise<void>;
  /** Of jobs that wait: what was last reported of it. */
  readonly waiting: Map<string, string>;
  /** Takes a request off the list of those that this server executes. */
  readonly leave: (id: string) => Promise<void>;
}

export const SHUTDOWN_TIMEOUT_MS = 5000;
const BUSY_RETRY_MS = 2000;
/** A request that has never opened its files waits so often for whoever has its output: a minute. */
const MOST_WAITS = 30;

/**
 * A request that this server executes. The lock of its job is the claim to it, the lease of its run is the guard:
 *
 * - A process that was frozen, or whose queue was away, loses the lock. Its run goes on all the same: only another process
 *   that holds the run's lease stops it.
 * - The server that executes the request and is given its job again rejoins: the newest lock counts.
 * - Another server that is given the job delays it for as long as the first one lives, or its lease runs. Then it ends the job
 *   as the first one did, or resumes the run.
 */
export class RunningRequest {
  /** Its files are being opened, or its run goes on. */
  isExecuting = false;
  readonly #id: string;
  /** As the queue gave it last. */
  #job: RunRequestJob;
  /** Undefined when the lock is known to be lost. */
  #token: string | undefined;
  #opened: { readonly run: string; readonly manifest: string; readonly output: string } | undefined;
  #writing: Promise<void> = Promise.resolve();
  readonly #ping: Ping;
  #end: Promise<RunOutcome> | undefined;

  constructor(
    job: RunRequestJob,
    token: string,
    private readonly deps: RequestDeps,
  ) {
    this.#id = job.id ?? '';
    this.#job = job;
    this.#token = token;
    const url = pingUrlOf(deps.ping, this.#names.schedule);
    this.#ping = new Ping(url, (line) => deps.logger.error({ output: this.#name }, line));
  }

  /** The job was given to this server once more. */
  rejoin(job: RunRequestJob, token: string): void {
    this.#job = job;
    this.#token = token;
  }

  /** Whether the processing with this token is the one that ends the job. */
  isOf(token: string): boolean {
    return this.#token === token;
  }

  /** What the server's heartbeat shows of it. */
  get shown() {
    return { run: this.#opened?.run, output: this.#name, job: this.#opened && this.#id };
  }

  /** What its job holds by now; undefined when that is no request, or one of another version. */
  get #request(): RunRequest | undefined {
    return runRequestSchema.safeParse(this.#job.data).data;
  }

  /** What people know it by, as far as its job shows. */
  get #names(): Partial<RequestNames> {
    return requestNames(this.#job.data) ?? {};
  }

  get #name(): string {
    const { output, manifest } = this.#names;
    return this.#opened?.output ?? output ?? manifest ?? `job ${this.#id}`;
  }

  /**
   * Once, whoever else waits for its end.
   * @returns how its job is to end
   * @throws {DelayedError | WaitingError} by which BullMQ knows that it is in the queue again
   */
  execute(): Promise<RunOutcome> {
    return (this.#end ??= this.#execute());
  }

  async #execute(): Promise<RunOutcome> {
    try {
      const elsewhere = await this.#lookElsewhere();
      if (elsewhere !== undefined) return elsewhere;
      const wasOpened = openedRun(this.#job) !== undefined;
      const signal = this.deps.stopping;
      const onEvent = (event: RunEvent) => this.#note(event);
      this.isExecuting = true;
      const execution = await executeJob(this.#job, this.deps, { wasOpened, signal, onEvent });
      this.isExecuting = false;
      if (execution.kind === 'over') return await this.#over(execution.outcome, execution.stop);
      if (execution.kind === 'busy') return await this.#busy(execution, wasOpened);
      return await this.#release();
    } finally {
      await this.#writing;
    }
  }

  /** Looks for a request that is taken up again in other servers. @returns how it has ended there */
  async #lookElsewhere(): Promise<RunOutcome | undefined> {
    if (this.#job.attemptsStarted <= 1) return undefined;
    const { serverId, connection } = this.deps;
    for (const [id, server] of await SERVERS.listLiving(connection.store)) {
      if (id === serverId || server?.runs.some(({ job }) => job === this.#id) !== true) continue;
      return this.#delay(`the server with pid ${server.pid} on ${server.host} has ${this.#name}`);
    }
    // Anew: it may have ended since this one was given the job.
    const job = await connection.queue<unknown, RunOutcome>(RUNS_QUEUE).getJob(this.#id);
    return job && runJobProgress(job)?.outcome;
  }

  #note(event: RunEvent): void {
    const { onEvent } = this.deps;
    if (event.type === 'opened') {
      const { run, manifest, output } = event;
      this.#opened = { run, manifest, output };
      this.deps.waiting.delete(this.#id);
      this.#ping.start(`${manifest} -> ${output}`);
      this.#write(() => this.#job.updateProgress({ state: 'opened', run, manifest, output }));
      this.#write(async () => {
        onEvent({ type: 'opened', run, output });
        // From here on the run can be retried and cancelled by its id or output.
        await this.#keep(run, output);
      });
    } else if (event.type === 'notice') {
      this.#write(() => this.#job.log(event.text));
      if (event.isOutage !== true) onEvent({ type: 'notice', output: this.#name, text: event.text });
    }
  }

  /** One after the other. */
  #write(write: () => Promise<unknown>): void {
    const onError = debugError(this.deps.logger, 'what a job shows could not be stored', { job: this.#id });
    this.#writing = this.#writing.then(write).then(() => undefined, onError);
  }

  /** Keeps the request, so that it can be executed again by the run's id or output. */
  async #keep(run: string, output: string, end?: { endedAt: number; stop?: RunStop | undefined }) {
    const { connection, root } = this.deps;
    const request = this.#request;
    if (request === undefined) return;
    const kept = { run, request: lastingRequest(request, output), root: root.path, ...end };
    await KEPT_REQUESTS.publish(connection.store, run, kept);
  }

  /**
   * Two runs on one output never overlap: the second one is refused, a scheduled run is skipped. But a run that is
   * taken up again may meet its own server, or the lease of one that has died, and waits for the end of that. One that
   * has begun is never refused for its own server: that may be frozen for however long, and when it dies nobody else
   * would resume the run.
   */
  async #busy({ reason, exitCode }: Extract<Execution, { kind: 'busy' }>, wasOpened: boolean) {
    const { attemptsStarted } = this.#job;
    if (attemptsStarted > 1 && (wasOpened || attemptsStarted <= MOST_WAITS)) return this.#delay(reason);
    const request = this.#request;
    const isSkipped = request?.schedule !== undefined || request?.collectOnly === true;
    return this.#over({ outcome: isSkipped ? 'skipped' : 'refused', exitCode, reason });
  }

  /** Looks again later, here or elsewhere. */
  async #delay(reason: string): Promise<never> {
    const { waiting, busyRetryMs = BUSY_RETRY_MS, onEvent } = this.deps;
    if (waiting.get(this.#id) !== reason) onEvent({ type: 'waiting', reason });
    waiting.set(this.#id, reason);
    await this.#job.moveToDelayed(Date.now() + busyRetryMs, this.#token);
    throw new DelayedError();
  }

  /** Puts the job back to the head of the queue. */
  async #release(): Promise<never> {
    const { connection, logger, onEvent, leave } = this.deps;
    onEvent({ type: 'released', output: this.#name });
    await this.#writing;
    // The next server looks whether this one still has it.
    const onError = debugError(logger, 'the run is taken up when this server is off the list');
    await atShutdown(connection, SHUTDOWN_TIMEOUT_MS, leave(this.#id), onError);
    if (await this.#isHeld()) {
      const moving = this.#job.moveToWait(this.#token);
      await unlessAborted(moving, AbortSignal.timeout(SHUTDOWN_TIMEOUT_MS));
    }
    throw new WaitingError();
  }

  /** Reports the end, then calls the command, and then ends the job: a server that dies between does this again. */
  async #over(outcome: RunOutcome, stop?: RunStop): Promise<RunOutcome> {
    const { connection, root, env, logger, collected, stopping, onEvent, onDone, waiting } = this.deps;
    const { exitCode, reason = '', receipt } = outcome;
    const names = this.#names;
    waiting.delete(this.#id);
    const { run, output } = receipt ?? this.#opened ?? {};
    const refused = { state: 'refused', exitCode, reason } as const;
    if (outcome.outcome === 'refused') this.#write(() => this.#job.updateProgress(refused));
    if (run !== undefined && output !== undefined) {
      const keeping = this.#keep(run, output, { endedAt: Date.now(), stop });
      await keeping.catch(debugError(logger, 'the request is not kept', { run }));
      if (this.#request?.collectOnly === true) await collected(run);
    }
    onEvent({ type: 'over', name: this.#name, outcome });
    const { schedule } = names;
    if (schedule !== undefined) {
      await noteScheduledRun(connection, schedule, this.#job, outcome).catch((error: unknown) => {
        logger.warn({ schedule, error: messageOf(error) }, "the end of a schedule's run is not kept");
      });
    }
    // The process lives until it has arrived, and the next run of the schedule does not wait for it.
    void this.#ping.end(exitCode, `${this.#name}: ${outcomeText(outcome)}`);
    if (onDone !== undefined) {
      const about = { command: onDone, cwd: root.path, env, logger, signal: stopping };
      await callOnDone({ names, outcome, run, output }, about);
    }
    if (!(await this.#isHeld())) {
      // Whoever is given the job next ends it so.
      const opened = outcome.outcome === 'ended' && this.#opened;
      const progress: RunJobProgress = { ...(opened ? { state: 'opened', ...opened } : refused), outcome };
      await retryUntilUp(connection, () => unlessMoved(this.#job.updateProgress(progress)), this.#patience());
    }
    return outcome;
  }

  /** Waits for a queue that is away, but not at the server's end. */
  async #isHeld(): Promise<boolean> {
    const { connection, logger } = this.deps;
    const token = this.#token;
    if (token === undefined) return false;
    try {
      const extend = () => this.#job.extendLock(token, LOCK_MS);
      const isLost = (await retryUntilUp(connection, extend, this.#patience())) === 0;
      if (isLost && this.isOf(token)) this.#token = undefined;
    } catch (error) {
      debugError(logger, 'nobody knows who has the request', { job: this.#id })(error);
    }
    return this.#token !== undefined;
  }

  #patience(): AbortSignal {
    const { connection, stopping } = this.deps;
    return stopping.aborted ? shutdownTimeout(connection, SHUTDOWN_TIMEOUT_MS) : stopping;
  }
}
