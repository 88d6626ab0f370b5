import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { readScheduleRecord } from '../service/schedules.js';
import { knownAccounts, readRuns, viewWorkers } from '../service/views.js';
import { resultsQueueName } from '../shared/account.js';
import { readAccountLimits } from '../shared/account-limits.js';
import { perSecond } from '../shared/limits.js';
import { ERROR_CODES, RUNS_QUEUE } from '../shared/jobs.js';
import { HISTOGRAM_BOUNDS, type HistogramName, readMetrics } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { VERSION } from '../shared/version.js';

const PREFIX = 'bulk_describe_';
/** By BullMQ's names. */
const JOB_STATES = ['waiting', 'active', 'delayed', 'prioritized', 'completed', 'failed'] as const;
const RUN_STATES = ['running', 'silent', 'waiting', 'cancelled', 'ended'] as const;

/** The figures of a queue, as Prometheus reads them; see docs/metrics.md. */
export async function renderMetrics(connection: QueueConnection): Promise<{ type: string; text: string }> {
  const { runs, servers } = await readRuns(connection, Date.now());
  const queues = [...(await knownAccounts(connection.store, runs))];
  const accounts = await Promise.all(
    queues.map(([queueName, account]) => readAccount(connection, queueName, account)),
  );
  const registry = new Registry();
  for (const { type, name, help, by, read } of ACCOUNT_METRICS) {
    const [label, values] = by ?? [undefined, ['']];
    const labelNames = label === undefined ? ['account'] : ['account', label];
    const definition = { name: PREFIX + name, help, labelNames, registers: [registry] };
    const metric = type === 'counter' ? new Counter(definition) : new Gauge(definition);
    for (const figures of accounts) {
      for (const value of values) {
        const labels = { account: figures.account, ...(label !== undefined && { [label]: value }) };
        const amount = read(figures, value);
        if (amount !== undefined) metric.inc(labels, amount);
      }
    }
  }
  for (const { name, help, label, samples } of await queueMetrics(connection, { runs, servers })) {
    const labelNames = label === undefined ? [] : [label];
    const gauge = new Gauge({ name: PREFIX + name, help, labelNames, registers: [registry] });
    for (const [value, amount] of samples) gauge.set(label === undefined ? {} : { [label]: value }, amount);
  }
  for (const [field, name, help] of HISTOGRAMS) {
    const histogram = new StoredHistogram({ name: PREFIX + name, help, field, registers: [registry] });
    for (const { account, counts } of accounts) histogram.add(account, counts);
  }
  return { type: registry.contentType, text: await registry.metrics() };
}

type AccountFigures = Awaited<ReturnType<typeof readAccount>>;

/** An account at the moment, and what its workers have counted since the queue is there. */
async function readAccount(connection: QueueConnection, queueName: string, account: string) {
  const { store } = connection;
  const queue = connection.queue(queueName);
  const [counts, jobs, isPaused, workers, limits] = await Promise.all([
    readMetrics(store, queueName),
    queue.getJobCounts(...JOB_STATES),
    queue.isPaused(),
    viewWorkers(store, queueName),
    readAccountLimits(store, queueName, Date.now()),
  ]);
  return { account, counts, jobs, isPaused, workers, limits };
}

interface AccountMetric {
  readonly type: 'counter' | 'gauge';
  /** Without the prefix. */
  readonly name: string;
  readonly help: string;
  /** A second label, and its values. */
  readonly by?: readonly [label: string, values: readonly string[]];
  /** @returns undefined where the account has no such figure */
  readonly read: (figures: AccountFigures, value: string) => number | undefined;
}

/** The metrics of each account. */
const ACCOUNT_METRICS: readonly AccountMetric[] = [
  {
    type: 'counter',
    name: 'submits_total',
    help: 'Submits that reached the API, whatever it answered.',
    read: ({ counts }) => counts.get('calls:submit') ?? 0,
  },
  {
    type: 'counter',
    name: 'polls_total',
    help: 'Polls that reached the API, whatever it answered.',
    read: ({ counts }) => counts.get('calls:poll') ?? 0,
  },
  {
    type: 'counter',
    name: 'throttled_total',
    help: 'Calls that were answered with a 429.',
    by: ['call', ['submit', 'poll']],
    read: ({ counts }, call) => counts.get(`throttled:${call}`) ?? 0,
  },
  {
    type: 'counter',
    name: 'outcomes_total',
    help: 'Images that were described, or failed with a code.',
    by: ['code', ['described', ...ERROR_CODES]],
    read: ({ counts }, code) => counts.get(`outcomes:${code}`) ?? 0,
  },
  {
    type: 'gauge',
    name: 'configured_rate_per_second',
    help: 'Submits a second that the account may make.',
    read: ({ limits }) => limits && perSecond(limits.configured.rate),
  },
  {
    type: 'gauge',
    name: 'learned_rate_per_second',
    help: 'Submits a second that the API lets through at the moment.',
    read: ({ limits }) => limits && perSecond(limits.configured.rate) * limits.share,
  },
  {
    type: 'gauge',
    name: 'in_flight_limit',
    help: 'Images that may be in flight at once.',
    read: ({ limits }) => limits?.configured.maxInFlight,
  },
  {
    type: 'gauge',
    name: 'in_flight',
    help: 'Images that are submitted and not yet completed.',
    read: ({ jobs }) => jobs['active'] ?? 0,
  },
  {
    type: 'gauge',
    name: 'queue_paused',
    help: 'Whether the taking of images is paused (1) or not (0).',
    read: ({ isPaused }) => (isPaused ? 1 : 0),
  },
  {
    type: 'gauge',
    name: 'queue_jobs',
    help: "Jobs of the account's queue, by BullMQ's states.",
    by: ['state', JOB_STATES],
    read: ({ jobs }, state) => jobs[state] ?? 0,
  },
  {
    type: 'gauge',
    name: 'workers',
    help: 'Living workers of the account, by state.',
    by: ['state', ['working', 'down', 'token', 'quota', 'set-up', 'silent']],
    read: ({ workers }, state) => workers.filter((worker) => worker.state === state).length,
  },
];

const HISTOGRAMS = [
  ['latency', 'latency_seconds', 'From a submit to the moment in which its completion was noticed.'],
  [
    'pollLag',
    'poll_lag_seconds',
    'How long after its completion a message was noticed, at most: the time between its last two polls.',
  ],
] as const;

/** A gauge of the queue as a whole; a sample is a value of the label, and the figure. */
interface QueueMetric {
  readonly name: string;
  readonly help: string;
  readonly label?: string;
  readonly samples: readonly (readonly [value: string, amount: number])[];
}

async function queueMetrics(
  connection: QueueConnection,
  { runs, servers }: Pick<Awaited<ReturnType<typeof readRuns>>, 'runs' | 'servers'>,
): Promise<QueueMetric[]> {
  const states = runs.map(({ state, cancelled }) => (cancelled === true ? 'cancelled' : state));
  const live = runs.filter(({ state }) => state !== 'ended');
  const [results, schedules] = await Promise.all([
    Promise.all(live.map(({ run }) => connection.countJobs(resultsQueueName(run), ['waiting', 'active']))),
    readSchedules(connection),
  ]);
  return [
    {
      name: 'runs',
      help: 'Runs of the last day, by state.',
      label: 'state',
      samples: RUN_STATES.map((state) => [state, states.filter((other) => other === state).length]),
    },
    {
      name: 'homes',
      help: 'Living servers, which execute what is enqueued and scheduled.',
      samples: [['', servers.length]],
    },
    {
      name: 'results_waiting',
      help: 'Outcomes that are not on disk yet.',
      samples: [['', results.reduce((sum, waiting) => sum + waiting, 0)]],
    },
    {
      name: 'schedule_last_success_timestamp_seconds',
      help: 'When a schedule last ran to its end with every row described or accepted.',
      label: 'schedule',
      samples: schedules,
    },
    {
      name: 'build_info',
      help: 'The version of this dashboard.',
      label: 'version',
      samples: [[VERSION, 1]],
    },
  ];
}

/** When each schedule last succeeded, in seconds; one that never did is left out. */
async function readSchedules(connection: QueueConnection): Promise<QueueMetric['samples']> {
  const schedulers = await connection.queue(RUNS_QUEUE).getJobSchedulers();
  const found = await Promise.all(
    schedulers.map(async ({ key }) => {
      const { lastSuccessAt } = await readScheduleRecord(connection.store, key);
      return lastSuccessAt === undefined ? [] : [[key, lastSuccessAt / 1000] as const];
    }),
  );
  return found.flat();
}

/** A histogram whose observations are not made in this process, but read from what the workers have counted. */
class StoredHistogram extends Histogram<'account'> {
  readonly #values: object[] = [];

  constructor(
    private readonly config: { name: string; help: string; field: HistogramName; registers: Registry[] },
  ) {
    const { name, help, registers } = config;
    super({ name, help, labelNames: ['account'], registers });
  }

  /** Takes an account's counts: each bucket has its own, and Prometheus wants each with those below it. */
  add(account: string, counts: ReadonlyMap<string, number>): void {
    const { name, field } = this.config;
    const add = (suffix: string, value: number, le?: string) => {
      const labels = le === undefined ? { account } : { account, le };
      this.#values.push({ metricName: `${name}_${suffix}`, labels, value });
    };
    let total = 0;
    for (const le of [...HISTOGRAM_BOUNDS[field].map(String), '+Inf']) {
      total += counts.get(`${field}:le:${le}`) ?? 0;
      add('bucket', total, le);
    }
    add('sum', counts.get(`${field}:sum`) ?? 0);
    add('count', total);
  }

  /** What prom-client asks for when it writes text. */
  getForPromString(): Promise<object> {
    const { name, help } = this.config;
    return Promise.resolve({ name, help, type: 'histogram', values: this.#values });
  }
}
