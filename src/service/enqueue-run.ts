import { FatalError, UsageError } from '../shared/errors.js';
import { SERVERS } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { retryUntilUp, shutdownTimeout } from '../shared/queue/outage.js';
import { sleep, unlessAborted } from '../shared/waiting.js';
import { orderRun } from '../shared/run-leases.js';
import { newRunId } from '../writer/run-file.js';
import { findKnownRun } from './known-run.js';
import {
  RUNS_QUEUE,
  RUN_JOB,
  type RunRequest,
  type RunRequestJob,
  openedRun,
  runOutcomeOf,
} from './run-request.js';

/** What ended the waiting for a server. */
export type Enqueued =
  | { readonly kind: 'begun'; readonly run: string; readonly manifest: string; readonly output: string }
  /** Interrupted: the request was taken out of the queue again. */
  | { readonly kind: 'taken-back' }
  /** Interrupted, and a server has it already. */
  | { readonly kind: 'left'; readonly job: string }
  /** Interrupted, and the queue does not answer: the request may still be in it. */
  | { readonly kind: 'unknown'; readonly job: string };

interface EnqueueOptions {
  readonly signal: AbortSignal;
  /** Called once when no server has taken the request for a while, and how many there are. */
  readonly onWaiting?: ((servers: number) => void) | undefined;
}

const LOOK_EVERY_MS = 150;
/** The servers are counted every other second. Whoever waits is told after six. */
const LOOKS_PER_COUNT = 13;
const WAITING_AFTER_LOOKS = 3 * LOOKS_PER_COUNT;
const TAKE_BACK_MS = 3000;

/**
 * Hands a run to a server, and waits until that has opened its files; through outages of the queue, too.
 * @throws {UsageError} when no server is running: nothing is left in the queue then
 * @throws {FatalError} with the server's own words and exit code
 */
export async function enqueueRun(
  connection: QueueConnection,
  request: RunRequest,
  { signal, onWaiting }: EnqueueOptions,
): Promise<Enqueued> {
  const { store, label } = connection;
  const id = newRunId();
  const queue = connection.queue<RunRequest, never>(RUNS_QUEUE);
  const ask = <T>(question: () => Promise<T>) => retryUntilUp(connection, question, signal);
  const countServers = async () => (await ask(() => SERVERS.listProcesses(store))).length;
  let isPutIn = false;
  try {
    if ((await countServers()) === 0) throw noServer(label);
    isPutIn = true;
    // The id makes it one request however often it is put in.
    await ask(() => queue.add(RUN_JOB, request, { jobId: id }));
    for (let looks = 1; ; looks++) {
      const job = await ask(() => queue.getJob(id));
      if (job === undefined) {
        throw new UsageError('the request was taken out of the queue: somebody has cancelled it');
      }
      const begun = begunRun(job);
      if (begun !== undefined) return { kind: 'begun', ...begun };
      if (looks % LOOKS_PER_COUNT === 0) {
        const servers = await countServers();
        if (servers === 0 && (await ask(() => queue.remove(id))) === 1) throw noServer(label);
        if (looks === WAITING_AFTER_LOOKS) onWaiting?.(servers);
      }
      await sleep(LOOK_EVERY_MS, signal);
    }
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
    return isPutIn ? takeBack(connection, id) : { kind: 'taken-back' };
  }
}

/** Nobody who has interrupted this waits for a queue that is away. */
async function takeBack(connection: QueueConnection, id: string): Promise<Enqueued> {
  try {
    const removed = connection.queue(RUNS_QUEUE).remove(id);
    const inTime = unlessAborted(removed, shutdownTimeout(connection, TAKE_BACK_MS));
    return (await inTime) === 1 ? { kind: 'taken-back' } : { kind: 'left', job: id };
  } catch (error) {
    if (!(error instanceof DOMException) && !connection.outage.note(error)) throw error;
    return { kind: 'unknown', job: id };
  }
}

/** @throws {FatalError} when it was refused */
function begunRun(job: RunRequestJob) {
  const outcome = runOutcomeOf(job);
  if (outcome !== undefined && outcome.outcome !== 'ended') {
    const { reason = 'the server refuses it', exitCode } = outcome;
    throw Object.assign(new FatalError(reason), { exitCode });
  }
  return openedRun(job) ?? outcome?.receipt;
}

function noServer(label: string): UsageError {
  return new UsageError(
    `no server is running at ${label}, so nothing was enqueued: start one where the files are, with ` +
      `\`bulk-describe serve --work --root <folder> --queue ${label}\``,
  );
}

export type Retried =
  | Enqueued
  /** No server has its request: the next start of its own command takes the failed rows up. */
  | { readonly kind: 'marked'; readonly manifest: string | undefined; readonly output: string };

/**
 * Puts a run's failed rows back, the permanent ones too: at once where a server has executed it, else with its next start.
 * @throws {UsageError} when the run goes on, or is not known
 */
export async function retryRun(
  connection: QueueConnection,
  name: string,
  options: EnqueueOptions,
): Promise<Retried> {
  const { signal } = options;
  const found = await unlessAborted(findKnownRun(connection, name), signal);
  const { run, output, status, job, kept, file } = found;
  if (run === undefined || job !== undefined || status?.state === 'running') {
    throw new UsageError(`the run of ${output} has not ended yet: retry its failed rows when it has`);
  }
  if (kept !== undefined) {
    return enqueueRun(connection, { ...kept.request, retryAll: true, onlyFailed: true }, options);
  }
  if (status === undefined && file !== undefined && file.queue !== connection.label) {
    throw new UsageError(`the run of ${output} belongs to the queue ${file.queue}: name that with --queue`);
  }
  await unlessAborted(orderRun(connection.store, run, 'retryAll'), signal);
  return { kind: 'marked', manifest: status?.manifest, output };
}
