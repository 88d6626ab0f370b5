import { messageOf } from './errors.js';
import type { HttpServer, ListenAddress } from './http-server.js';
import type { QueueConnection } from './queue/connection.js';
import { unlessAborted } from './unless-aborted.js';

export interface HealthOptions extends ListenAddress {
  /** Why this process is not ready, on one line; undefined when it is. A failure is a reason too. */
  readonly notReady: () => Promise<string | undefined>;
}

/** A caller may give up after a few seconds, so the answer comes before that. */
const READY_DEADLINE_MS = 2000;
const BODY_LIMIT_BYTES = 1024;

/**
 * Answers `GET /healthz` (200 while this process's event loop turns) and `GET /readyz` (200 or 503, and why).
 * @throws {UsageError} when the address cannot be listened on
 */
export async function startHealthServer({ notReady, ...address }: HealthOptions): Promise<HttpServer> {
  // Most processes have no health port: they do not load an HTTP server.
  const { createHttpServer, listen } = await import('./http-server.js');
  const app = createHttpServer({ bodyLimit: BODY_LIMIT_BYTES });
  app.addHook('onRequest', (_request, reply, done) => {
    reply.headers({ 'content-type': 'application/json', 'cache-control': 'no-store' });
    done();
  });
  app.get('/healthz', () => line({ alive: true }));
  app.get('/readyz', async (_request, reply) => {
    const reason = await notReady().catch((error: unknown) => messageOf(error));
    if (reason === undefined) return line({ ready: true });
    return reply.code(503).send(line({ ready: false, reason }));
  });
  app.setNotFoundHandler(({ method }, reply) => {
    const isRead = method === 'GET' || method === 'HEAD';
    const error = isRead ? 'there are /healthz and /readyz' : 'only GET';
    return reply.code(isRead ? 404 : 405).send(line({ error }));
  });
  return listen(app, address, '--health-port');
}

function line(body: object): string {
  return `${JSON.stringify(body)}\n`;
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
