import { createRedisBackend } from 'bullmq';
import { Redis, type RedisOptions } from 'ioredis';
import { FatalError, isSystemError, messageOf, untrustedText } from '../../errors.js';
import type { UndoStack } from '../../undo.js';
import { repeat, unlessAborted } from '../../waiting.js';
import { KEY_PREFIX, type OpenQueueOptions, type QueueStorage } from '../connection.js';
import type { QueueTarget } from '../queue-url.js';
import { RedisStore } from './redis-store.js';

const FAIL_FAST_MS = 5000;
const LONGEST_RECONNECT_PAUSE_MS = 2000;
const HEARTBEAT_MS = 2000;
/** A server that is connected and says nothing for so long is away. */
const SILENT_MS = 10_000;

/**
 * Opens a queue on Redis or Valkey. One connection serves the queues, the commands of the workers and the
 * store; each worker has one more to block on.
 * @throws {FatalError} when it is not there, refuses the password, is too old, evicts or is read-only; see `isReader`
 */
export async function openRedis(
  { url, label }: Extract<QueueTarget, { kind: 'redis' }>,
  options: OpenQueueOptions,
  opened: UndoStack,
): Promise<QueueStorage> {
  const client = createClient(url);
  // Everything that was awaited has been answered; what is still queued would wait for a server that is away.
  opened.defer(() => client.disconnectAll());
  const closed = new AbortController();
  opened.defer(() => closed.abort());
  await connect(client, label, options);
  const skipVersionCheck = !(await checkServer(client, label, options));
  return {
    kind: 'redis',
    store: new RedisStore(client),
    createBackend: (name, bullOptions, factoryOptions) =>
      createRedisBackend(name, { ...bullOptions, connection: client }, factoryOptions),
    skipVersionCheck,
    classify: (error) => passingFailure(error)?.replace(/^Redis/, `Redis at ${label}`),
    probe: () => probeWrite(client),
    refusal: async () => refusalOf((await readInfo(client)) ?? '', label),
    watch: (outage) => {
      const note = (error: unknown) => void outage.note(error);
      client.on('error', note);
      client.on('close', () => note(new Error('Connection is closed.')));
      // A frozen server keeps its connections: the socket's own timeout is long, since workers block on theirs.
      const answer = () => unlessAborted(client.ping(), AbortSignal.timeout(SILENT_MS));
      void repeat(HEARTBEAT_MS, closed.signal, answer, note);
    },
  };
}

/**
 * A client whose commands wait while the server is away and go on when it returns.
 * Hazard: ioredis keeps the arguments of failed commands, AUTH's too, in its errors; they are never passed on.
 */
function createClient(url: string): QueueClient {
  const client = new QueueClient(url, {
    lazyConnect: true,
    maxRetriesPerRequest: null,
    connectTimeout: FAIL_FAST_MS,
    // A network that swallows packets would otherwise keep commands waiting for a quarter of an hour.
    socketTimeout: 30_000,
    keepAlive: 10_000,
    retryStrategy: (times) => Math.min(100 * 2 ** Math.min(times - 1, 10), LONGEST_RECONNECT_PAUSE_MS),
    // After a failover the old address leads to a replica until the name is looked up again.
    reconnectOnError: (error) => error.message.startsWith('READONLY'),
  });
  // Whoever cares listens too; without any listener ioredis prints.
  client.on('error', () => undefined);
  return client;
}

/**
 * Connects, and waits until the server has loaded its data.
 * @throws {FatalError} one line, within 5 s: what does not answer and what to do
 */
async function connect(client: Redis, label: string, options: OpenQueueOptions): Promise<void> {
  const failed = new AbortController();
  const onError = (error: unknown) => failed.abort(connectFailure(label, error, options));
  client.on('error', onError);
  const timer = setTimeout(() => onError('no answer in 5 s'), FAIL_FAST_MS);
  const ready = new Promise<void>((resolve) => client.once('ready', resolve));
  // Failures are told through the error event; this promise only says the same again.
  client.connect().catch(() => undefined);
  try {
    await unlessAborted(ready, failed.signal);
  } finally {
    clearTimeout(timer);
    client.off('error', onError);
  }
}

function connectFailure(label: string, error: unknown, { isShared = false }: OpenQueueOptions): FatalError {
  const text = messageOf(error);
  if (/^(WRONGPASS|NOAUTH|ERR invalid password|NOPERM)/.test(text)) {
    const refused = text.startsWith('NOAUTH') ? 'wants a password' : 'refuses the user or password';
    return new FatalError(`Redis at ${label} ${refused}: check the queue's URL`);
  }
  if (/DB index is out of range|invalid DB index/i.test(text))
    return new FatalError(`Redis at ${label} has no database of that number`);
  const reason = connectionReason(error);
  const wayOut = isShared
    ? 'or name another with --queue or QUEUE_URL'
    : 'or leave --queue (QUEUE_URL) away to use the embedded queue';
  return new FatalError(
    untrustedText(reason, label) ??
      `no Redis at ${label} (${reason}): start one with \`docker compose up -d redis\`, ${wayOut}`,
  );
}

const OLDEST = '6.2';

/**
 * Why a server cannot hold the queue, by its `INFO`, of which a managed one may leave out some; undefined when it can.
 * @param mayEvict whether one is right that evicts keys when it is full
 */
export function refusalOf(info: string, label: string, mayEvict = false): string | undefined {
  const field = (name: string) => new RegExp(`^${name}:(.*?)\\s*$`, 'm').exec(info)?.[1];
  const version = field('redis_version');
  if (version !== undefined && version.localeCompare(OLDEST, 'en', { numeric: true }) < 0)
    return `Redis at ${label} is version ${version}: ${OLDEST} or newer is needed`;
  if (field('role') === 'slave')
    return `Redis at ${label} is a read-only replica: give the address of its primary`;
  if (field('cluster_enabled') === '1') return refusalOfCluster(label);
  const evictionPolicy = field('maxmemory_policy') ?? 'noeviction';
  if (evictionPolicy === 'noeviction' || mayEvict) return undefined;
  return (
    `Redis evicts keys when it is full, and jobs would vanish: ${label} has maxmemory-policy ${evictionPolicy}; ` +
    'set it to noeviction (redis-cli config set maxmemory-policy noeviction)'
  );
}

function refusalOfCluster(label: string): string {
  return `Redis at ${label} is a cluster, whose nodes would each have a part of a queue: give a server that is none`;
}

const PROBE = `for _, key in ipairs(KEYS) do redis.call('SET', key, '1', 'PX', 1000) end`;

/** A write as the queue makes them, which are scripts on several keys; it fails when they do, and leaves nothing behind. */
async function probeWrite(client: Redis): Promise<void> {
  await client.eval(PROBE, 2, `${KEY_PREFIX}::probe`, `${KEY_PREFIX}::probe:2`);
}

/**
 * Checks that the server can hold the queue.
 * @returns whether BullMQ may ask as well
 * @throws {FatalError} when it cannot
 */
async function checkServer(
  client: Redis,
  label: string,
  { isReader = false }: OpenQueueOptions,
): Promise<boolean> {
  const info = await readInfo(client);
  const refusal = refusalOf(info ?? '', label, isReader);
  if (refusal !== undefined) throw new FatalError(refusal);
  // BullMQ would print what it thinks of the eviction policy.
  if (isReader) return false;
  try {
    await probeWrite(client);
  } catch (error) {
    const message = messageOf(error);
    if (/CROSSSLOT|^MOVED /.test(message)) throw new FatalError(refusalOfCluster(label));
    const remedy = /NOPERM/.test(message)
      ? `; let its user do everything with keys that begin with ${KEY_PREFIX} (ACL SETUSER <user> +@all ~${KEY_PREFIX}:* &*)`
      : '';
    throw new FatalError(`Redis at ${label} accepts no writes: ${message}${remedy}`);
  }
  return info !== undefined;
}

/** Undefined from a server that does not let itself be asked. */
async function readInfo(client: Redis): Promise<string | undefined> {
  return client.info().catch((error: unknown) => {
    if (/^NOPERM |unknown command/i.test(messageOf(error))) return undefined;
    throw error;
  });
}

/** Codes with which a connection fails that may succeed later. */
const PASSING_CODES =
  /^(ECONN(REFUSED|RESET|ABORTED)|ETIMEDOUT|EPIPE|ENOTFOUND|EAI_AGAIN|E(HOST|NET)(UNREACH|DOWN))$/;

/** What ioredis says of commands that a lost connection took with it. */
const LOST =
  /^Connection is closed|^Command aborted due to connection close|Socket timeout|^Command timed out|aborted due to timeout$/;

/** What Redis answers in states that pass; before 7.0 a script's error has it after a dash. */
const PASSING_REPLIES: readonly (readonly [RegExp, string])[] = [
  [/(^|-)OOM /, 'Redis is out of memory (raise maxmemory)'],
  [/(^|-)LOADING /, 'Redis is loading its data'],
  [/(^|-)READONLY /, 'Redis has become a read-only replica'],
  [/(^|-)(MISCONF|NOREPLICAS) /, 'Redis accepts no writes (it cannot save its data, or misses its replicas)'],
  [/(^|-)(MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY) /, 'Redis is busy or has no primary'],
  [/^(NOAUTH|WRONGPASS) /, 'Redis refuses the password'],
  [/^EXECABORT /, 'Redis accepts no writes'],
];

/** Why a Redis operation failed, for people, if that is something that passes by itself; else undefined. */
function passingFailure(error: unknown): string | undefined {
  const message = messageOf(error);
  if (isSystemError(error) && PASSING_CODES.test(error.code)) return `Redis does not answer (${error.code})`;
  if (LOST.test(message)) return 'Redis does not answer';
  return PASSING_REPLIES.find(([pattern]) => pattern.test(message))?.[1];
}

/** Like `redis://host:6379 (ECONNREFUSED)`, the short reason of a connection failure. */
function connectionReason(error: unknown): string {
  if (error instanceof AggregateError) return connectionReason(error.errors[0]);
  return isSystemError(error) ? error.code : messageOf(error);
}

/**
 * An ioredis client that can be closed while it waits to reconnect, and that knows its duplicates.
 *
 * ioredis then only drops its timer and never says `end`. BullMQ waits for that word, so a worker's `close`
 * would last as long as the outage. This one makes a last attempt to connect, at once, and cancels it, which
 * ends the client in order.
 */
class QueueClient extends Redis {
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
    // It connects by itself: BullMQ gives a worker up, without a word, whose own call to connect meets a server that has just gone.
    const options = { ...this.options, ...override, lazyConnect: false, replyMapping: 'legacy' } as const;
    const twin = new QueueClient(options);
    twin.on('error', () => undefined);
    twin.once('end', () => this.#twins.delete(twin));
    this.#twins.add(twin);
    return twin;
  }

  /** Disconnects the duplicates too, which would otherwise try to reconnect for ever. */
  disconnectAll(): void {
    for (const twin of this.#twins) twin.disconnect();
    this.disconnect();
  }
}
