import { AggregatorRegistry, type PrometheusContentType } from 'prom-client';
import { TROUBLE_KINDS, readCheckedStatus } from '../service/troubles.js';
import type { AccountView } from '../service/views.js';
import { resultsQueueName } from '../shared/account.js';
import { readAccountLimits } from '../shared/account-limits.js';
import { perSecond } from '../shared/limits.js';
import { ERROR_CODES } from '../shared/jobs.js';
import { HISTOGRAM_BOUNDS, readMetrics } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { VERSION } from '../shared/version.js';

const PREFIX = 'bulk_describe_';
/** The metrics, in the order in which they are shown, with their help; see docs/metrics.md. */
const HELP = {
  submits_total: 'Submits that reached the API, whatever it answered.',
  polls_total: 'Polls that reached the API, whatever it answered.',
  throttled_total: 'Calls that were answered with a 429.',
  outcomes_total: 'Images that were described, or failed with a code.',
  tokens_total: 'Tokens that the API says were used; `kind` is input or output.',
  configured_rate_per_second: 'Submits a second that the account may make.',
  learned_rate_per_second: 'Submits a second that the API lets through at the moment.',
  in_flight_limit: 'Images that may be in flight at once.',
  in_flight: 'Images that are submitted and not yet completed.',
  queue_paused: 'Whether the taking of images is paused (1) or not (0).',
  queue_jobs: "Jobs of the account's queue, by BullMQ's states.",
  workers: 'Living workers of the account, by state.',
  runs: 'Runs of the last day, by state.',
  homes: 'Living servers, which execute what is enqueued and scheduled.',
  troubles: 'What keeps work from being done, by kind.',
  results_waiting: 'Outcomes that are not on disk yet.',
  schedule_last_success_timestamp_seconds:
    'When a schedule last ran to its end with every row described or accepted.',
  build_info: 'The version of this dashboard.',
  latency_seconds: 'From a submit to the moment in which its completion was noticed.',
  poll_lag_seconds:
    'How long after its completion a message was noticed, at most: the time between its last two polls.',
};

interface Sample {
  readonly name: keyof typeof HELP;
  /** Undefined is no sample. */
  readonly value: number | undefined;
  readonly labels?: Readonly<Record<string, string>>;
  /** Of a histogram: what is behind its name. */
  readonly suffix?: string;
}

const HISTOGRAMS = [
  ['latency_seconds', 'latency'],
  ['poll_lag_seconds', 'pollLag'],
] as const;

/** By BullMQ's names. */
const JOB_STATES = ['waiting', 'active', 'delayed', 'prioritized', 'completed', 'failed'] as const;
const RUN_STATES = ['running', 'silent', 'waiting', 'cancelled', 'ended'];
const WORKER_STATES = ['working', 'down', 'token', 'quota', 'set-up', 'silent'];

/** The figures of a queue, as Prometheus reads them. */
export async function renderMetrics(connection: QueueConnection): Promise<{ type: string; text: string }> {
  const { runs, accounts, homes: servers, schedules, troubles } = await readCheckedStatus(connection);
  const states = runs.map(({ state, cancelled }) => (cancelled === true ? 'cancelled' : state));
  const live = runs.filter(({ state }) => state !== 'ended');
  const [results, ...ofAccounts] = await Promise.all([
    Promise.all(live.map(({ run }) => connection.countJobs(resultsQueueName(run), ['waiting', 'active']))),
    ...accounts.map((account) => readAccount(connection, account)),
  ]);
  const samples: Sample[] = [
    ...ofAccounts.flat(),
    ...sampled('runs', 'state', RUN_STATES, (state) => states.filter((other) => other === state).length),
    { name: 'homes', value: servers.length },
    ...sampled(
      'troubles',
      'kind',
      TROUBLE_KINDS,
      (kind) => troubles.filter((one) => one.kind === kind).length,
    ),
    { name: 'results_waiting', value: results.reduce((sum, waiting) => sum + waiting, 0) },
    // One that has never succeeded is left out.
    ...schedules.map(({ name: schedule, record: { lastSuccessAt } }): Sample => {
      const name = 'schedule_last_success_timestamp_seconds';
      return { name, value: lastSuccessAt && lastSuccessAt / 1000, labels: { schedule } };
    }),
    { name: 'build_info', value: 1, labels: { version: VERSION } },
  ];
  const metrics = Object.entries(HELP).map(([name, help]) => ({
    name: PREFIX + name,
    help,
    type: typeOf(name),
    aggregator: 'first',
    values: samples
      .filter((sample) => sample.name === name && sample.value !== undefined)
      .map(({ value, labels = {}, suffix = '' }) => ({ metricName: PREFIX + name + suffix, labels, value })),
  }));
  // What was counted elsewhere: prom-client takes it as it takes the metrics of another process.
  const registry = AggregatorRegistry.aggregate<PrometheusContentType>([metrics]);
  return { type: registry.contentType, text: await registry.metrics() };
}

function typeOf(name: string): string {
  if (HISTOGRAMS.some(([histogram]) => histogram === name)) return 'histogram';
  return name.endsWith('_total') ? 'counter' : 'gauge';
}

/** An account at the moment, and what its workers have counted since the queue is there. */
async function readAccount(
  connection: QueueConnection,
  { account, queueName, workers, pauses }: AccountView,
): Promise<Sample[]> {
  const { store } = connection;
  const [counts, jobs, limits] = await Promise.all([
    readMetrics(store, queueName),
    connection.queue(queueName).getJobCounts(...JOB_STATES),
    readAccountLimits(store, queueName, Date.now()),
  ]);
  const count = (field: string) => counts.get(field) ?? 0;
  const countWorkers = (state: string) => workers.filter((worker) => worker.state === state).length;
  const samples: Sample[] = [
    { name: 'submits_total', value: count('calls:submit') },
    { name: 'polls_total', value: count('calls:poll') },
    { name: 'configured_rate_per_second', value: limits && perSecond(limits.configured.rate) },
    { name: 'learned_rate_per_second', value: limits && perSecond(limits.configured.rate) * limits.share },
    { name: 'in_flight_limit', value: limits?.configured.maxInFlight },
    { name: 'in_flight', value: jobs['active'] ?? 0 },
    { name: 'queue_paused', value: pauses.some(({ kind }) => kind === 'paused') ? 1 : 0 },
    ...sampled('throttled_total', 'call', ['submit', 'poll'], (call) => count(`throttled:${call}`)),
    ...sampled('outcomes_total', 'code', ['described', ...ERROR_CODES], (code) => count(`outcomes:${code}`)),
    ...sampled('tokens_total', 'kind', ['input', 'output'], (kind) => count(`tokens:${kind}`)),
    ...sampled('queue_jobs', 'state', JOB_STATES, (state) => jobs[state] ?? 0),
    ...sampled('workers', 'state', WORKER_STATES, countWorkers),
    ...HISTOGRAMS.flatMap(([name, field]) => {
      // Each bucket has its own count, and Prometheus wants it with those below it.
      let total = 0;
      const bounds = [...HISTOGRAM_BOUNDS[field].map(String), '+Inf'];
      return [
        ...sampled(name, 'le', bounds, (le) => (total += count(`${field}:le:${le}`)), '_bucket'),
        { name, value: count(`${field}:sum`), suffix: '_sum' },
        { name, value: total, suffix: '_count' },
      ];
    }),
  ];
  return samples.map((sample) => ({ ...sample, labels: { account, ...sample.labels } }));
}

function sampled(
  name: Sample['name'],
  label: string,
  values: readonly string[],
  read: (value: string) => number,
  suffix = '',
): Sample[] {
  return values.map((value) => ({ name, value: read(value), labels: { [label]: value }, suffix }));
}
