import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { resultsQueueName } from '../shared/account.js';
import { type AccountLimitsView, readAccountLimits } from '../shared/account-limits.js';
import { perSecond } from '../shared/limits.js';
import { ERROR_CODES, RUNS_QUEUE } from '../shared/jobs.js';
import {
  HISTOGRAM_BOUNDS,
  type HistogramName,
  readMetrics,
  readScheduleRecord,
  RUNS,
  runState,
  SERVERS,
  type WorkerStatus,
  workersOf,
} from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { list, listProcesses } from '../shared/queue/registry.js';
import { VERSION } from '../shared/version.js';
import { knownQueues } from './accounts.js';

const PREFIX = 'bulk_describe_';
/** By BullMQ's names. */
const JOB_STATES = ['waiting', 'active', 'delayed', 'prioritized', 'completed', 'failed'] as const;
const WORKER_STATES = ['working', 'down', 'token', 'quota'] as const;
const RUN_STATES = ['running', 'silent', 'ended'] as const;

/** The figures of a queue, as Prometheus reads them; see docs/metrics.md. */
export async function renderMetrics(connection: QueueConnection): Promise<{ type: string; text: string }> {
  const runs = await list(connection.store, RUNS);
  const queues = [...(await knownQueues(connection.store, runs))];
  const accounts = await Promise.all(
    queues.map(([queueName, account]) => readAccount(connection, queueName, account)),
  );
  const registry = new Registry();
  const ofQueue = await queueMetrics(connection, runs);
  for (const metric of [...countersOf(accounts), ...gaugesOf(accounts), ...ofQueue]) {
    const { type, name, help, labels, samples } = metric;
    const definition = { name: PREFIX + name, help, labelNames: labels, registers: [registry] };
    const counter = type === 'counter' ? new Counter(definition) : new Gauge(definition);
    for (const [values, value] of samples) counter.labels(...values).inc(value);
  }
  const observed = (field: HistogramName, name: string, help: string) => {
    const histogram = new StoredHistogram({ name: PREFIX + name, help, field, registers: [registry] });
    for (const { account, counts } of accounts) histogram.add(account, counts);
  };
  observed('latency', 'latency_seconds', 'From a submit to the moment in which its completion was noticed.');
  observed(
    'pollLag',
    'poll_lag_seconds',
    'How long after its completion a message was noticed, at most: the time between its last two polls.',
  );
  return { type: registry.contentType, text: await registry.metrics() };
}

/** An account at the moment. */
interface AccountFigures {
  readonly account: string;
  /** What its workers have counted since the queue is there. */
  readonly counts: ReadonlyMap<string, number>;
  readonly jobs: Readonly<Record<string, number>>;
  readonly isPaused: boolean;
  readonly workers: readonly WorkerStatus[];
  readonly limits: AccountLimitsView | undefined;
}

async function readAccount(
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
    listProcesses(store, workersOf(queueName)),
    readAccountLimits(store, queueName, Date.now()),
  ]);
  return { account, counts, jobs, isPaused, workers, limits };
}

interface Metric {
  readonly type: 'counter' | 'gauge';
  /** Without the prefix. */
  readonly name: string;
  readonly help: string;
  readonly labels: string[];
  /** Values with those of their labels. */
  readonly samples: readonly (readonly [labels: readonly string[], value: number])[];
}

type Read = (figures: AccountFigures) => number | undefined;

/** One sample an account; none where it has no such figure. */
function each(accounts: readonly AccountFigures[], read: Read): Metric['samples'] {
  return accounts.flatMap((figures) => {
    const value = read(figures);
    return value === undefined ? [] : [[[figures.account], value] as const];
  });
}

/** One sample an account and value of a second label. */
function by<T extends string>(
  accounts: readonly AccountFigures[],
  { label, values }: { label: string; values: readonly T[] },
  { type, name, help }: Pick<Metric, 'type' | 'name' | 'help'>,
  read: (figures: AccountFigures, value: T) => number,
): Metric {
  const samples = accounts.flatMap((figures) =>
    values.map((value) => [[figures.account, value], read(figures, value)] as const),
  );
  return { type, name, help, labels: ['account', label], samples };
}

/** The counters of each account. */
function countersOf(accounts: readonly AccountFigures[]): Metric[] {
  const count = (name: string, help: string, field: string): Metric => ({
    type: 'counter',
    name,
    help,
    labels: ['account'],
    samples: each(accounts, ({ counts }) => counts.get(field) ?? 0),
  });
  return [
    count('submits_total', 'Submits that reached the API, whatever it answered.', 'calls:submit'),
    count('polls_total', 'Polls that reached the API, whatever it answered.', 'calls:poll'),
    by(
      accounts,
      { label: 'call', values: ['submit', 'poll'] },
      { type: 'counter', name: 'throttled_total', help: 'Calls that were answered with a 429.' },
      ({ counts }, call) => counts.get(`throttled:${call}`) ?? 0,
    ),
    by(
      accounts,
      { label: 'code', values: ['described', ...ERROR_CODES] },
      { type: 'counter', name: 'outcomes_total', help: 'Images that were described, or failed with a code.' },
      ({ counts }, code) => counts.get(`outcomes:${code}`) ?? 0,
    ),
  ];
}

/** The gauges of each account. */
function gaugesOf(accounts: readonly AccountFigures[]): Metric[] {
  const gauge = (name: string, help: string, read: Read): Metric => ({
    type: 'gauge',
    name,
    help,
    labels: ['account'],
    samples: each(accounts, read),
  });
  return [
    gauge(
      'configured_rate_per_second',
      'Submits a second that the account may make.',
      ({ limits }) => limits && perSecond(limits.configured.rate),
    ),
    gauge(
      'learned_rate_per_second',
      'Submits a second that the API lets through at the moment.',
      ({ limits }) => limits && perSecond(limits.configured.rate) * limits.share,
    ),
    gauge(
      'in_flight_limit',
      'Images that may be in flight at once.',
      ({ limits }) => limits?.configured.maxInFlight,
    ),
    gauge('in_flight', 'Images that are submitted and not yet completed.', ({ jobs }) => jobs['active'] ?? 0),
    gauge('queue_paused', 'Whether the taking of images is paused (1) or not (0).', ({ isPaused }) =>
      isPaused ? 1 : 0,
    ),
    by(
      accounts,
      { label: 'state', values: JOB_STATES },
      { type: 'gauge', name: 'queue_jobs', help: "Jobs of the account's queue, by BullMQ's states." },
      ({ jobs }, state) => jobs[state] ?? 0,
    ),
    by(
      accounts,
      { label: 'state', values: WORKER_STATES },
      { type: 'gauge', name: 'workers', help: 'Living workers of the account, by state.' },
      ({ workers }, state) => workers.filter((worker) => worker.state === state).length,
    ),
  ];
}

/** The metrics of the queue as a whole. */
async function queueMetrics(
  connection: QueueConnection,
  runs: readonly Parameters<typeof runState>[0][],
): Promise<Metric[]> {
  const now = Date.now();
  const live = runs.filter((run) => runState(run, now) !== 'ended');
  const [servers, results, schedules] = await Promise.all([
    listProcesses(connection.store, SERVERS),
    Promise.all(live.map(({ run }) => connection.countJobs(resultsQueueName(run), ['waiting', 'active']))),
    readSchedules(connection),
  ]);
  const states = runs.map((run) => runState(run, now));
  const gauge = (name: string, help: string, labels: string[], samples: Metric['samples']): Metric => {
    return { type: 'gauge', name, help, labels, samples };
  };
  return [
    gauge(
      'runs',
      'Runs of the last day, by state.',
      ['state'],
      RUN_STATES.map((state) => [[state], states.filter((other) => other === state).length]),
    ),
    gauge(
      'homes',
      'Living servers, which execute what is enqueued and scheduled.',
      [],
      [[[], servers.length]],
    ),
    gauge(
      'results_waiting',
      'Outcomes that are not on disk yet.',
      [],
      [[[], results.reduce((sum, waiting) => sum + waiting, 0)]],
    ),
    gauge(
      'schedule_last_success_timestamp_seconds',
      'When a schedule last ran to its end with every row described or accepted.',
      ['schedule'],
      schedules,
    ),
    gauge('build_info', 'The version of this dashboard.', ['version'], [[[VERSION], 1]]),
  ];
}

/** When each schedule last succeeded, in seconds; one that never did is left out. */
async function readSchedules(connection: QueueConnection): Promise<Metric['samples']> {
  const schedulers = await connection.queue(RUNS_QUEUE).getJobSchedulers();
  const found = await Promise.all(
    schedulers.map(async ({ key }) => {
      const { lastSuccessAt } = await readScheduleRecord(connection.store, key);
      return lastSuccessAt === undefined ? [] : [[[key], lastSuccessAt / 1000] as const];
    }),
  );
  return found.flat();
}

/** A line of the text format. */
interface Line {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A histogram whose observations are not made in this process, but read from what the workers have counted. */
class StoredHistogram extends Histogram<'account'> {
  readonly #values: Line[] = [];

  constructor(
    private readonly config: { name: string; help: string; field: HistogramName; registers: Registry[] },
  ) {
    const { name, help, field, registers } = config;
    super({ name, help, labelNames: ['account'], buckets: [...HISTOGRAM_BOUNDS[field]], registers });
  }

  /** Takes an account's counts: each bucket has its own, and Prometheus wants each with those below it. */
  add(account: string, counts: ReadonlyMap<string, number>): void {
    const { name, field } = this.config;
    let total = 0;
    for (const le of [...HISTOGRAM_BOUNDS[field].map(String), '+Inf']) {
      total += counts.get(`${field}:le:${le}`) ?? 0;
      this.#values.push({ metricName: `${name}_bucket`, labels: { account, le }, value: total });
    }
    const labels = { account };
    this.#values.push({ metricName: `${name}_sum`, labels, value: counts.get(`${field}:sum`) ?? 0 });
    this.#values.push({ metricName: `${name}_count`, labels, value: total });
  }

  /** What prom-client asks for when it writes text. */
  getForPromString(): Promise<object> {
    const { name, help } = this.config;
    return Promise.resolve({ name, help, type: 'histogram', aggregator: 'sum', values: this.#values });
  }
}
