import type { Message } from '../describe-api/client.js';
import { ConnectionError, StatusError } from '../describe-api/errors.js';
import {
  addMetrics,
  bucketOf,
  type CallName,
  type HistogramName,
  type MetricField,
} from '../shared/published.js';
import { messageOf } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import type { Outcome } from '../shared/jobs.js';
import type { SharedStore } from '../shared/queue/store.js';
import { sleep } from '../shared/waiting.js';
import type { PollSchedule } from './poll-schedule.js';
import type { ProcessingDeps } from './processing.js';

const EVERY_MS = 1000;

type Client = ProcessingDeps['client'];

/**
 * Counts what a worker does, in its memory, and adds it to what the account's workers have counted together once
 * a second: one round trip, however many images there were.
 */
export class WorkerMetrics {
  #deltas = new Map<MetricField, number>();
  readonly #ended = new AbortController();
  #submitsOnTheWire = 0;
  #publishing: Promise<void> = Promise.resolve();

  constructor(
    private readonly store: SharedStore,
    private readonly queueName: string,
    private readonly logger: Logger,
  ) {}

  /** Begins to publish; to be ended with `stop`. */
  start(): void {
    this.#publishing = this.#publishRegularly();
  }

  /** Submits whose answers are still to come: they are paid for. */
  get submitsOnTheWire(): number {
    return this.#submitsOnTheWire;
  }

  /** The same client, counted. A call that did not reach the API was none. */
  counted(client: Client): Client {
    return {
      dialect: client.dialect,
      submit: async (request, about) => {
        this.#submitsOnTheWire++;
        try {
          return await this.#call('submit', () => client.submit(request, about));
        } finally {
          this.#submitsOnTheWire--;
        }
      },
      message: (messageId, options): Promise<Message> =>
        this.#call('poll', () => client.message(messageId, options)),
    };
  }

  /** The same schedule, whose completions are observed: how long each took, and how late it was noticed at most. */
  observed(schedule: PollSchedule): PollSchedule {
    return {
      nextDelayMs: (waitedMs, failures) => schedule.nextDelayMs(waitedMs, failures),
      learned: () => schedule.learned(),
      completed: (seenMs, gapMs) => {
        schedule.completed(seenMs, gapMs);
        this.#observe('latency', seenMs / 1000);
        this.#observe('pollLag', gapMs / 1000);
      },
    };
  }

  /** An image has its outcome. */
  ended(outcome: Outcome): void {
    this.#add(`outcomes:${outcome.status === 'described' ? 'described' : outcome.code}`, 1);
  }

  /** Publishes what has not been published. */
  async stop(): Promise<void> {
    this.#ended.abort();
    // What is being published is waited for: given up and published again, it would be counted twice.
    await this.#publishing;
    await this.#publish();
  }

  async #call<T>(name: CallName, call: () => Promise<T>): Promise<T> {
    try {
      const answer = await call();
      this.#add(`calls:${name}`, 1);
      return answer;
    } catch (error) {
      if (!(error instanceof ConnectionError)) this.#add(`calls:${name}`, 1);
      if (error instanceof StatusError && error.status === 429) this.#add(`throttled:${name}`, 1);
      throw error;
    }
  }

  #observe(name: HistogramName, seconds: number): void {
    this.#add(bucketOf(name, seconds), 1);
    this.#add(`${name}:sum`, seconds);
  }

  #add(field: MetricField, delta: number): void {
    this.#deltas.set(field, (this.#deltas.get(field) ?? 0) + delta);
  }

  async #publishRegularly(): Promise<void> {
    do await this.#publish();
    while (await sleep(EVERY_MS, this.#ended.signal));
  }

  /** Counts that the queue did not take are published the next time. */
  async #publish(): Promise<void> {
    const deltas = this.#deltas;
    this.#deltas = new Map();
    try {
      if (deltas.size > 0) await addMetrics(this.store, this.queueName, deltas);
    } catch (error) {
      for (const [field, delta] of deltas) this.#add(field, delta);
      this.logger.debug({ error: messageOf(error) }, 'the counts are published later');
    }
  }
}
