import type { Redis } from 'ioredis';
import { FatalError, messageOf } from '../../errors.js';
import { sleep } from '../../sleep.js';
import type { OpenQueueOptions } from '../connection.js';
import type { QueueTarget } from '../queue-url.js';
import { QueueClient } from './queue-client.js';
import { connectionReason } from './redis-errors.js';

const FAIL_FAST_MS = 5000;
const LONGEST_RECONNECT_PAUSE_MS = 2000;

/**
 * A client whose commands wait while the server is away and go on when it returns.
 * Hazard: ioredis keeps the arguments of failed commands, AUTH's too, in its errors; they are never passed on.
 */
export function createClient(url: string): QueueClient {
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
 * @throws {FatalError} one line: what does not answer and what to do, within 5 s unless `failFast` is false
 */
export async function connect(
  client: Redis,
  target: Extract<QueueTarget, { kind: 'redis' }>,
  options: OpenQueueOptions,
): Promise<void> {
  const waits = options.failFast === false;
  const ready = new Promise<void>((resolve) => client.once('ready', resolve));
  let onError: (error: unknown) => void = () => undefined;
  const failed = new Promise<Error>((resolve) => {
    let told = false;
    onError = (error) => {
      const failure = describeFailure(target.label, error, options);
      if (!waits || failure.hopeless) resolve(failure.error);
      else if (!told) options.onSlow?.(`${failure.error.message}; waiting for it`);
      told = true;
    };
  });
  client.on('error', onError);
  const ended = new AbortController();
  const timeout = waits ? new Promise<never>(() => undefined) : timeUp(target.label, options, ended.signal);
  const stopped = aborted(options.signal, ended.signal);
  // Failures are told through the error event; this promise only says the same again.
  client.connect().catch(() => undefined);
  const end = await Promise.race([ready, failed, timeout, stopped]);
  ended.abort();
  client.off('error', onError);
  if (end instanceof Error) throw end;
}

function describeFailure(
  label: string,
  error: unknown,
  options: OpenQueueOptions,
): { error: FatalError; hopeless: boolean } {
  const text = messageOf(error);
  if (/^(WRONGPASS|NOAUTH|ERR invalid password|NOPERM)/.test(text)) {
    const refused = text.startsWith('NOAUTH') ? 'wants a password' : 'refuses the user or password';
    return { error: new FatalError(`Redis at ${label} ${refused}: check the queue's URL`), hopeless: true };
  }
  if (/DB index is out of range|invalid DB index/i.test(text)) {
    return { error: new FatalError(`Redis at ${label} has no database of that number`), hopeless: true };
  }
  return { error: noRedis(label, connectionReason(error), options), hopeless: false };
}

function noRedis(label: string, reason: string, { isShared = false }: OpenQueueOptions): FatalError {
  const wayOut = isShared
    ? 'or name another with --queue or QUEUE_URL'
    : 'or leave --queue (QUEUE_URL) away to use the embedded queue';
  return new FatalError(
    `no Redis at ${label} (${reason}): start one with \`docker compose up -d redis\`, ${wayOut}`,
  );
}

async function timeUp(label: string, options: OpenQueueOptions, ended: AbortSignal): Promise<Error> {
  await sleep(FAIL_FAST_MS, ended);
  return noRedis(label, 'no answer in 5 s', options);
}

function aborted(signal: AbortSignal | undefined, ended: AbortSignal): Promise<Error> {
  return new Promise((resolve) => {
    signal?.throwIfAborted();
    signal?.addEventListener(
      'abort',
      () => resolve(signal.reason instanceof Error ? signal.reason : new Error('aborted')),
      { once: true, signal: ended },
    );
  });
}
