import type { JobType } from 'bullmq';
import { readAccountLimits } from '../shared/account-limits.js';
import { partsOfJobId } from '../shared/jobs.js';
import { DEFAULT_LIMITS, formatRate, scaleRate } from '../shared/limits.js';
import {
  ACCOUNTS,
  type PublishedRun,
  type RunStatus,
  SERVERS,
  type WorkerStatus,
  listRuns,
  workersOf,
} from '../shared/published.js';
import { isKnownDead } from '../shared/process-identity.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import type { SharedStore } from '../shared/queue/store.js';
import { RUNS_QUEUE, type RunOutcome, openedRun, requestNames, runRequestSchema } from './run-request.js';

/*
 * What goes on at a queue, as `status` and the dashboard show it. The work does not grow with what is queued. Times are
 * epoch milliseconds.
 */

export type ServiceStatus = Awaited<ReturnType<typeof readServiceStatus>>;

/** A run of the last day, and where its images are. */
export interface RunView extends RunStatus {
  /** waiting: no server has it at the moment, and the next one takes it up. */
  readonly state: PublishedRun['state'] | 'waiting';
  /** It was cancelled. Unless it has ended, what is in flight is finished, by whoever has it or the next server. */
  readonly cancelled?: boolean | undefined;
  /** Its request is in the runs queue: a server goes on with it, and not the command that began it. */
  readonly served: boolean;
  /** Images of this run, submitted and not yet completed; and those that wait in the queue. */
  inFlight: number;
  waiting: number;
}

export type AccountView = Awaited<ReturnType<typeof viewAccount>>;

export interface WorkerView extends Omit<WorkerStatus, 'state'> {
  /** silent: it has missed some heartbeats, so it has died, is frozen or has lost the queue. */
  readonly state: WorkerStatus['state'] | 'silent';
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

export type RequestsView = Awaited<ReturnType<typeof readRequests>>['requests'];

/** So many images of an account are looked at for whose they are; more are counted, and nobody's. */
const MOST_IMAGES = 5000;
/** Runs that were released by their server are at the head of the queue. */
const MOST_REQUESTS = 200;
const SHOWN_REQUESTS = 20;
/** Workers publish each second. */
const HEARD_OF_MS = 4000;

export async function readServiceStatus(connection: QueueConnection, nowMs = Date.now()) {
  const { store } = connection;
  const living = await SERVERS.listLiving(store);
  const [published, { requests, byRun }] = await Promise.all([
    listRuns(store),
    readRequests(connection, living),
  ]);
  const runs = await Promise.all(published.map((run) => viewRun(run, byRun.get(run.run))));
  const runOf = new Map(runs.map((run) => [run.run, run]));
  const accounts = await Promise.all(
    [...(await knownAccounts(store, runs))].map(async ([queueName, account]) => {
      await countImages(connection, queueName, runOf);
      return viewAccount(connection, { account, queueName }, nowMs);
    }),
  );
  return {
    at: nowMs,
    /** The queue, without a password. */
    queue: connection.label,
    /** The newest first. */
    runs,
    accounts: accounts.sort((a, b) => (a.account < b.account ? -1 : 1)),
    requests,
    /** Processes that execute requests (`serve`). */
    homes: [...living.values()].filter((server) => server !== undefined),
  };
}

/** What helps a run that nobody has at the moment; undefined where nothing is to be done. */
export function adviceFor(
  { state, served }: Pick<RunView, 'state' | 'served'>,
  { homes: servers }: Pick<ServiceStatus, 'homes'>,
): string | undefined {
  if (state === 'silent' && !served) return 'the same command resumes it';
  if (state !== 'silent' && state !== 'waiting') return undefined;
  return servers.length > 0
    ? 'a server takes it up within some seconds'
    : 'no server is running: start `bulk-describe serve`, which goes on with it';
}

/** The workers of an account. One that has died on another machine is known by its silence alone. */
export async function viewWorkers(store: SharedStore, queueName: string): Promise<WorkerView[]> {
  const kind = workersOf(queueName);
  const [living, fresh] = await Promise.all([kind.listLiving(store), kind.listFresh(store, HEARD_OF_MS)]);
  return [...living].flatMap(([id, worker]): WorkerView[] => {
    if (worker === undefined) return [];
    if (fresh.has(id)) return [worker];
    return [{ ...worker, state: 'silent', reason: 'it has died, is frozen or has lost the queue' }];
  });
}

/** All accounts that are known of: their describe queues' names, with the accounts' labels. */
export async function knownAccounts(
  store: SharedStore,
  runs: readonly RunStatus[],
): Promise<Map<string, string>> {
  const known = await ACCOUNTS.list(store);
  const all = [
    ...runs.map((run) => [run.queueName, run.account] as const),
    ...known.map(({ queueName, label }) => [queueName, label] as const),
  ];
  return new Map(all.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** An account, as its queue has it. */
async function viewAccount(
  connection: QueueConnection,
  { account, queueName }: { readonly account: string; readonly queueName: string },
  nowMs: number,
) {
  const queue = connection.queue(queueName);
  const [limits, workers, counts, isQueuePaused] = await Promise.all([
    readAccountLimits(connection.store, queueName, nowMs),
    viewWorkers(connection.store, queueName),
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
    /** The limits as flags take them. */
    rate: formatRate(configured.rate),
    pollRate: formatRate(configured.pollRate),
    maxInFlight: configured.maxInFlight,
    /** The share of the rate that the API lets through, in (0, 1], and the rate that makes. */
    share,
    learnedRate: formatRate(scaleRate(configured.rate, share)),
    inFlight,
    waiting: images - inFlight,
    /** Of those that wait: for their next attempt. */
    delayed: counts['delayed'] ?? 0,
    workers,
    pauses: pausesOf({ workers, fellAt, heldUntil, isQueuePaused, images }, nowMs),
  };
}

/** What keeps an account from being worked for. A worker that has given up is no pause while another goes on. */
export function pausesOf(
  facts: {
    readonly workers: readonly WorkerView[];
    readonly fellAt: number;
    readonly heldUntil: number;
    /** Somebody has paused the queue, such as on the dashboard. */
    readonly isQueuePaused: boolean;
    /** Images that wait or are in flight. */
    readonly images: number;
  },
  nowMs: number,
): Pause[] {
  const pauses: Pause[] = [];
  const heard = facts.workers.filter(({ state }) => state !== 'silent').sort((a, b) => a.since - b.since);
  const stopped = heard.flatMap(({ state: kind, since, reason }) =>
    kind === 'silent' || kind === 'working' ? [] : [{ kind, since, reason }],
  );
  const last = stopped.at(-1);
  if (last !== undefined && stopped.length === heard.length) {
    // It began when the last worker stopped. One that only waits for the API may still come back.
    const { kind, reason } = stopped.find((worker) => worker.kind === 'down') ?? last;
    pauses.push({ kind, since: last.since, reason });
  }
  if (heard.length === 0 && facts.images > 0) pauses.push({ kind: 'no-worker', reason: '' });
  if (facts.heldUntil > nowMs) {
    pauses.push({ kind: 'rate', since: facts.fellAt, until: facts.heldUntil, reason: '' });
  }
  if (facts.isQueuePaused) pauses.push({ kind: 'paused', reason: '' });
  return pauses;
}

/** Counts the images of each run in an account's queue. */
async function countImages(
  connection: QueueConnection,
  queueName: string,
  runs: ReadonlyMap<string, RunView>,
): Promise<void> {
  const queue = connection.queue(queueName);
  const runOf = (jobId: string) => runs.get(partsOfJobId(jobId)?.run ?? '');
  const [active, waiting] = await Promise.all([
    queue.getRanges(['active'], 0, MOST_IMAGES - 1),
    queue.getRanges(['waiting', 'prioritized', 'delayed'], 0, MOST_IMAGES - 1),
  ]);
  for (const run of active.map(runOf)) if (run !== undefined) run.inFlight++;
  for (const run of waiting.map(runOf)) if (run !== undefined) run.waiting++;
}

/** Of a run whose files a server has opened. */
interface OpenedRequest {
  /** A server has it, or had it when it died. */
  readonly isTaken: boolean;
  readonly isCancelled: boolean;
}

/** What the runs queue holds. Scheduled runs that are not due yet do not count. */
async function readRequests(connection: QueueConnection, servers: ReadonlyMap<string, unknown>) {
  const queue = connection.queue<unknown, RunOutcome>(RUNS_QUEUE);
  const look = (...states: JobType[]) => queue.getJobs(states, 0, MOST_REQUESTS - 1, true);
  const [counts, active, waiting, delayed] = await Promise.all([
    queue.getJobCounts('active', 'waiting', 'prioritized'),
    look('active'),
    look('waiting', 'prioritized'),
    look('delayed'),
  ]);
  const byRun = new Map<string, OpenedRequest>();
  for (const job of [...waiting, ...delayed, ...active]) {
    const opened = openedRun(job);
    if (opened === undefined) continue;
    const stop = runRequestSchema.safeParse(job.data).data?.stoppedBefore;
    byRun.set(opened.run, { isTaken: active.includes(job), isCancelled: stop?.kind === 'cancelled' });
  }
  // The first of those that wait, and since when. Paths are as the request has them: relative to the server's root.
  const next = waiting.slice(0, SHOWN_REQUESTS).flatMap(({ id: job = '', data, timestamp: since }) => {
    const { manifest, output, schedule } = requestNames(data) ?? {};
    return manifest === undefined ? [] : [{ job, output, schedule, since, manifest }];
  });
  // Where no server is left, nobody looks for the jobs of one that has died.
  const left = active.filter(({ processedBy }) => processedBy !== undefined && !servers.has(processedBy));
  const { active: taken = 0, waiting: queued = 0, prioritized = 0 } = counts;
  const executing = taken - left.length;
  return { requests: { executing, waiting: queued + prioritized + left.length, next }, byRun };
}

/** A run of which no image is counted yet. */
async function viewRun(run: PublishedRun, request: OpenedRequest | undefined): Promise<RunView> {
  const published = run.state === 'running' && (await isKnownDead(run)) ? 'silent' : run.state;
  const state = request?.isTaken === false && published !== 'running' ? 'waiting' : published;
  const isCancelled = run.stopKind === 'cancelled' || (state !== 'ended' && request?.isCancelled === true);
  const served = request !== undefined;
  return { ...run, state, served, ...(isCancelled && { cancelled: true }), inFlight: 0, waiting: 0 };
}
