import { createRedisBackend } from 'bullmq';
import type { OpenQueueOptions, QueueConnection } from '../connection.js';
import { JobMachinery, bindBackend } from '../job-machinery.js';
import { Outage, shutdownTimeoutMs } from '../outage.js';
import type { QueueTarget } from '../queue-url.js';
import {
  type QueueClient,
  checkServer,
  connect,
  createClient,
  passingRedisFailure,
  probeWrite,
} from './redis-connection.js';
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
