import { ACCOUNTS, RUNS, runState, type RunStatus, SERVERS, type ServerStatus } from '../shared/published.js';
import * as registry from '../shared/queue/registry.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { type AccountView, type RunImages, viewAccount } from './account-view.js';
import { type HandedBackRun, handedBackRuns } from './handed-back-runs.js';
import { type RequestsView, viewRequests } from './requests-view.js';

/** A run of the last day, and where its images are. */
export interface RunView extends RunStatus {
  /** waiting: no home has it at the moment, and the next one takes it up. */
  readonly state: ReturnType<typeof runState> | 'waiting';
  /** Of one that waits: it was cancelled, and the home only brings home what is in flight. */
  readonly cancelled?: boolean | undefined;
  /** Images of this run, submitted and not yet completed; and those that wait in the queue. */
  readonly inFlight: number;
  readonly waiting: number;
}

/** What goes on at a queue. Times are epoch milliseconds. */
export interface ServiceStatus {
  readonly at: number;
  /** The queue, without a password. */
  readonly queue: string;
  /** The newest first. */
  readonly runs: readonly RunView[];
  readonly accounts: readonly AccountView[];
  readonly requests: RequestsView;
  /** Processes that execute requests (`serve`). */
  readonly homes: readonly ServerStatus[];
}

/** Looks at everything at a queue, with an amount of work that does not grow with what is queued. */
export async function readServiceStatus(
  connection: QueueConnection,
  nowMs: number = Date.now(),
): Promise<ServiceStatus> {
  const { store } = connection;
  const [runs, known, requests, handedBack, homes] = await Promise.all([
    registry.list(store, RUNS),
    registry.list(store, ACCOUNTS),
    viewRequests(connection),
    handedBackRuns(connection),
    registry.list(store, SERVERS),
  ]);
  const accounts = new Map(known.map(({ queueName, label }) => [queueName, label]));
  for (const run of runs) accounts.set(run.queueName, run.account);
  const images = new Map<string, RunImages>();
  const views: AccountView[] = [];
  for (const [queueName, account] of accounts) {
    const looked = await viewAccount(connection, { account, queueName }, nowMs);
    views.push(looked.view);
    for (const [run, counts] of looked.images) images.set(run, counts);
  }
  return {
    at: nowMs,
    queue: connection.label,
    runs: runs.map((run) => ({
      ...run,
      ...stateOf(run, handedBack.get(run.run), nowMs),
      ...(images.get(run.run) ?? { inFlight: 0, waiting: 0 }),
    })),
    accounts: views.sort((a, b) => (a.account < b.account ? -1 : 1)),
    requests,
    homes,
  };
}

function stateOf(
  run: RunStatus,
  handedBack: HandedBackRun | undefined,
  nowMs: number,
): Pick<RunView, 'state' | 'cancelled'> {
  const state = runState(run, nowMs);
  return handedBack === undefined || state === 'running' ? { state } : { state: 'waiting', ...handedBack };
}
