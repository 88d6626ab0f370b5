import { type Logger, debugError } from '../shared/log.js';
import type { SharedStore } from '../shared/queue/store.js';
import type { DeliveryClaim } from './delivery-claim.js';

/*
 * Deliveries on their way from a receiver to the worker that waits for one. Each is published to whoever listens, and kept in
 * a mailbox for a while: some come early, or while no worker is there. Its prompts are not kept: the worker asks the API.
 */

/** How many deliveries are kept, and for how long. */
export const DELIVERY_BOUNDS = { ttlMs: 60 * 60_000, max: 10_000 } as const;

/** The mailbox of deliveries that name a ref of ours. */
export function refMailbox(queueName: string): string {
  return `deliveries:${queueName}`;
}

/** Those that name only a message have a mailbox of their own: whoever fills it takes no place of the others. */
function messageMailbox(queueName: string): string {
  return `${refMailbox(queueName)}:unnamed`;
}

/** A message's name in its mailbox: without spaces. */
function messageName(messageId: string): string {
  return encodeURIComponent(messageId);
}

/** Publishes a delivery to whoever waits for it, now or later. */
export async function putDelivery(
  store: SharedStore,
  queueName: string,
  { ref, messageId }: DeliveryClaim,
): Promise<void> {
  if (ref !== undefined) {
    await store.putMessage(refMailbox(queueName), ref, messageId ?? '', DELIVERY_BOUNDS);
  } else if (messageId !== undefined) {
    const mailbox = messageMailbox(queueName);
    await store.putMessage(mailbox, messageName(messageId), messageId, DELIVERY_BOUNDS);
  }
}

/** Whether a delivery has come for one submit. */
export class DeliveryWatch {
  #came = new AbortController();
  #messageId: string | undefined;

  /** @param end stops the watching */
  constructor(readonly end: () => void) {}

  /** Aborts when a delivery comes; has aborted while one that came is not taken. */
  get came(): AbortSignal {
    return this.#came.signal;
  }

  /** The message that the newest delivery named, if any. */
  get messageId(): string | undefined {
    return this.#messageId;
  }

  /** A delivery has come. @param messageId empty where it named none */
  notify(messageId: string): void {
    if (messageId !== '') this.#messageId = messageId;
    this.#came.abort();
  }

  /** Takes what has come, and waits for the next. @returns whether anything had */
  take(): boolean {
    if (!this.#came.signal.aborted) return false;
    this.#came = new AbortController();
    return true;
  }
}

/** The deliveries that one process waits for, by whichever receiver they come. */
export class DeliveryInbox {
  private constructor(
    private readonly refs: Mailbox,
    private readonly messages: Mailbox,
  ) {}

  /** Opens the inbox, which is notified of what comes from now on. */
  static async open(store: SharedStore, queueName: string, logger: Logger): Promise<DeliveryInbox> {
    const refs = await Mailbox.open(store, refMailbox(queueName), logger);
    return new DeliveryInbox(refs, await Mailbox.open(store, messageMailbox(queueName), logger));
  }

  /** Watches for deliveries with this ref that come from now on. */
  watch(ref: string): DeliveryWatch {
    const watch: DeliveryWatch = new DeliveryWatch(() => this.refs.remove(ref, watch));
    this.refs.add(ref, watch);
    return watch;
  }

  /** The watch is for deliveries of this message as well, which came without a ref. @returns the end of that */
  alsoFor(watch: DeliveryWatch, messageId: string): () => void {
    const name = messageName(messageId);
    this.messages.add(name, watch);
    return () => this.messages.remove(name, watch);
  }

  /** Which messages were delivered by now with these refs; empty texts for deliveries that named none. */
  find(refs: readonly string[]): Promise<Map<string, string>> {
    return this.refs.find(refs);
  }

  async close(): Promise<void> {
    await this.refs.close();
    await this.messages.close();
  }
}

/** One mailbox of the store, and who waits for which name in it. */
class Mailbox {
  readonly #watches = new Map<string, Set<DeliveryWatch>>();
  #stopListening: () => Promise<void> = () => Promise.resolve();

  private constructor(
    private readonly store: SharedStore,
    private readonly name: string,
  ) {}

  static async open(store: SharedStore, name: string, logger: Logger): Promise<Mailbox> {
    const mailbox = new Mailbox(store, name);
    mailbox.#stopListening = await store.listen(name, {
      came: (delivery, messageId) => mailbox.#notify(delivery, messageId),
      missedSome: () =>
        void mailbox.#lookUp().catch(debugError(logger, 'deliveries were not looked up: polls find them')),
    });
    return mailbox;
  }

  add(delivery: string, watch: DeliveryWatch): void {
    const watches = this.#watches.get(delivery) ?? new Set<DeliveryWatch>();
    this.#watches.set(delivery, watches.add(watch));
  }

  remove(delivery: string, watch: DeliveryWatch): void {
    const watches = this.#watches.get(delivery);
    watches?.delete(watch);
    if (watches?.size === 0) this.#watches.delete(delivery);
  }

  find(deliveries: readonly string[]): Promise<Map<string, string>> {
    return this.store.messages(this.name, deliveries);
  }

  close(): Promise<void> {
    return this.#stopListening();
  }

  #notify(delivery: string, messageId: string): void {
    for (const watch of this.#watches.get(delivery) ?? []) watch.notify(messageId);
  }

  async #lookUp(): Promise<void> {
    for (const [delivery, messageId] of await this.find([...this.#watches.keys()])) {
      this.#notify(delivery, messageId);
    }
  }
}
