import { RunJobs } from '../run/run-jobs.js';
import { keepLostSubmits, readLostSubmits } from '../shared/run-counts.js';
import { hasCoordinator, noteSetAside, orderRun } from '../shared/run-leases.js';
import { parseAccountLabel, resultsQueueName } from '../shared/account.js';
import { FatalError, UsageError } from '../shared/errors.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { RUNS_QUEUE, UNFINISHED_STATES } from '../shared/jobs.js';
import { RUNS, SERVERS } from '../shared/published.js';
import { reclaimJob, unlessMoved } from '../shared/queue/job-moves.js';
import { sleep } from '../shared/waiting.js';
import { type FoundRun, findKnownRun } from './known-run.js';
import { type RunRequestJob, openedRun, runRequestSchema } from './run-request.js';

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
  const { store } = connection;
  let found = await findKnownRun(connection, name);
  if (found.status?.ended !== undefined && found.job === undefined) {
    const about = `the run ${found.run ?? ''} (${found.output})`;
    throw new UsageError(
      `${about} has ended with exit code ${found.status.ended.exitCode}: nothing to cancel`,
    );
  }
  // What comes after it shows that a coordinator lives, whatever its clock says.
  const seenBefore = found.status?.seenAt;
  for (;;) {
    const { run, output, status, job } = found;
    const isNews = status?.seenAt !== seenBefore;
    if (isNews && (status?.stopping ?? status?.ended) !== undefined) {
      // A server that dies while it finishes what is in flight leaves a request that only collects that.
      if (job !== undefined) await onlyCollect(job);
      return { kind: 'winding-down', output };
    }
    const isCoordinated = run !== undefined && (await hasCoordinator(store, run));
    // At each look, since a server that has just begun takes earlier orders away; and before anything is removed, since a
    // coordinator that was frozen, or cut off, goes on where nobody has taken its run.
    if (isCoordinated || (run !== undefined && status?.ended === undefined))
      await orderRun(store, run, 'cancel');
    if (!isCoordinated) {
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
    found = await findKnownRun(connection, status?.run ?? name);
  }
}

/** The request pays for nothing more. One that has ended in this moment stays as it is. */
async function onlyCollect(job: RunRequestJob): Promise<void> {
  const request = runRequestSchema.safeParse(job.data).data;
  if (request === undefined) return;
  await unlessMoved(job.updateData({ ...request, collectOnly: true, stoppedBefore: CANCELLED }));
}

/** Nobody is left who would say how it has ended. */
async function publishCancelled(connection: QueueConnection, { status, job }: FoundRun): Promise<void> {
  // A request that no server has begun leaves the run before it as it has ended.
  if (status === undefined || (status.ended !== undefined && openedRun(job) === undefined)) return;
  const { described, resumed, copied, failed, rows, totalRows = rows } = status;
  const remaining = Math.max(0, totalRows - described - resumed - copied - failed);
  const ended = { exitCode: 130, remaining, reason: CANCELLED.reason };
  const last = { stopKind: CANCELLED.kind, seenAt: Date.now(), ended };
  await RUNS.publish(connection.store, status.run, { ...status, ...last });
}

/** @returns undefined when a server is about to take the run up, or has just died with it */
async function takeOut(connection: QueueConnection, found: FoundRun): Promise<Cancelled | undefined> {
  const { job, output, run } = found;
  if (job !== undefined && (await job.getState()) === 'active') {
    const living = await SERVERS.listLiving(connection.store);
    if (job.processedBy === undefined || living.has(job.processedBy)) return undefined;
    // Where no server is left, nobody looks for stalled jobs.
    await reclaimJob(job);
  }
  const hasBegun = openedRun(job) !== undefined;
  if (job !== undefined && hasBegun) {
    // Before the looks that follow: a server that takes it meanwhile has either the old request, and is ordered to cancel
    // it, or this one.
    await onlyCollect(job);
    if ((await job.getState()) === 'active') return undefined;
  }
  // One that has just begun, or just died, has not published anything yet, or will not any more: the lease knows.
  if (run !== undefined && (await hasCoordinator(connection.store, run))) return undefined;
  const { removed, inFlight } = await removeWaiting(connection, found);
  if (job === undefined) return { kind: 'abandoned', output, removed };
  // Its request stays, and only collects those.
  if (hasBegun && inFlight > 0) return { kind: 'to-be-collected', output, images: inFlight };
  // It stays where a server has taken it in this moment, or the lock of one that has died is not over yet.
  const isRemoved = (await connection.queue(RUNS_QUEUE).remove(job.id ?? '')) === 1;
  return isRemoved ? { kind: 'taken-out', output } : undefined;
}

/**
 * Removes what a server that is gone has left in its account's queue, unsubmitted.
 * @returns how many those were, and how many are submitted, or have results that wait for a server
 */
async function removeWaiting(
  connection: QueueConnection,
  { run, status, file }: FoundRun,
): Promise<{ removed: number; inFlight: number }> {
  const account = parseAccountLabel(status?.account ?? file?.account ?? '');
  if (run === undefined || account === undefined) return { removed: 0, inFlight: 0 };
  const { store } = connection;
  const jobs = new RunJobs(connection, account, run);
  const removed = await jobs.remove(({ data }) => data.messageId === undefined);
  // A coordinator that was only frozen waits for them.
  await Promise.all([...removed.keys()].map((image) => noteSetAside(store, run, image)));
  const kept = await readLostSubmits(store, run);
  const maybePaid = [...removed].reduce(
    (sum, [image, calls]) => sum + Math.max(0, (calls.maybePaid ?? 0) - (kept.byImage.get(image) ?? 0)),
    0,
  );
  if (maybePaid > 0) {
    await keepLostSubmits(store, run, { ...kept, maybePaidTwice: kept.maybePaidTwice + maybePaid });
  }
  // In this order: a job's result is there before its job has ended.
  const unfinished = [...(await jobs.places()).values()].filter((place) => place === 'unfinished').length;
  const results = await connection.countJobs(resultsQueueName(run), UNFINISHED_STATES);
  return { removed: removed.size, inFlight: unfinished + results };
}
