import { Redis, type RedisOptions } from 'ioredis';

/**
 * An ioredis client that can be closed while it waits to reconnect, and that knows its duplicates.
 *
 * ioredis then only drops its timer and never says `end`. BullMQ waits for that word, so a worker's `close`
 * would last as long as the outage. This one makes a last attempt to connect, at once, and cancels it, which
 * ends the client in order.
 */
export class QueueClient extends Redis {
  readonly #twins = new Set<Redis>();
  #corked: Redis['stream'] | undefined;

  /**
   * Commands of one turn of the event loop go out together: a write to the socket costs a system call, which is
   * more than a command takes otherwise.
   */
  override sendCommand(...args: Parameters<Redis['sendCommand']>): unknown {
    const stream = this.#socket();
    if (this.#corked === undefined && stream !== undefined) {
      this.#corked = stream;
      stream.cork();
      setImmediate(() => {
        this.#corked = undefined;
        stream.uncork();
      });
    }
    return super.sendCommand(...args);
  }

  /** There is none before the first connection, whatever its type says. */
  #socket(): Redis['stream'] | undefined {
    return this.stream;
  }

  override disconnect(reconnect = false): void {
    const isWaiting = this.status === 'reconnecting' && !reconnect;
    super.disconnect(reconnect);
    if (!isWaiting) return;
    this.once('connecting', () => super.disconnect());
    // It cannot but fail: that is how the client comes to its end.
    this.connect().catch(() => undefined);
  }

  /** BullMQ blocks on a duplicate for each worker. */
  override duplicate(override?: Partial<RedisOptions>): Redis {
    const twin = new QueueClient({ ...this.options, ...override, replyMapping: 'legacy' });
    twin.on('error', () => undefined);
    twin.once('end', () => this.#twins.delete(twin));
    this.#twins.add(twin);
    return twin;
  }

  /** Disconnects the duplicates, which would otherwise try to reconnect for ever. */
  disconnectTwins(): void {
    for (const twin of this.#twins) twin.disconnect();
  }
}
