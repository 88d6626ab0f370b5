import { messageOf } from '../errors.js';
import type { Logger } from '../log.js';
import type { SharedStore } from '../queue/store.js';
import { deliveryBoxName, messageLetter, unnamedBoxName } from './delivery-box.js';
import { DeliveryWatch } from './delivery-watch.js';

/** One of the two boxes: letters by name, and who waits for each. */
class WatchedBox {
  readonly #watches = new Map<string, Set<DeliveryWatch>>();

  add(name: string, watch: DeliveryWatch): void {
    const watches = this.#watches.get(name) ?? new Set<DeliveryWatch>();
    this.#watches.set(name, watches.add(watch));
  }

  remove(name: string, watch: DeliveryWatch): void {
    const watches = this.#watches.get(name);
    watches?.delete(watch);
    if (watches?.size === 0) this.#watches.delete(name);
  }

  ring(name: string, text: string): void {
    for (const watch of this.#watches.get(name) ?? []) watch.ring(text === '' ? undefined : text);
  }

  get names(): string[] {
    return [...this.#watches.keys()];
  }
}

/**
 * The deliveries that one process waits for. It is told of each that comes to an account, by whichever receiver, and
 * wakes whoever watches for it.
 */
export class DeliveryInbox {
  readonly #named = new WatchedBox();
  readonly #unnamed = new WatchedBox();
  readonly #ends: (() => Promise<void>)[] = [];

  private constructor(
    private readonly store: SharedStore,
    private readonly queueName: string,
    private readonly logger: Logger,
  ) {}

  /** Opens the inbox; it hears of what comes from now on. */
  static async open(store: SharedStore, queueName: string, logger: Logger): Promise<DeliveryInbox> {
    const inbox = new DeliveryInbox(store, queueName, logger);
    await inbox.#listen(deliveryBoxName(queueName), inbox.#named);
    await inbox.#listen(unnamedBoxName(queueName), inbox.#unnamed);
    return inbox;
  }

  /** Watches for deliveries with this ref that come from now on. */
  watch(ref: string): DeliveryWatch {
    const watch: DeliveryWatch = new DeliveryWatch(() => this.#named.remove(ref, watch));
    this.#named.add(ref, watch);
    return watch;
  }

  /** The watch is for deliveries of this message as well, which came without a ref. @returns the end of that */
  alsoFor(watch: DeliveryWatch, messageId: string): () => void {
    const name = messageLetter(messageId);
    this.#unnamed.add(name, watch);
    return () => this.#unnamed.remove(name, watch);
  }

  /** Which messages were delivered by now with these refs; empty texts for deliveries that named none. */
  find(refs: readonly string[]): Promise<Map<string, string>> {
    return this.store.letters(deliveryBoxName(this.queueName), refs);
  }

  async close(): Promise<void> {
    for (const end of this.#ends.splice(0)) await end();
  }

  async #listen(box: string, watched: WatchedBox): Promise<void> {
    const end = await this.store.listen(box, {
      came: (name, text) => watched.ring(name, text),
      missedSome: () => void this.#lookUp(box, watched),
    });
    this.#ends.push(end);
  }

  async #lookUp(box: string, watched: WatchedBox): Promise<void> {
    try {
      for (const [name, text] of await this.store.letters(box, watched.names)) watched.ring(name, text);
    } catch (error) {
      this.logger.debug({ error: messageOf(error) }, 'deliveries were not looked up: polls find them');
    }
  }
}
