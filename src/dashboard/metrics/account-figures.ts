import { readAccountLimits } from '../../shared/account-limits.js';
import { readMetrics, workersOf, type WorkerStatus } from '../../shared/published.js';
import * as registry from '../../shared/queue/registry.js';
import { perSecond } from '../../shared/durations.js';
import type { QueueConnection } from '../../shared/queue/connection.js';

/** Job states by BullMQ's names. */
export const JOB_STATES = ['waiting', 'active', 'delayed', 'prioritized', 'completed', 'failed'] as const;

/** What there is to tell of an account at the moment. */
export interface AccountFigures {
  readonly account: string;
  /** What its workers have counted since the queue is there. */
  readonly counts: ReadonlyMap<string, number>;
  readonly jobs: Readonly<Record<string, number>>;
  readonly isPaused: boolean;
  readonly workers: readonly WorkerStatus[];
  readonly limits:
    | { readonly ratePerSecond: number; readonly learnedPerSecond: number; readonly maxInFlight: number }
    | undefined;
}

export async function readAccountFigures(
  connection: QueueConnection,
  queueName: string,
  account: string,
): Promise<AccountFigures> {
  const { store } = connection;
  const queue = connection.queue(queueName);
  const [counts, jobs, isPaused, workers, limits] = await Promise.all([
    readMetrics(store, queueName),
    queue.getJobCounts(...JOB_STATES),
    queue.isPaused(),
    registry.list(store, workersOf(queueName)),
    readAccountLimits(store, queueName, Date.now()),
  ]);
  const rate = limits === undefined ? 0 : perSecond(limits.configured.rate);
  return {
    account,
    counts,
    jobs,
    isPaused,
    workers,
    limits: limits && {
      ratePerSecond: rate,
      learnedPerSecond: rate * limits.share,
      maxInFlight: limits.configured.maxInFlight,
    },
  };
}
