import { z } from 'zod';
import { callbackKeys, type CallbackKeys } from '../webhook/callback-keys.js';
import { DeliveryInbox, type DeliveryWatch } from '../webhook/deliveries.js';
import type { Logger } from '../shared/log.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { retryUntilUp } from '../shared/queue/outage.js';

/** The flags one to one. */
export interface WebhookOptions {
  /** The public URL that leads to the receiver; the secret path is put behind it. */
  readonly url: string;
  /** The user's; else the one that the queue's store keeps. */
  readonly secret?: string | undefined;
}

/** The callback of one submit: what the API is to call, and what comes of it. */
export interface Callback {
  readonly ref: string;
  readonly url: string;
  readonly watch: DeliveryWatch;
}

interface WebhookDeps {
  readonly connection: Pick<QueueConnection, 'store' | 'noteTrouble'>;
  readonly queueName: string;
  readonly logger: Logger;
}

/** What a processing needs of webhooks. */
export type Webhooks = Pick<WorkerWebhooks, 'timing' | 'callback' | 'alsoFor' | 'notifyEarlier'>;

const REMEMBER_EVERY_MS = 10_000;
const rememberedSchema = z.coerce.number().positive().optional().catch(undefined);

/** A worker's webhooks: its inbox, and what it knows of how long describes take. */
export class WorkerWebhooks {
  #rememberedAt = performance.now();
  #rememberedMs: number | undefined;
  #hasWarned = false;

  private constructor(
    private readonly deps: WebhookDeps,
    private readonly baseUrl: string,
    private readonly keys: CallbackKeys,
    private readonly inbox: DeliveryInbox,
    readonly timing: DeliveryTiming,
  ) {
    this.#rememberedMs = timing.slowMs;
  }

  static async open(options: WebhookOptions, deps: WebhookDeps): Promise<WorkerWebhooks> {
    const { queueName, logger } = deps;
    const { store } = deps.connection;
    const keys = await callbackKeys(store, queueName, options.secret);
    const inbox = await DeliveryInbox.open(store, queueName, logger);
    const { slowMs } = await store.getFields(recordOf(queueName));
    const timing = new DeliveryTiming(rememberedSchema.parse(slowMs));
    return new WorkerWebhooks(deps, options.url, keys, inbox, timing);
  }

  /**
   * The callback of a submit, watched from now on; its watch is to be ended.
   * @param seed what tells the submit from all others: the same seed gives the same callback, also after a crash
   */
  callback(seed: string): Callback {
    const ref = this.keys.refOf(seed);
    return { ref, url: this.keys.callbackUrl(this.baseUrl, ref), watch: this.inbox.watch(ref) };
  }

  /** The watch is for deliveries of this message as well, which came without a ref. @returns the end of that */
  alsoFor(watch: DeliveryWatch, messageId: string): () => void {
    return this.inbox.alsoFor(watch, messageId);
  }

  /** Notifies the watches of those whose delivery has come before. */
  async notifyEarlier(callbacks: readonly Callback[]): Promise<void> {
    const refs = callbacks.map(({ ref }) => ref);
    const found = await retryUntilUp(this.deps.connection, () => this.inbox.find(refs));
    for (const { ref, watch } of callbacks) {
      const messageId = found.get(ref);
      if (messageId !== undefined) watch.notify(messageId);
    }
  }

  /**
   * Keeps what was learned for a process that starts after a crash, and says once when deliveries do not come; to be
   * called each second or so.
   */
  async remember(): Promise<void> {
    this.#warnOfSilence();
    const { slowMs } = this.timing;
    if (slowMs === undefined || performance.now() - this.#rememberedAt < REMEMBER_EVERY_MS) return;
    this.#rememberedAt = performance.now();
    const known = this.#rememberedMs ?? 0;
    if (Math.abs(slowMs - known) < known / 10) return;
    const { connection, queueName } = this.deps;
    const text = String(Math.max(1, Math.round(slowMs)));
    await connection.store.setFields(recordOf(queueName), { slowMs: text });
    this.#rememberedMs = slowMs;
  }

  #warnOfSilence(): void {
    if (this.timing.areComing || this.#hasWarned) return;
    this.#hasWarned = true;
    this.deps.logger.warn(
      'messages were completed and not delivered: they are polled for as without webhooks until deliveries come ' +
        '(does --webhook-url lead the API to a receiver that has the same account, queue and secret?)',
    );
  }

  close(): Promise<void> {
    return this.inbox.close();
  }
}

/** Beside the secret. */
function recordOf(queueName: string): string {
  return `webhook:${queueName}`;
}

const SAMPLES = 64;
const SLOW_SHARE = 0.9;
const MISSED_IN_A_ROW = 3;

/**
 * What a worker has learned of deliveries: how long it takes until one comes, and whether they come at all.
 *
 * Only completions that a delivery announced count, since their moment is known. What a rare poll finds is late by
 * half the time waited: learned from, it would make the next poll later still.
 */
export class DeliveryTiming {
  readonly #samples: number[] = [];
  #next = 0;
  #missed = 0;

  /** @param rememberedMs what `slowMs` was in an earlier process */
  constructor(private readonly rememberedMs?: number) {}

  /** A delivery came, and its message was completed. @param tookMs since the submit, where that is known */
  came(tookMs: number | undefined): void {
    this.#missed = 0;
    if (tookMs === undefined) return;
    this.#samples[this.#next] = tookMs;
    this.#next = (this.#next + 1) % SAMPLES;
  }

  /** A poll found the message completed, and no delivery had announced it. */
  missed(): void {
    this.#missed++;
  }

  /** False when the last ones did not come: then messages are asked for as without webhooks. */
  get areComing(): boolean {
    return this.#missed < MISSED_IN_A_ROW;
  }

  /** Milliseconds within which nine in ten describes have been completed; undefined when none was seen. */
  get slowMs(): number | undefined {
    if (this.#samples.length === 0) return this.rememberedMs;
    const sorted = [...this.#samples].sort((a, b) => a - b);
    return sorted[Math.floor((sorted.length - 1) * SLOW_SHARE)];
  }
}

/**
 * When to ask for a message whose delivery is expected: well after nearly all would have come, then rarely.
 * @returns milliseconds until the next poll
 */
export function rarePollDelayMs(waitedMs: number, slowMs: number | undefined): number {
  if (slowMs === undefined) return clamp(waitedMs, 5000, 30_000);
  const firstMs = slowMs * 1.5 + 2000;
  if (waitedMs < firstMs) return firstMs - waitedMs;
  return clamp(waitedMs / 2, 2000, 60_000);
}

/** How long a submit whose answer was lost waits for its delivery before it is made again. */
export function recoveryPatienceMs(slowMs: number | undefined): number {
  if (slowMs === undefined) return 90_000;
  return clamp(slowMs * 2 + 5000, 10_000, 10 * 60_000);
}

function clamp(value: number, min: number, max: number): number {
  return Math.min(max, Math.max(min, value));
}
