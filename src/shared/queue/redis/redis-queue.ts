import { createRedisBackend } from 'bullmq';
import { Redis, type RedisOptions } from 'ioredis';
import type { OpenQueueOptions, QueueConnection } from '../connection.js';
import { JobMachinery, bindBackend } from '../job-machinery.js';
import { Outage, shutdownTimeoutMs } from '../outage.js';
import type { QueueTarget } from '../queue-url.js';
import { checkServer, connect, createClient, passingRedisFailure, probeWrite } from './redis-connection.js';
import { RedisStore } from './redis-store.js';

const CLOSE_DEADLINE_MS = 4000;

/**
 * Opens a queue on Redis or Valkey. One connection serves the queues, the commands of the workers and the
 * store; each worker has one more to block on.
 * @throws {FatalError} when it is not there, refuses the password, is too old, evicts or is read-only
 */
export async function openRedisQueue(
  target: Extract<QueueTarget, { kind: 'redis' }>,
  options: OpenQueueOptions,
): Promise<QueueConnection> {
  const client = createClient(target.url);
  try {
    await connect(client, target, options);
    const skipVersionCheck = !(await checkServer(client, target.label));
    return connectionOver(client, target.label, skipVersionCheck, options);
  } catch (error) {
    client.disconnect();
    throw error;
  }
}

function connectionOver(
  client: QueueClient,
  label: string,
  skipVersionCheck: boolean,
  options: OpenQueueOptions,
): QueueConnection {
  const outage = new Outage({
    classify: (error) => passingRedisFailure(error)?.replace(/^Redis/, `Redis at ${label}`),
    probe: () => probeWrite(client),
  });
  client.on('error', (error: unknown) => outage.note(error));
  client.on('close', () => outage.note(new Error('Connection is closed.')));
  const machinery = new JobMachinery({
    connection: client,
    createBackend: bindBackend(client, createRedisBackend),
    skipVersionCheck,
    logger: options.logger,
    telemetry: options.telemetry,
    // On a client that is not its own, a queue's close does no more than stop listening.
    mostPassing: 30,
    noteTrouble: (error) => outage.note(error),
    notice: (text) => outage.notice(text),
  });
  let closing: Promise<void> | undefined;
  return {
    kind: 'redis',
    label,
    store: new RedisStore(client),
    queue: (name) => machinery.queue(name),
    passingQueue: (name) => machinery.passingQueue(name),
    countJobs: (name, states) => machinery.countJobs(name, states),
    worker: (name, processor, workerOptions) => machinery.worker(name, processor, workerOptions),
    onTrouble: (listener) => outage.on(listener),
    noteTrouble: (error) => outage.note(error),
    isAway: () => outage.isDown,
    close: () => (closing ??= closeAll(client, machinery, outage)),
  };
}

async function closeAll(client: QueueClient, machinery: JobMachinery, outage: Outage): Promise<void> {
  const patienceMs = shutdownTimeoutMs({ isAway: () => outage.isDown }, CLOSE_DEADLINE_MS);
  outage.close();
  await machinery.close(patienceMs);
  // Everything that was awaited has been answered; what is still queued would wait for a server that is away.
  client.disconnectTwins();
  client.disconnect();
}

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
