import { UsageError } from '../shared/errors.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { unlessAborted } from '../shared/unless-aborted.js';
import { orderRun } from '../shared/run-orders.js';
import { runState } from '../shared/published.js';
import { type EnqueueOptions, type Enqueued, enqueueRun } from './enqueue-run.js';
import { findKnownRun } from './known-run.js';

export type Retried =
  | Enqueued
  /** No home has its request: the next start of its own command takes the failed rows up. */
  | { readonly kind: 'marked'; readonly manifest: string | undefined; readonly output: string };

/**
 * Puts a run's failed rows back, the permanent ones too: at once where a home has executed it, else with its next start.
 * @throws {UsageError} when the run goes on, or is not known
 */
export async function retryRun(
  connection: QueueConnection,
  name: string,
  options: EnqueueOptions,
): Promise<Retried> {
  const { run, output, status, job, kept, file } = await unlessAborted(
    findKnownRun(connection, name),
    options.signal,
  );
  if (run === undefined || job !== undefined || (status && runState(status, Date.now()) === 'running')) {
    throw new UsageError(`the run of ${output} has not ended yet: retry its failed rows when it has`);
  }
  if (kept !== undefined) {
    return enqueueRun(connection, { ...kept.request, retryAll: true, onlyFailed: true }, options);
  }
  if (status === undefined && file !== undefined && file.queue !== connection.label) {
    throw new UsageError(`the run of ${output} belongs to the queue ${file.queue}: name that with --queue`);
  }
  await unlessAborted(orderRun(connection.store, run, 'retryAll'), options.signal);
  return { kind: 'marked', manifest: status?.manifest, output };
}
