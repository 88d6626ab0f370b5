import { RunJobs } from '../run/run-jobs.js';
import { keepLostSubmits, readLostSubmits } from '../shared/run-counts.js';
import { hasCoordinator, orderRun } from '../shared/run-leases.js';
import { parseAccountLabel, resultsQueueName } from '../shared/account.js';
import { FatalError, UsageError, messageOf } from '../shared/errors.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { UNFINISHED_STATES } from '../shared/jobs.js';
import { RUNS, runState, SERVERS } from '../shared/published.js';
import * as registry from '../shared/queue/registry.js';
import { reclaimJob } from '../shared/queue/job-moves.js';
import { sleep } from '../shared/waiting.js';
import { type FoundRun, findKnownRun } from './known-run.js';
import { RUNS_QUEUE, type RunRequestJob, runJobProgress, runRequestSchema } from './run-request.js';

export type Cancelled =
  /** Its server takes nothing more on, and finishes what is in flight. */
  | { readonly kind: 'winding-down'; readonly output: string }
  /** It waited for a server, and is out of the queue. */
  | { readonly kind: 'taken-out'; readonly output: string }
  /** It was released by its server: what it has in flight is collected by the next one. */
  | { readonly kind: 'to-be-collected'; readonly output: string; readonly images: number }
  /** Its server is gone: what nobody had submitted is out of the queue, what is in flight waits for the next start. */
  | { readonly kind: 'abandoned'; readonly output: string; readonly removed: number };

const CANCELLED = { kind: 'cancelled', reason: 'cancelled with `bulk-describe cancel`' } as const;
const DEADLINE_MS = 40_000;
const LOOK_EVERY_MS = 200;
const ORDER_EVERY_MS = 3000;

/**
 * Cancels a run, wherever it is: with a server, waiting for one, or left by one that has died.
 * @throws {UsageError} when there is nothing to cancel
 * @throws {FatalError} when its server does not answer
 */
export async function cancelRun(
  connection: QueueConnection,
  name: string,
  signal: AbortSignal,
): Promise<Cancelled> {
  const giveUpAt = performance.now() + DEADLINE_MS;
  let orderedAt = -Infinity;
  let found = await findKnownRun(connection, name);
  refuseEnded(found);
  for (;;) {
    const { output, status } = found;
    const state = status === undefined ? undefined : runState(status, Date.now());
    const isStopping = state === 'running' && status?.stopping !== undefined;
    if (isStopping || (state === 'ended' && orderedAt > 0)) {
      await keepCancelled(connection, found.job?.id);
      return { kind: 'winding-down', output };
    }
    if (state === 'running') {
      // Again, since a server that has just begun takes earlier orders away.
      if (performance.now() - orderedAt > ORDER_EVERY_MS) {
        await orderRun(connection.store, status?.run ?? '', 'cancel');
        orderedAt = performance.now();
      }
    } else {
      const taken = await takeOut(connection, found);
      if (taken !== undefined) {
        if (taken.kind !== 'to-be-collected') await publishCancelled(connection, found);
        return taken;
      }
    }
    if (performance.now() > giveUpAt || !(await sleep(LOOK_EVERY_MS, signal))) {
      signal.throwIfAborted();
      throw new FatalError(`the server of ${output} has not answered for ${DEADLINE_MS / 1000} s: try again`);
    }
    // The run file was found by the output's path, and is not by the id.
    found = { ...(await lookAgain(connection, found)), file: found.file };
  }
}

/** A server that dies while it finishes what is in flight leaves a request that only collects that. */
async function keepCancelled(connection: QueueConnection, jobId: string | undefined): Promise<void> {
  const job = jobId === undefined ? undefined : await connection.queue(RUNS_QUEUE).getJob(jobId);
  const request = runRequestSchema.safeParse(job?.data).data;
  if (job === undefined || request === undefined || job.finishedOn !== undefined) return;
  await job
    .updateData({ ...request, collectOnly: true, stoppedBefore: CANCELLED })
    .catch((error: unknown) => {
      // It has ended in this moment.
      if (!messageOf(error).includes('Missing key')) throw error;
    });
}

/** Nobody is left who would say how it has ended. */
async function publishCancelled(connection: QueueConnection, { status, job }: FoundRun): Promise<void> {
  const isBegun = job !== undefined && runJobProgress(job)?.state === 'opened';
  // A request that no server has begun leaves the run before it as it has ended.
  if (status === undefined || (status.ended !== undefined && !isBegun)) return;
  const { described, resumed, copied, failed, rows, totalRows = rows } = status;
  const remaining = Math.max(0, totalRows - described - resumed - copied - failed);
  const ended = { exitCode: 130, remaining, reason: CANCELLED.reason };
  const last = { stopKind: CANCELLED.kind, seenAt: Date.now(), ended };
  await registry.publish(connection.store, RUNS, status.run, { ...status, ...last });
}

function refuseEnded({ status, job, output, run }: FoundRun): void {
  const exitCode = status?.ended?.exitCode;
  if (exitCode === undefined || job !== undefined) return;
  throw new UsageError(
    `the run ${run ?? ''} (${output}) has ended with exit code ${exitCode}: nothing to cancel`,
  );
}

/** @returns undefined when a server is about to take the run up, or has just died with it */
async function takeOut(connection: QueueConnection, found: FoundRun): Promise<Cancelled | undefined> {
  const { job, output, status } = found;
  if (job !== undefined) {
    if ((await job.getState()) === 'active') {
      const living = await registry.listLiving(connection.store, SERVERS);
      if (job.processedBy === undefined || living.has(job.processedBy)) return undefined;
      // Where no server is left, nobody looks for stalled jobs.
      await reclaimJob(job);
    }
    const waiting = await leaveToCollect(connection, found, job);
    if (waiting !== 'done') return waiting;
    await job.remove().catch((error: unknown) => {
      // A server has taken it in this moment, or the lock of one that has died is not over yet.
      if (!messageOf(error).includes('locked')) throw error;
    });
    if ((await job.getState()) !== 'unknown') return undefined;
  }
  // One that has just begun, or just died, has not published anything yet, or will not any more: the lease knows.
  if (found.run !== undefined && (await hasCoordinator(connection.store, found.run))) return undefined;
  const removed = await removeWaiting(connection, found);
  if (job !== undefined && status === undefined) return { kind: 'taken-out', output };
  return { kind: job !== undefined && removed === 0 ? 'taken-out' : 'abandoned', output, removed };
}

/**
 * A run that has begun may have images in flight: then its request stays, and only collects those. Changed before it is
 * looked at: a server that takes it meanwhile has either the old request, and is ordered to cancel it, or this one.
 * @returns 'done' where nothing is in flight; undefined when a server may have it
 */
async function leaveToCollect(
  connection: QueueConnection,
  found: FoundRun,
  job: RunRequestJob,
): Promise<Extract<Cancelled, { kind: 'to-be-collected' }> | 'done' | undefined> {
  const progress = runJobProgress(job);
  const request = runRequestSchema.safeParse(job.data).data;
  if (progress?.state !== 'opened' || request === undefined) return 'done';
  await job.updateData({ ...request, collectOnly: true, stoppedBefore: CANCELLED });
  if ((await job.getState()) === 'active' || (await hasCoordinator(connection.store, progress.run)))
    return undefined;
  await removeWaiting(connection, found);
  const images = await countInFlight(connection, found);
  return images === 0 ? 'done' : { kind: 'to-be-collected', output: found.output, images };
}

/** Images that are submitted, or whose results wait for a server. */
async function countInFlight(connection: QueueConnection, found: FoundRun): Promise<number> {
  const { run } = found;
  const jobs = jobsOf(connection, found);
  if (run === undefined || jobs === undefined) return 0;
  // In this order: a job's result is there before its job has ended.
  const unfinished = [...(await jobs.places()).values()].filter((place) => place === 'unfinished').length;
  return unfinished + (await connection.countJobs(resultsQueueName(run), UNFINISHED_STATES));
}

/** What a server that is gone has left in its account's queue, unsubmitted. */
async function removeWaiting(connection: QueueConnection, found: FoundRun): Promise<number> {
  const { run } = found;
  const jobs = jobsOf(connection, found);
  if (run === undefined || jobs === undefined) return 0;
  const removed = await jobs.remove(({ data }) => data.messageId === undefined);
  let maybePaid = 0;
  for (const calls of removed.values()) maybePaid += calls.maybePaid ?? 0;
  if (maybePaid > 0) {
    const kept = await readLostSubmits(connection.store, run);
    const counts = { ...kept, maybePaidTwice: kept.maybePaidTwice + maybePaid };
    await keepLostSubmits(connection.store, run, counts);
  }
  return removed.size;
}

function jobsOf(connection: QueueConnection, { run, status, file }: FoundRun): RunJobs | undefined {
  const account = parseAccountLabel(status?.account ?? file?.account ?? '');
  if (run === undefined || account === undefined) return undefined;
  return new RunJobs(connection, account, run);
}

async function lookAgain(connection: QueueConnection, found: FoundRun): Promise<FoundRun> {
  const name = found.run ?? found.job?.id;
  if (name === undefined) return found;
  try {
    return await findKnownRun(connection, name);
  } catch (error) {
    // Its request has ended or was taken away meanwhile; what its server publishes remains.
    if (!(error instanceof UsageError)) throw error;
    const status = (await registry.list(connection.store, RUNS)).find(({ run }) => run === name);
    return { ...found, status, job: undefined };
  }
}
