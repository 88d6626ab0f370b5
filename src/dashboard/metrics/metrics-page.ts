import { Registry } from 'prom-client';
import { resultsQueueName } from '../../shared/account.js';
import { RUNS, runState, SERVERS } from '../../shared/published.js';
import { list } from '../../shared/queue/registry.js';
import { ERROR_CODES } from '../../shared/outcome.js';
import type { QueueConnection } from '../../shared/queue/connection.js';
import { VERSION } from '../../shared/version.js';
import { knownQueues } from '../accounts.js';
import { type AccountFigures, JOB_STATES, readAccountFigures } from './account-figures.js';
import { readSchedules } from './schedules.js';
import { StoredHistogram } from './stored-histogram.js';
import { PREFIX, counter, gauge } from './tell-metric.js';

const WORKER_STATES = ['working', 'down', 'token', 'quota'] as const;
const RUN_STATES = ['running', 'silent', 'ended'] as const;

/** The figures of a queue, as Prometheus reads them; see docs/metrics.md. */
export async function renderMetrics(connection: QueueConnection): Promise<{ type: string; text: string }> {
  const registry = new Registry();
  const runs = await list(connection.store, RUNS);
  const queues = [...(await knownQueues(connection.store, runs))];
  const figures = await Promise.all(
    queues.map(([queueName, account]) => readAccountFigures(connection, queueName, account)),
  );
  tellCounts(registry, figures);
  tellLimits(registry, figures);
  tellJobs(registry, figures);
  const now = Date.now();
  const states = runs.map((run) => runState(run, now));
  const live = runs.filter((_run, i) => states[i] !== 'ended');
  const results = await Promise.all(
    live.map(({ run }) => connection.countJobs(resultsQueueName(run), ['waiting', 'active'])),
  );
  gauge(
    registry,
    'runs',
    'Runs of the last day, by state.',
    ['state'],
    RUN_STATES.map((state) => ({
      labels: { state },
      value: states.filter((other) => other === state).length,
    })),
  );
  gauge(
    registry,
    'homes',
    'Living homes, which execute what is enqueued and scheduled.',
    [],
    [{ labels: {}, value: (await list(connection.store, SERVERS)).length }],
  );
  gauge(
    registry,
    'results_waiting',
    'Outcomes that are not on disk yet.',
    [],
    [{ labels: {}, value: results.reduce((sum, count) => sum + count, 0) }],
  );
  gauge(
    registry,
    'schedule_last_success_timestamp_seconds',
    'When a schedule last ran to its end with every row described or accepted.',
    ['schedule'],
    (await readSchedules(connection)).flatMap(({ name, lastSuccessAt }) =>
      lastSuccessAt === undefined ? [] : [{ labels: { schedule: name }, value: lastSuccessAt / 1000 }],
    ),
  );
  gauge(
    registry,
    'build_info',
    'The version that tells this.',
    ['version'],
    [{ labels: { version: VERSION }, value: 1 }],
  );
  return { type: registry.contentType, text: await registry.metrics() };
}

function tellCounts(registry: Registry, figures: readonly AccountFigures[]): void {
  const count = (name: string, help: string, field: string) =>
    counter(
      registry,
      name,
      help,
      ['account'],
      figures.map(({ account, counts }) => ({
        labels: { account },
        value: counts.get(field) ?? 0,
      })),
    );
  count('submits_total', 'Submits that reached the API, whatever it answered.', 'calls:submit');
  count('polls_total', 'Polls that reached the API, whatever it answered.', 'calls:poll');
  counter(
    registry,
    'throttled_total',
    'Calls that were answered with a 429.',
    ['account', 'call'],
    figures.flatMap(({ account, counts }) =>
      ['submit', 'poll'].map((call) => ({
        labels: { account, call },
        value: counts.get(`throttled:${call}`) ?? 0,
      })),
    ),
  );
  counter(
    registry,
    'outcomes_total',
    'Images that were described, or failed with a code.',
    ['account', 'code'],
    figures.flatMap(({ account, counts }) =>
      ['described', ...ERROR_CODES].map((code) => ({
        labels: { account, code },
        value: counts.get(`outcomes:${code}`) ?? 0,
      })),
    ),
  );
  const latency = new StoredHistogram({
    name: `${PREFIX}latency_seconds`,
    help: 'From a submit to the moment in which its completion was noticed.',
    field: 'latency',
    registers: [registry],
  });
  const lag = new StoredHistogram({
    name: `${PREFIX}poll_lag_seconds`,
    help: 'How long after its completion a message was noticed, at most: the time between its last two polls.',
    field: 'pollLag',
    registers: [registry],
  });
  for (const { account, counts } of figures) {
    latency.add(account, counts);
    lag.add(account, counts);
  }
}

function tellLimits(registry: Registry, figures: readonly AccountFigures[]): void {
  const tell = (
    name: string,
    help: string,
    read: (limits: NonNullable<AccountFigures['limits']>) => number,
  ) =>
    gauge(
      registry,
      name,
      help,
      ['account'],
      figures.flatMap(({ account, limits }) =>
        limits === undefined ? [] : [{ labels: { account }, value: read(limits) }],
      ),
    );
  tell(
    'configured_rate_per_second',
    'Submits a second that the account may make.',
    (limits) => limits.ratePerSecond,
  );
  tell(
    'learned_rate_per_second',
    'Submits a second that the API lets through at the moment.',
    (limits) => limits.learnedPerSecond,
  );
  tell('in_flight_limit', 'Images that may be in flight at once.', (limits) => limits.maxInFlight);
}

function tellJobs(registry: Registry, figures: readonly AccountFigures[]): void {
  const each = <T>(read: (figure: AccountFigures) => T[]) => figures.flatMap(read);
  gauge(
    registry,
    'in_flight',
    'Images that are submitted and not yet completed.',
    ['account'],
    each(({ account, jobs }) => [{ labels: { account }, value: jobs['active'] ?? 0 }]),
  );
  gauge(
    registry,
    'queue_jobs',
    "Jobs of the account's queue, by BullMQ's states.",
    ['account', 'state'],
    each(({ account, jobs }) =>
      JOB_STATES.map((state) => ({ labels: { account, state }, value: jobs[state] ?? 0 })),
    ),
  );
  gauge(
    registry,
    'queue_paused',
    'Whether the taking of images is paused (1) or not (0).',
    ['account'],
    each(({ account, isPaused }) => [{ labels: { account }, value: isPaused ? 1 : 0 }]),
  );
  gauge(
    registry,
    'workers',
    'Living workers of the account, by state.',
    ['account', 'state'],
    each(({ account, workers }) =>
      WORKER_STATES.map((state) => ({
        labels: { account, state },
        value: workers.filter((worker) => worker.state === state).length,
      })),
    ),
  );
}
