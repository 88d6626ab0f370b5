import type { ErrorCode } from './outcome.js';
import type { SharedStore } from './queue/store.js';

/**
 * What the workers of an account have counted, all of them together and since the queue is there: a record of
 * the queue's store, so that every process can show it and no end of a worker loses it.
 */

/** Upper bounds in seconds; what is above the last one falls into `+Inf`. */
export const HISTOGRAM_BOUNDS = {
  latency: [0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200],
  pollLag: [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60],
} as const;

export type HistogramName = keyof typeof HISTOGRAM_BOUNDS;
export type CallName = 'submit' | 'poll';
export type OutcomeName = 'described' | ErrorCode;

/** The fields of the record. */
export type MetricField =
  | `calls:${CallName}`
  /** Of those, the ones that were answered with a 429. */
  | `throttled:${CallName}`
  | `outcomes:${OutcomeName}`
  | `${HistogramName}:le:${string}`
  | `${HistogramName}:sum`;

/** Where a value is counted: its bucket alone, not those above it. */
export function bucketOf(name: HistogramName, seconds: number): MetricField {
  const bound = HISTOGRAM_BOUNDS[name].find((upper) => seconds <= upper);
  return `${name}:le:${bound === undefined ? '+Inf' : String(bound)}`;
}

function metricsRecord(queueName: string): string {
  return `metrics:${queueName}`;
}

/** Adds to what the account has counted: one round trip. */
export async function addMetrics(
  store: SharedStore,
  queueName: string,
  deltas: ReadonlyMap<MetricField, number>,
): Promise<void> {
  await store.addToFields(metricsRecord(queueName), Object.fromEntries(deltas));
}

/** What the account has counted; a field that was never counted is not there. */
export async function readMetrics(store: SharedStore, queueName: string): Promise<Map<string, number>> {
  const fields = Object.entries(await store.getFields(metricsRecord(queueName)));
  return new Map(
    fields.flatMap(([name, text]) => (Number.isFinite(Number(text)) ? [[name, Number(text)] as const] : [])),
  );
}
