import { type Logger, debugError } from '../shared/log.js';
import type { SharedStore } from '../shared/queue/store.js';
import type { DeliveryClaim } from './delivery-claim.js';

/*
 * Deliveries on their way from a receiver to the worker that waits for one. Each is published to whoever listens, and kept in
 * a mailbox for a while: some come early, or while no worker is there. Its prompts are not kept: the worker asks the API.
 */

/** How many deliveries are kept, and for how long. */
const DELIVERY_BOUNDS = { ttlMs: 60 * 60_000, max: 10_000 } as const;

/** The mailbox of deliveries that name a ref of ours. */
function refMailbox(queueName: string): string {
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
  /** The message that the newest delivery named, if any. */
  messageId: string | undefined;
  readonly #undos: (() => void)[] = [];

  onEnd(undo: () => void): void {
    this.#undos.push(undo);
  }

  end(): void {
    for (const undo of this.#undos) undo();
  }

  /** Aborts when a delivery comes; has aborted while one that came is not taken. */
  get came(): AbortSignal {
    return this.#came.signal;
  }

  /** A delivery has come. @param messageId empty where it named none */
  notify(messageId: string): void {
    if (messageId !== '') this.messageId = messageId;
    this.#came.abort();
  }

  /** Takes what has come, and waits for the next. @returns whether anything had */
  take(): boolean {
    if (!this.#came.signal.aborted) return false;
    this.#came = new AbortController();
    return true;
  }
}

interface Mailbox {
  readonly name: string;
  readonly watches: Map<string, DeliveryWatch>;
}

/** The deliveries that one process waits for, by whichever receiver they come. */
export class DeliveryInbox {
  readonly #refs: Mailbox;
  readonly #messages: Mailbox;
  readonly #endListening: (() => void)[] = [];

  private constructor(
    private readonly store: SharedStore,
    queueName: string,
  ) {
    this.#refs = { name: refMailbox(queueName), watches: new Map() };
    this.#messages = { name: messageMailbox(queueName), watches: new Map() };
  }

  /** Opens the inbox, which is notified of what comes from now on. */
  static async open(store: SharedStore, queueName: string, logger: Logger): Promise<DeliveryInbox> {
    const inbox = new DeliveryInbox(store, queueName);
    const onError = debugError(logger, 'deliveries were not looked up: polls find them');
    for (const mailbox of [inbox.#refs, inbox.#messages]) {
      const end = await store.listen(mailbox.name, {
        came: (name, messageId) => mailbox.watches.get(name)?.notify(messageId),
        missedSome: () => void inbox.#lookUp(mailbox, [...mailbox.watches.keys()]).catch(onError),
      });
      inbox.#endListening.push(end);
    }
    return inbox;
  }

  /** Watches for deliveries with this ref that come from now on. */
  watch(ref: string): DeliveryWatch {
    const watch = new DeliveryWatch();
    add(this.#refs, ref, watch);
    return watch;
  }

  /** The watch is for deliveries of this message as well, which came without a ref. */
  alsoFor(watch: DeliveryWatch, messageId: string): void {
    add(this.#messages, messageName(messageId), watch);
  }

  /** Notifies the watches of those refs whose deliveries came before. */
  lookUp(refs: readonly string[]): Promise<void> {
    return this.#lookUp(this.#refs, refs);
  }

  close(): Promise<void> {
    for (const end of this.#endListening) end();
    return Promise.resolve();
  }

  async #lookUp({ name, watches }: Mailbox, deliveries: readonly string[]): Promise<void> {
    const found = await this.store.messages(name, deliveries);
    for (const [delivery, messageId] of found) watches.get(delivery)?.notify(messageId);
  }
}

function add({ watches }: Mailbox, name: string, watch: DeliveryWatch): void {
  watches.set(name, watch);
  watch.onEnd(() => {
    // Unless a newer processing of the same submit watches by now.
    if (watches.get(name) === watch) watches.delete(name);
  });
}
