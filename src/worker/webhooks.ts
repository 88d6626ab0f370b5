import type { Logger } from '../shared/log.js';
import type { SharedStore } from '../shared/queue/store.js';
import { callbackKeys, type CallbackKeys } from '../webhook/callback-keys.js';
import { DeliveryInbox, type DeliveryWatch } from '../webhook/deliveries.js';

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

const MISSED_IN_A_ROW = 3;

/** A worker's webhooks: its inbox, and whether deliveries come at all. */
export class WorkerWebhooks {
  #missed = 0;
  #hasWarned = false;

  private constructor(
    private readonly baseUrl: string,
    private readonly keys: CallbackKeys,
    readonly inbox: DeliveryInbox,
    private readonly logger: Logger,
  ) {}

  static async open(
    { url, secret }: WebhookOptions,
    store: SharedStore,
    queueName: string,
    logger: Logger,
  ): Promise<WorkerWebhooks> {
    const keys = await callbackKeys(store, queueName, secret);
    const inbox = await DeliveryInbox.open(store, queueName, logger);
    return new WorkerWebhooks(url, keys, inbox, logger);
  }

  /**
   * The callback of a submit, watched from now on; its watch is to be ended.
   * @param seed what tells the submit from all others: the same seed gives the same callback, also after a crash
   */
  callback(seed: string): Callback {
    const ref = this.keys.refOf(seed);
    return { ref, url: this.keys.callbackUrl(this.baseUrl, ref), watch: this.inbox.watch(ref) };
  }

  /** A delivery came, and its message was completed. */
  came(): void {
    this.#missed = 0;
  }

  /** A poll found the message completed, and no delivery had announced it. */
  missed(): void {
    this.#missed++;
    if (this.areComing || this.#hasWarned) return;
    this.#hasWarned = true;
    this.logger.warn(
      'messages were completed and not delivered: they are polled for as without webhooks until deliveries come ' +
        '(does --webhook-url lead the API to a receiver that has the same account, queue and secret?)',
    );
  }

  /** False when the last ones did not come: then messages are asked for as without webhooks. */
  get areComing(): boolean {
    return this.#missed < MISSED_IN_A_ROW;
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
