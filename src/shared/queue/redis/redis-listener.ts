import type { Redis } from 'ioredis';
import type { BoxListener } from '../store.js';

/** A connection that went silent is found out by a question now and then. */
const ASK_EVERY_MS = 15_000;

/**
 * What a process hears of the boxes, over one more connection, which is made when the first box is listened to.
 * After an outage the channels are subscribed again, and the listeners are told that they may have missed some.
 */
export class RedisListener {
  readonly #listeners = new Map<string, Set<BoxListener>>();
  #connection: Redis | undefined;
  #asking: NodeJS.Timeout | undefined;

  constructor(private readonly client: Redis) {}

  async listen(channel: string, listener: BoxListener): Promise<() => Promise<void>> {
    const listeners = this.#listeners.get(channel) ?? new Set<BoxListener>();
    const isFirst = listeners.size === 0;
    this.#listeners.set(channel, listeners.add(listener));
    this.#connection ??= this.#connect();
    if (isFirst) await this.#connection.subscribe(channel);
    return () => this.#leave(channel, listener);
  }

  async #leave(channel: string, listener: BoxListener): Promise<void> {
    const listeners = this.#listeners.get(channel);
    listeners?.delete(listener);
    if (listeners?.size !== 0) return;
    this.#listeners.delete(channel);
    const connection = this.#connection;
    if (connection === undefined) return Promise.resolve();
    if (this.#listeners.size > 0) {
      // While the server is away there is nothing to leave: what is subscribed again is what is listened to then.
      if (connection.status === 'ready') await connection.unsubscribe(channel);
      return;
    }
    this.#connection = undefined;
    clearInterval(this.#asking);
    connection.disconnect();
  }

  #connect(): Redis {
    const connection = this.client.duplicate({ autoResubscribe: false });
    let isFirst = true;
    connection.on('message', (channel: string, message: string) => this.#hear(channel, message));
    connection.on('ready', () => {
      // The first time whoever listens subscribes by itself.
      if (!isFirst) void this.#subscribeAgain(connection);
      isFirst = false;
    });
    connection.once('end', () => clearInterval(this.#asking));
    this.#asking = setInterval(() => {
      // A question that is not answered breaks the connection, which is then made anew.
      if (connection.status === 'ready') connection.ping().catch(() => undefined);
    }, ASK_EVERY_MS).unref();
    return connection;
  }

  async #subscribeAgain(connection: Redis): Promise<void> {
    try {
      await connection.subscribe(...this.#listeners.keys());
    } catch {
      // It broke once more: the next `ready` tries again.
      return;
    }
    for (const listeners of this.#listeners.values()) {
      for (const listener of listeners) listener.missedSome();
    }
  }

  #hear(channel: string, message: string): void {
    const space = message.indexOf(' ');
    const name = message.slice(0, space);
    const text = message.slice(space + 1);
    for (const listener of this.#listeners.get(channel) ?? []) listener.came(name, text);
  }
}
