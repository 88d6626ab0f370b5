import { ConnectionError, StatusError } from '../describe-api/errors.js';
import type { Usage } from '../describe-api/errors.js';
import type { ErrorCode, Outcome } from '../shared/jobs.js';
import { HISTOGRAM_BOUNDS, type HistogramName } from '../shared/published.js';
import type { SharedStore } from '../shared/queue/store.js';

type CallName = 'submit' | 'poll';

/** What the workers of an account count, all of them together: fields of one record, which no end of a worker loses. */
type MetricField =
  | `calls:${CallName}`
  /** Of those, the ones that were answered with a 429. */
  | `throttled:${CallName}`
  | `outcomes:${'described' | ErrorCode}`
  | `tokens:${'input' | 'output'}`
  | `${HistogramName}:le:${string}`
  | `${HistogramName}:sum`;

/** What a worker counts, in its memory until it is published: one round trip, however many images there were. */
export class WorkerMetrics {
  #deltas = new Map<MetricField, number>();
  #publishing: Promise<void> = Promise.resolve();

  /** Submits whose answers are still to come: they are paid for. */
  submitsOnTheWire = 0;

  submit<T>(call: Promise<T>): Promise<T> {
    this.submitsOnTheWire++;
    return this.#call('submit', call).finally(() => this.submitsOnTheWire--);
  }

  poll<T>(call: Promise<T>): Promise<T> {
    return this.#call('poll', call);
  }

  /** An image was described: how long that took, and how late it was noticed at most. */
  completed(seenMs: number, gapMs: number): void {
    this.#observe('latency', seenMs / 1000);
    this.#observe('pollLag', gapMs / 1000);
  }

  used({ inputTokens, outputTokens }: Usage): void {
    this.#add('tokens:input', inputTokens);
    this.#add('tokens:output', outputTokens);
  }

  ended(outcome: Outcome): void {
    this.#add(`outcomes:${outcome.status === 'described' ? 'described' : outcome.code}`, 1);
  }

  /**
   * Adds what has not been published to what the account's workers have counted together. What is being published is
   * waited for: given up and published again, it would be counted twice.
   */
  publish(store: SharedStore, queueName: string): Promise<void> {
    const publish = () => this.#publish(store, queueName);
    this.#publishing = this.#publishing.then(publish, publish);
    return this.#publishing;
  }

  async #publish(store: SharedStore, queueName: string): Promise<void> {
    const deltas = this.#deltas;
    if (deltas.size === 0) return;
    this.#deltas = new Map();
    try {
      await store.addToFields(`metrics:${queueName}`, Object.fromEntries(deltas));
    } catch (error) {
      for (const [field, delta] of deltas) this.#add(field, delta);
      throw error;
    }
  }

  async #call<T>(name: CallName, call: Promise<T>): Promise<T> {
    try {
      const answer = await call;
      this.#add(`calls:${name}`, 1);
      return answer;
    } catch (error) {
      if (!(error instanceof ConnectionError)) this.#add(`calls:${name}`, 1);
      if (error instanceof StatusError && error.status === 429) this.#add(`throttled:${name}`, 1);
      throw error;
    }
  }

  /** A value is counted in its own bucket, and not in those above it. */
  #observe(name: HistogramName, seconds: number): void {
    const bound = HISTOGRAM_BOUNDS[name].find((upper) => seconds <= upper) ?? '+Inf';
    this.#add(`${name}:le:${bound}`, 1);
    this.#add(`${name}:sum`, seconds);
  }

  #add(field: MetricField, delta: number): void {
    this.#deltas.set(field, (this.#deltas.get(field) ?? 0) + delta);
  }
}
