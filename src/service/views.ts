import { readAccountLimits } from '../shared/account-limits.js';
import { DEFAULT_LIMITS, formatRate, scaleRate } from '../shared/limits.js';
import {
  ACCOUNTS,
  RUNS,
  type RunStatus,
  SERVERS,
  type ServerStatus,
  type WorkerStatus,
  runState,
  workersOf,
} from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import * as registry from '../shared/queue/registry.js';
import type { SharedStore } from '../shared/queue/store.js';
import {
  RUNS_QUEUE,
  type RunRequestJob,
  requestNames,
  runJobProgress,
  runRequestSchema,
} from './run-request.js';

/*
 * What goes on at a queue, as `status` and the dashboard show it. The work does not grow with what is queued. Times are
 * epoch milliseconds.
 */

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

/** A run of the last day, and where its images are. */
export interface RunView extends RunStatus {
  /** waiting: no server has it at the moment, and the next one takes it up. */
  readonly state: ReturnType<typeof runState> | 'waiting';
  /** Of one that waits: it was cancelled, and the server only collects what is in flight. */
  readonly cancelled?: boolean | undefined;
  /** Images of this run, submitted and not yet completed; and those that wait in the queue. */
  readonly inFlight: number;
  readonly waiting: number;
}

/** An account, as its queue has it. */
export interface AccountView {
  readonly account: string;
  readonly queueName: string;
  /** The limits as flags take them. */
  readonly rate: string;
  readonly pollRate: string;
  readonly maxInFlight: number;
  /** The share of the rate that the API lets through, in (0, 1], and the rate that makes. */
  readonly share: number;
  readonly learnedRate: string;
  readonly inFlight: number;
  readonly waiting: number;
  readonly workers: readonly WorkerStatus[];
  readonly pauses: readonly Pause[];
}

/** Why nothing is submitted for an account at the moment. */
export interface Pause {
  /** token, quota, set-up, down: of all workers. rate: a 429. paused: by a person. no-worker: images wait for one. */
  readonly kind: 'token' | 'quota' | 'set-up' | 'down' | 'rate' | 'paused' | 'no-worker';
  /** Undefined where nobody knows. */
  readonly since?: number | undefined;
  /** When it ends by itself. */
  readonly until?: number | undefined;
  /** What the API said; one line, empty where there is nothing to say. */
  readonly reason: string;
}

/** What the runs queue holds. Scheduled runs that are not due yet do not count. */
export interface RequestsView {
  readonly executing: number;
  readonly waiting: number;
  /** The first of those that wait. */
  readonly next: readonly {
    readonly job: string;
    /** As the request has them: relative to the server's root. */
    readonly manifest: string;
    readonly output?: string | undefined;
    readonly schedule?: string | undefined;
    /** Since when it waits. */
    readonly since: number;
  }[];
}

/** So many images of an account are looked at for whose they are; more are counted, and nobody's. */
const MOST_IMAGES = 5000;
/** Runs that were released by their server are at the head of the queue. */
const MOST_REQUESTS = 200;
const SHOWN_REQUESTS = 20;

export async function readServiceStatus(
  connection: QueueConnection,
  nowMs: number = Date.now(),
): Promise<ServiceStatus> {
  const { store } = connection;
  const [runs, requests, homes] = await Promise.all([
    registry.list(store, RUNS),
    readRequests(connection),
    registry.listProcesses(store, SERVERS),
  ]);
  const images = new Map<string, RunImages>();
  const accounts = await Promise.all(
    [...(await knownAccounts(store, runs))].map(async ([queueName, account]) => {
      await countImages(connection, queueName, images);
      return viewAccount(connection, { account, queueName }, nowMs);
    }),
  );
  return {
    at: nowMs,
    queue: connection.label,
    runs: runs.map((run) => ({
      ...run,
      ...stateOf(run, requests.released.get(run.run), nowMs),
      ...(images.get(run.run) ?? { inFlight: 0, waiting: 0 }),
    })),
    accounts: accounts.sort((a, b) => (a.account < b.account ? -1 : 1)),
    requests: requests.view,
    homes,
  };
}

/** All accounts that are known of: their describe queues' names, with the accounts' labels. */
export async function knownAccounts(
  store: SharedStore,
  runs: readonly RunStatus[],
): Promise<Map<string, string>> {
  const known = await registry.list(store, ACCOUNTS);
  const all = [
    ...runs.map((run) => [run.queueName, run.account] as const),
    ...known.map(({ queueName, label }) => [queueName, label] as const),
  ];
  return new Map(all.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** An account as it is now. */
async function viewAccount(
  connection: QueueConnection,
  { account, queueName }: { readonly account: string; readonly queueName: string },
  nowMs: number,
): Promise<AccountView> {
  const queue = connection.queue(queueName);
  const [limits, workers, counts, isQueuePaused] = await Promise.all([
    readAccountLimits(connection.store, queueName, nowMs),
    registry.listProcesses(connection.store, workersOf(queueName)),
    queue.getJobCounts('active', 'waiting', 'prioritized', 'delayed'),
    queue.isPaused(),
  ]);
  const unknown = { configured: DEFAULT_LIMITS, share: 1, fellAt: 0, heldUntil: 0 };
  const { configured, share, fellAt, heldUntil } = limits ?? unknown;
  const inFlight = counts['active'] ?? 0;
  const images = Object.values(counts).reduce((sum, count) => sum + count, 0);
  return {
    account,
    queueName,
    rate: formatRate(configured.rate),
    pollRate: formatRate(configured.pollRate),
    maxInFlight: configured.maxInFlight,
    share,
    learnedRate: formatRate(scaleRate(configured.rate, share)),
    inFlight,
    waiting: images - inFlight,
    workers,
    pauses: pausesOf({ workers, fellAt, heldUntil, isQueuePaused, images }, nowMs),
  };
}

export interface PauseFacts {
  readonly workers: readonly WorkerStatus[];
  readonly fellAt: number;
  readonly heldUntil: number;
  /** Somebody has paused the queue, such as on the dashboard. */
  readonly isQueuePaused: boolean;
  /** Images that wait or are in flight. */
  readonly images: number;
}

/** What keeps an account from being worked for. A worker that has given up is no pause while another goes on. */
export function pausesOf(facts: PauseFacts, nowMs: number): Pause[] {
  const pauses: Pause[] = [];
  const ofWorkers = pauseOfWorkers(facts.workers);
  if (ofWorkers !== undefined) pauses.push(ofWorkers);
  if (facts.workers.length === 0 && facts.images > 0) pauses.push({ kind: 'no-worker', reason: '' });
  if (facts.heldUntil > nowMs) {
    pauses.push({ kind: 'rate', since: facts.fellAt, until: facts.heldUntil, reason: '' });
  }
  if (facts.isQueuePaused) pauses.push({ kind: 'paused', reason: '' });
  return pauses;
}

/** It began when the last worker stopped. */
function pauseOfWorkers(workers: readonly WorkerStatus[]): Pause | undefined {
  const last = [...workers].sort((a, b) => a.since - b.since).at(-1);
  if (last === undefined || workers.some(({ state }) => state === 'working')) return undefined;
  // One that only waits for the API may still come back.
  const shown = workers.find(({ state }) => state === 'down') ?? last;
  if (shown.state === 'working') return undefined;
  return { kind: shown.state, since: last.since, reason: shown.reason };
}

/** Images of one run in an account's queue. */
interface RunImages {
  inFlight: number;
  waiting: number;
}

async function countImages(
  connection: QueueConnection,
  queueName: string,
  images: Map<string, RunImages>,
): Promise<void> {
  const queue = connection.queue(queueName);
  const [active, waiting] = await Promise.all([
    queue.getRanges(['active'], 0, MOST_IMAGES - 1),
    queue.getRanges(['waiting', 'prioritized', 'delayed'], 0, MOST_IMAGES - 1),
  ]);
  const count = (jobIds: readonly string[], where: keyof RunImages) => {
    for (const id of jobIds) {
      // A job's id begins with its run's.
      const run = id.slice(0, id.indexOf('.'));
      const counts = images.get(run) ?? { inFlight: 0, waiting: 0 };
      counts[where]++;
      images.set(run, counts);
    }
  };
  count(active, 'inFlight');
  count(waiting, 'waiting');
}

/** A run that its server has released, to be taken up again. */
type Released = Pick<RunView, 'cancelled'>;

async function readRequests(
  connection: QueueConnection,
): Promise<{ view: RequestsView; released: Map<string, Released> }> {
  const queue = connection.queue<unknown, never>(RUNS_QUEUE);
  // One that goes meanwhile is missing, whatever BullMQ's types say.
  const look = (
    ...states: ('waiting' | 'prioritized' | 'delayed')[]
  ): Promise<(RunRequestJob | undefined)[]> => queue.getJobs(states, 0, MOST_REQUESTS - 1, true);
  const [counts, waiting, delayed] = await Promise.all([
    queue.getJobCounts('active', 'waiting', 'prioritized'),
    look('waiting', 'prioritized'),
    look('delayed'),
  ]);
  const released = new Map<string, Released>();
  for (const job of [...waiting, ...delayed]) {
    const progress = job && runJobProgress(job);
    if (progress?.state !== 'opened') continue;
    const stop = runRequestSchema.safeParse(job?.data).data?.stoppedBefore;
    released.set(progress.run, stop?.kind === 'cancelled' ? { cancelled: true } : {});
  }
  const next = waiting.slice(0, SHOWN_REQUESTS).flatMap((job) => {
    const names = requestNames(job?.data);
    if (job === undefined || names === undefined) return [];
    const { manifest, output, schedule } = names;
    return [{ job: job.id ?? '', manifest, output, schedule, since: job.timestamp }];
  });
  const { active: executing = 0, ...rest } = counts;
  const total = Object.values(rest).reduce((sum, count) => sum + count, 0);
  return { view: { executing, waiting: total, next }, released };
}

function stateOf(
  run: RunStatus,
  released: Released | undefined,
  nowMs: number,
): Pick<RunView, 'state' | 'cancelled'> {
  const state = runState(run, nowMs);
  return released === undefined || state === 'running' ? { state } : { state: 'waiting', ...released };
}
