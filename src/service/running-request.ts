import { isDeepStrictEqual } from 'node:util';
import { DelayedError, WaitingError } from 'bullmq';
import { z } from 'zod';
import type { RunEvent } from '../run/run-options.js';
import { type Logger, debugError } from '../shared/log.js';
import { RUNS, SERVERS, runState } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { shutdownTimeout, retryUntilUp } from '../shared/queue/outage.js';
import * as registry from '../shared/queue/registry.js';
import { unlessAborted } from '../shared/waiting.js';
import {
  type RequestNames,
  type RunJobProgress,
  type RunOutcome,
  type RunRequest,
  type RunRequestJob,
  requestNames,
  runJobProgress,
  runRequestSchema,
} from './run-request.js';

/** As long as the worker's locks. */
const LOCK_MS = 10_000;
const SILENT_LIMIT_MS = 60_000;
export const SHUTDOWN_TIMEOUT_MS = 5000;

/** How requests ended whose job their server had lost; the server that is given the job next ends it so. */
const REQUEST_ENDS: registry.Kind<RunOutcome> = {
  group: 'request-ends',
  schema: z.custom<RunOutcome>(
    (value) => z.object({ outcome: z.string(), exitCode: z.number() }).safeParse(value).success,
  ),
  ttlMs: 24 * 3_600_000,
};

/** What the claims of one server have in common. */
export interface ClaimDeps {
  readonly connection: QueueConnection;
  readonly logger: Logger;
  readonly serverId: string;
  /** Aborts when the server is to end. */
  readonly stopping: AbortSignal;
  /** How long a job is delayed that another process has. */
  readonly retryMs: number;
  /** Called once for each reason to wait. */
  readonly onWaiting: (reason: string) => void;
  /** Of jobs that wait: since when without a sign of life, and what was reported of it. */
  readonly waits: Map<string, { readonly since: number; readonly reported?: string }>;
}

/**
 * A server's claim on a request. The lock of the request's job is the claim, the lease of its run is the guard:
 *
 * - A process that was frozen, or whose queue was away, loses the lock. Its run goes on all the same: only another process
 *   that holds the run's lease stops it.
 * - The server that executes the request and is given its job again rejoins: the newest lock counts.
 * - Another server that is given the job delays it for as long as the first one lives, or its lease runs. Then it ends the job
 *   as the first one did, or resumes the run.
 */
export class Claim {
  readonly id: string;
  #job: RunRequestJob;
  /** Undefined when the lock is known to be lost. */
  #token: string | undefined;

  constructor(
    job: RunRequestJob,
    token: string,
    private readonly deps: ClaimDeps,
  ) {
    this.id = job.id ?? '';
    this.#job = job;
    this.#token = token;
  }

  /** The job, as the queue gave it last. */
  get job(): RunRequestJob {
    return this.#job;
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

  /**
   * Looks for a request that is taken up again in other servers.
   * @returns how it has ended there; where it still goes on, the error by which BullMQ knows that its job is delayed
   */
  async elsewhere(name: string): Promise<RunOutcome | Error | undefined> {
    if (this.#job.attemptsStarted <= 1) return undefined;
    const { serverId, connection } = this.deps;
    for (const [id, server] of await registry.listLiving(connection.store, SERVERS)) {
      if (id === serverId || server?.runs.some(({ job }) => job === this.id) !== true) continue;
      return this.delay(`the server with pid ${server.pid} on ${server.host} has ${name}`);
    }
    const outcome = await registry.find(connection.store, REQUEST_ENDS, this.id);
    if (outcome === undefined) return undefined;
    // Once: whoever puts the job back wants it executed.
    await registry.withdraw(connection.store, REQUEST_ENDS, this.id);
    return outcome;
  }

  /** The run goes on: whatever it waited for is over. */
  noteProgress(): void {
    this.deps.waits.delete(this.id);
  }

  /** Whether the request waits for whoever has its output, see `mayWait`. */
  async mayWait(wasOpened: boolean, output: string | undefined): Promise<boolean> {
    const { connection, waits } = this.deps;
    const now = Date.now();
    const isHolderAlive = (await registry.list(connection.store, RUNS)).some(
      (run) => runState(run, now) === 'running' && (run.run === this.id || run.output === output),
    );
    if (isHolderAlive) waits.set(this.id, { since: now });
    const silentMs = now - (waits.get(this.id)?.since ?? now);
    return mayWait({ attemptsStarted: this.#job.attemptsStarted, wasOpened, isHolderAlive, silentMs });
  }

  /** Keeps how the request has ended for the server that ends its job, unless that is this one. */
  async keepEnd(outcome: RunOutcome): Promise<void> {
    const { connection } = this.deps;
    if (await this.#isHeld()) return;
    const keep = () => registry.publish(connection.store, REQUEST_ENDS, this.id, outcome);
    await retryUntilUp(connection, keep, this.#patience());
  }

  /** Puts the job back to the head of the queue. @returns the error by which BullMQ knows */
  async release(): Promise<Error> {
    if (await this.#isHeld()) {
      const moving = this.#job.moveToWait(this.#token);
      await unlessAborted(moving, AbortSignal.timeout(SHUTDOWN_TIMEOUT_MS));
    }
    return new WaitingError();
  }

  /** Looks again later, here or elsewhere. @returns the error by which BullMQ knows */
  async delay(reason: string): Promise<Error> {
    const { waits, retryMs, onWaiting } = this.deps;
    const { since = Date.now(), reported } = waits.get(this.id) ?? {};
    if (reported !== reason) onWaiting(reason);
    waits.set(this.id, { since, reported: reason });
    await this.#job.moveToDelayed(Date.now() + retryMs, this.#token);
    return new DelayedError();
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
      debugError(logger, 'nobody knows who has the request', { job: this.id })(error);
    }
    return this.#token !== undefined;
  }

  #patience(): AbortSignal {
    const { connection, stopping } = this.deps;
    return stopping.aborted ? shutdownTimeout(connection, SHUTDOWN_TIMEOUT_MS) : stopping;
  }
}

/** What is known of a request whose output another process has. */
export interface BusyRequest {
  /** 1 when it is new. */
  readonly attemptsStarted: number;
  /** Its files have been open: whoever has them now has its run. */
  readonly wasOpened: boolean;
  /** A process that has the output, or the run, has published something lately. */
  readonly isHolderAlive: boolean;
  /** Since when it waits without any sign of life. */
  readonly silentMs: number;
}

/**
 * Whether a request whose output is busy waits for it, or is refused. A new one is refused, as is one that never had its
 * output when whoever has that shows no life for a minute. But a run that has begun is never refused for its own server:
 * that may be frozen for however long, and when it dies nobody else would resume the run.
 */
export function mayWait(request: BusyRequest): boolean {
  if (request.attemptsStarted <= 1) return false;
  return request.wasOpened || request.isHolderAlive || request.silentMs < SILENT_LIMIT_MS;
}

const NOTHING_YET = { rows: 0, described: 0, resumed: 0, copied: 0, failed: 0, inFlight: 0, perSecond: 0 };

/** A request that this server executes: what is known of its run, and what its job shows of that. */
export class RunningRequest {
  #opened: { readonly run: string; readonly manifest: string; readonly output: string } | undefined;
  #written: RunJobProgress | undefined;
  #writing: Promise<void> = Promise.resolve();

  /** By this server or an earlier one. */
  readonly wasOpened: boolean;

  constructor(
    readonly claim: Claim,
    private readonly logger: Logger,
    private readonly onOpened: (opened: { run: string; output: string }) => Promise<void>,
  ) {
    this.wasOpened = runJobProgress(claim.job)?.state === 'opened';
  }

  get job(): RunRequestJob {
    return this.claim.job;
  }

  get run(): string | undefined {
    return this.#opened?.run;
  }

  get output(): string | undefined {
    return this.#opened?.output;
  }

  /** What its job holds by now; undefined when that is no request, or one of another version. */
  get request(): RunRequest | undefined {
    return runRequestSchema.safeParse(this.job.data).data;
  }

  /** What people know it by, as far as its job shows. */
  get names(): Partial<RequestNames> {
    return requestNames(this.job.data) ?? {};
  }

  get name(): string {
    return this.output ?? this.names.output ?? this.names.manifest ?? `job ${this.claim.id}`;
  }

  /** Takes note of an event of the run. The job's progress is the newest one, written when it is another one. */
  note(event: RunEvent): void {
    if (event.type === 'opened') {
      const { run, manifest, output } = event;
      this.#opened = { run, manifest, output };
      this.#write({ state: 'opened', ...this.#opened, ...NOTHING_YET });
      this.#queue(() => this.onOpened({ run, output }));
    } else if (event.type === 'progress') {
      if (this.#opened === undefined) return;
      const { rows, totalRows, described, resumed, copied, failed, inFlight, perSecond, etaMs } =
        event.progress;
      const counts = { rows, totalRows, described, resumed, copied, failed, inFlight, perSecond, etaMs };
      this.#write({ state: 'opened', ...this.#opened, ...counts });
    } else if (event.type === 'notice') {
      this.#queue(async () => {
        await this.job.log(event.text);
      });
    }
  }

  /** The request could not be begun. */
  refuse(exitCode: number, reason: string): void {
    this.#write({ state: 'refused', exitCode, reason });
  }

  /** Waits until all of it is written, or could not be. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  #write(progress: RunJobProgress): void {
    if (isDeepStrictEqual(progress, this.#written)) return;
    this.#written = progress;
    this.#queue(async () => {
      // Only the newest counts, where the queue is slow.
      if (this.#written === progress) await this.job.updateProgress(progress);
    });
  }

  #queue(write: () => Promise<void>): void {
    const onError = debugError(this.logger, "a run's progress could not be stored", { job: this.claim.id });
    this.#writing = this.#writing.then(write).catch(onError);
  }
}
