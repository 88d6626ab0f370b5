import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { FatalError, UsageError, isSystemError, messageOf } from './errors.js';
import { unlessAborted } from './unless-aborted.js';
import type { QueueConnection } from './queue/connection.js';

export interface HealthOptions {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Why this process is not ready, on one line; undefined when it is. A failure is a reason too. */
  readonly notReady: () => Promise<string | undefined>;
}

export interface HealthServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Whoever asks may give up in a few seconds, so the answer comes before. */
const READY_DEADLINE_MS = 2000;

/**
 * Answers `GET /healthz` (200 while this process's event loop turns) and `GET /readyz` (200 or 503, and why).
 * @throws {UsageError} when the address cannot be listened on
 */
export async function startHealthServer(options: HealthOptions): Promise<HealthServer> {
  const { createServer } = await import('node:http');
  const server = createServer((request, response) => {
    const path = request.url?.split('?')[0];
    if (request.method !== 'GET' && request.method !== 'HEAD') answer(response, 405, { error: 'only GET' });
    else if (path === '/healthz') answer(response, 200, { alive: true });
    else if (path === '/readyz') void answerReady(response, options);
    else answer(response, 404, { error: 'there are /healthz and /readyz' });
  });
  try {
    server.listen(options.port, options.host);
    await once(server, 'listening');
  } catch (error) {
    if (!isSystemError(error)) throw error;
    throw new UsageError(`--health-port ${options.port} cannot be listened on: ${messageOf(error)}`);
  }
  const address = server.address();
  if (address === null || typeof address === 'string') throw new FatalError('the health port has no number');
  return {
    port: address.port,
    close: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

async function answerReady(response: ServerResponse, { notReady }: HealthOptions): Promise<void> {
  const reason = await notReady().catch((error: unknown) => messageOf(error));
  if (reason === undefined) answer(response, 200, { ready: true });
  else answer(response, 503, { ready: false, reason });
}

function answer(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(`${JSON.stringify(body)}\n`);
}

/** Why the queue cannot be used at the moment; undefined when it answers within two seconds. */
export async function queueTrouble(connection: QueueConnection): Promise<string | undefined> {
  const signal = AbortSignal.timeout(READY_DEADLINE_MS);
  try {
    await unlessAborted(connection.store.getFields('health'), signal);
    return undefined;
  } catch (error) {
    const why = signal.aborted ? 'no answer in 2 s' : messageOf(error);
    return `the queue ${connection.label} does not answer: ${why}`;
  }
}
