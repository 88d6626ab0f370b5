import { BulkDescribeError, UsageError } from '../shared/errors.js';
import { listHomes } from '../shared/home-status.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { sleep } from '../shared/sleep.js';
import { newRunId } from '../writer/run-file.js';
import { type RunRequestJob, runJobProgress, runOutcomeOf } from './run-outcome.js';
import { RUNS_QUEUE, RUN_JOB, type RunRequest } from './run-request.js';

/** A home could not begin what it was asked for: its own words and exit code. */
export class RefusedError extends BulkDescribeError {
  override name = 'RefusedError';

  constructor(
    message: string,
    override readonly exitCode: number,
  ) {
    super(message);
  }
}

/** A run that a home has begun. */
export interface BegunRun {
  readonly run: string;
  readonly manifest: string;
  readonly output: string;
}

/** What ended the waiting for a home. */
export type Enqueued =
  | ({ readonly kind: 'begun' } & BegunRun)
  /** Interrupted: the request was taken out of the queue again. */
  | { readonly kind: 'taken-back' }
  /** Interrupted, and a home has it already. */
  | { readonly kind: 'left'; readonly job: string };

export interface EnqueueOptions {
  readonly signal: AbortSignal;
  /** Told once when no home has taken the request for a while, and how many there are. */
  readonly onWaiting?: ((homes: number) => void) | undefined;
}

const LOOK_EVERY_MS = 150;
const HOMES_EVERY_MS = 2000;
const WAITING_AFTER_MS = 5000;

/**
 * Hands a run to a home, and waits until that has opened its files.
 * @throws {UsageError} when no home is running: nothing is left in the queue then
 * @throws {RefusedError} with the home's own words
 */
export async function enqueueRun(
  connection: QueueConnection,
  request: RunRequest,
  options: EnqueueOptions,
): Promise<Enqueued> {
  const { store, label } = connection;
  if ((await listHomes(store)).length === 0) throw noHome(label);
  const queue = connection.queue<RunRequest, never>(RUNS_QUEUE);
  const id = newRunId();
  await queue.add(RUN_JOB, request, { jobId: id });
  const startedAt = performance.now();
  let lookedAt = startedAt;
  let isTold = false;
  for (;;) {
    const job = await queue.getJob(id);
    if (job === undefined)
      throw new UsageError('the request was taken out of the queue: somebody has cancelled it');
    const begun = begunRun(job);
    if (begun !== undefined) return { kind: 'begun', ...begun };
    const now = performance.now();
    if (now - lookedAt > HOMES_EVERY_MS) {
      lookedAt = now;
      const homes = (await listHomes(store)).length;
      if (homes === 0 && (await queue.remove(id)) === 1) throw noHome(label);
      if (!isTold && now - startedAt > WAITING_AFTER_MS) {
        options.onWaiting?.(homes);
        isTold = true;
      }
    }
    if (await sleep(LOOK_EVERY_MS, options.signal)) continue;
    return (await queue.remove(id)) === 1 ? { kind: 'taken-back' } : { kind: 'left', job: id };
  }
}

/** @throws {RefusedError} when it was refused */
function begunRun(job: RunRequestJob): BegunRun | undefined {
  const progress = runJobProgress(job);
  if (progress?.state === 'refused') throw new RefusedError(progress.reason, progress.exitCode);
  const outcome = runOutcomeOf(job);
  if (outcome !== undefined && outcome.outcome !== 'ended') {
    throw new RefusedError(outcome.reason ?? 'the home refuses it', outcome.exitCode);
  }
  return progress ?? outcome?.receipt;
}

function noHome(label: string): UsageError {
  return new UsageError(
    `no home is running at ${label}, so nothing was enqueued: start one where the files are, with ` +
      `\`bulk-describe serve --work --root <folder> --queue ${label}\``,
  );
}
