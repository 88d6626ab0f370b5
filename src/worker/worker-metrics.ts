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
import type { QueueConnection } from '../shared/queue/connection.js';
import { shutdownTimeout } from '../shared/queue/outage.js';
import { sleep, unlessAborted } from '../shared/waiting.js';
import type { ProcessingDeps } from './processing.js';
import type { PollSchedule } from './poll-schedule.js';
import { z } from 'zod';
import { parseJson } from '../shared/parse-json.js';

const EVERY_MS = 1000;
const SHUTDOWN_TIMEOUT_MS = 2000;

type Client = ProcessingDeps['client'];

/**
 * Counts what a worker does, in its memory, and adds it to what the account's workers have counted together once
 * a second: one round trip, however many images there were.
 */
export class WorkerMetrics {
  #deltas = new Map<MetricField, number>();
  readonly #ended = new AbortController();
  #telling: Promise<void> = Promise.resolve();

  constructor(
    private readonly about: { connection: Pick<QueueConnection, 'store' | 'isAway'>; queueName: string },
    private readonly logger: Logger,
  ) {}

  /** Begins to tell; to be ended with `stop`. */
  start(): void {
    this.#telling = this.#tellRegularly();
  }

  /** The same client, counted. A call that did not reach the API was none. */
  counted(client: Client): Client {
    return {
      dialect: client.dialect,
      submit: (request, about) => this.#call('submit', () => client.submit(request, about)),
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

  /** Tells what has not been told, unless the queue is away. */
  async stop(): Promise<void> {
    this.#ended.abort();
    const deadline = shutdownTimeout(this.about.connection, SHUTDOWN_TIMEOUT_MS);
    try {
      // What is being told is waited for: given up and told again, it would be counted twice.
      await unlessAborted(this.#telling, deadline);
      await unlessAborted(this.#tell(), deadline);
    } catch (error) {
      this.logger.debug({ error: messageOf(error) }, 'the last counts may be missing');
    }
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

  async #tellRegularly(): Promise<void> {
    do await this.#tell();
    while (await sleep(EVERY_MS, this.#ended.signal));
  }

  /** Counts that the queue did not take are told the next time. */
  async #tell(): Promise<void> {
    const { queueName } = this.about;
    const { store } = this.about.connection;
    const deltas = this.#deltas;
    this.#deltas = new Map();
    try {
      if (deltas.size > 0) await addMetrics(store, queueName, deltas);
    } catch (error) {
      for (const [field, delta] of deltas) this.#add(field, delta);
      this.logger.debug({ error: messageOf(error) }, 'the counts are told later');
    }
  }
}

const REMEMBER_EVERY_MS = 10_000;

const latenciesSchema = z.array(z.number().positive()).max(1000);

/**
 * How long an account's describes have been taking, kept beside its queue: the next worker begins with that, and does
 * not poll a whole night's first images in the dark.
 */
export class RememberedLatencies {
  readonly #record: string;
  #rememberedAt = performance.now();
  #remembered: readonly number[] = [];

  constructor(
    private readonly connection: Pick<QueueConnection, 'store' | 'isAway'>,
    queueName: string,
    private readonly logger: Logger,
  ) {
    this.#record = `latencies:${queueName}`;
  }

  /** Milliseconds, for `createPollSchedule`; none where nothing was learned yet. */
  async read(): Promise<readonly number[]> {
    const { ms = '' } = await this.connection.store.getFields(this.#record);
    this.#remembered = latenciesSchema.safeParse(parseJson(ms)).data ?? [];
    return this.#remembered;
  }

  /** To be called each second or so. */
  async remember(schedule: Pick<PollSchedule, 'learned'>): Promise<void> {
    if (performance.now() - this.#rememberedAt < REMEMBER_EVERY_MS) return;
    this.#rememberedAt = performance.now();
    const learned = schedule.learned();
    if (learned.length === 0 || learned === this.#remembered) return;
    await this.connection.store.setFields(this.#record, { ms: JSON.stringify(learned) });
    this.#remembered = learned;
  }

  /** Remembers what was learned last, unless the queue is away. */
  async stop(schedule: Pick<PollSchedule, 'learned'>): Promise<void> {
    this.#rememberedAt = -Infinity;
    try {
      await unlessAborted(this.remember(schedule), shutdownTimeout(this.connection, SHUTDOWN_TIMEOUT_MS));
    } catch (error) {
      this.logger.debug({ error: messageOf(error) }, 'how long describes take is learned anew the next time');
    }
  }
}
