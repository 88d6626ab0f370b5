import { readAccountLimits } from '../../shared/account-limits.js';
import { formatRate } from '../../shared/durations.js';
import { scaleRate } from '../../shared/limits.js';
import type { QueueConnection } from '../../shared/queue/connection.js';
import { runState, type RunStatus, workersOf, type WorkerStatus } from '../../shared/published.js';
import * as registry from '../../shared/queue/registry.js';

/** A run as the pages show it. */
export interface RunView {
  readonly status: RunStatus;
  readonly state: 'running' | 'ended' | 'silent';
  readonly account: AccountView;
  readonly nowMs: number;
}

/** What is true of a run's account at the moment, for all of its runs together. */
export interface AccountView {
  /** As a flag takes it, `20/min`; undefined when no one has worked for the account yet. */
  readonly rate: string | undefined;
  /** What the API lets through of it, when that is less. */
  readonly learnedRate: string | undefined;
  readonly maxInFlight: number | undefined;
  readonly inFlight: number;
  readonly waiting: number;
  readonly isPaused: boolean;
  readonly workers: readonly WorkerStatus[];
}

/** Looks up what is true of an account now. */
export async function viewAccount(
  connection: QueueConnection,
  queueName: string,
  nowMs: number,
): Promise<AccountView> {
  const queue = connection.queue(queueName);
  const [limits, counts, isPaused, workers] = await Promise.all([
    readAccountLimits(connection.store, queueName, nowMs),
    queue.getJobCounts('active', 'waiting', 'prioritized', 'delayed'),
    queue.isPaused(),
    registry.list(connection.store, workersOf(queueName)),
  ]);
  const { active = 0, waiting = 0, prioritized = 0, delayed = 0 } = counts;
  const learned = limits === undefined ? undefined : scaleRate(limits.configured.rate, limits.share);
  return {
    rate: limits === undefined ? undefined : formatRate(limits.configured.rate),
    learnedRate: learned !== undefined && (limits?.share ?? 1) < 1 ? formatRate(learned) : undefined,
    maxInFlight: limits?.configured.maxInFlight,
    inFlight: active,
    waiting: waiting + prioritized + delayed,
    isPaused,
    workers,
  };
}

/** The runs with their accounts, each of which is looked up once. */
export async function viewRuns(
  connection: QueueConnection,
  runs: readonly RunStatus[],
  nowMs: number,
): Promise<RunView[]> {
  const accounts = new Map<string, Promise<AccountView>>();
  const accountOf = (queueName: string) => {
    const known = accounts.get(queueName) ?? viewAccount(connection, queueName, nowMs);
    accounts.set(queueName, known);
    return known;
  };
  return Promise.all(
    runs.map(async (status) => ({
      status,
      state: runState(status, nowMs),
      account: await accountOf(status.queueName),
      nowMs,
    })),
  );
}
