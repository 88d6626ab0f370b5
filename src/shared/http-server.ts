import type { Server } from 'node:http';
import { type FastifyHttpOptions, type FastifyInstance, fastify } from 'fastify';
import { UsageError, isSystemError, messageOf } from './errors.js';

export interface ListenAddress {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
}

export interface HttpServer {
  /** `http://127.0.0.1:3100`; an IPv6 address is in brackets. */
  readonly url: string;
  readonly port: number;
  /** Ends all connections, those with a request under way included. */
  close(): Promise<void>;
}

/**
 * A fastify server that is not listening yet. It logs nothing, and its connections end with it.
 * @param options.bodyLimit bytes of a request's body at most; more get 413
 */
export function createHttpServer(
  options: FastifyHttpOptions<Server> & { readonly bodyLimit: number },
): FastifyInstance {
  return fastify({ logger: false, forceCloseConnections: true, ...options });
}

/** More connections at a time are refused; one that does not get on is ended. */
const MOST_CONNECTIONS = 256;
const HEADERS_TIMEOUT_MS = 5000;
const REQUEST_TIMEOUT_MS = 10_000;
/** An answer may take its time. */
const SILENT_TIMEOUT_MS = 120_000;

/** A server that strangers reach: everything is routed to `/`, and handlers judge the original URL. */
export function createPublicServer({ bodyLimit }: { readonly bodyLimit: number }): FastifyInstance {
  const app = createHttpServer({
    bodyLimit,
    connectionTimeout: SILENT_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: HEADERS_TIMEOUT_MS,
    http: {
      headersTimeout: HEADERS_TIMEOUT_MS,
      connectionsCheckingInterval: 1000,
      maxHeaderSize: 16 * 1024,
      // Node.js would say 400 to a stranger who leaves it out.
      requireHostHeader: false,
    },
    // Garbage that is no HTTP: Node.js would answer some of it, and tell strangers about the parser.
    clientErrorHandler: (_error, socket) => socket.destroy(),
    // What strangers name is never routed.
    rewriteUrl: () => '/',
  });
  app.server.maxConnections = MOST_CONNECTIONS;
  return app;
}

/**
 * Listens.
 * @param what how the error names the address: a flag, or `the dashboard at`
 * @throws {UsageError} when the address cannot be listened on
 */
export async function listen(
  app: FastifyInstance,
  { host, port }: ListenAddress,
  what: string,
): Promise<HttpServer> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    await app.close();
    if (!isSystemError(error)) throw error;
    const reason = LISTEN_TROUBLE[error.code] ?? messageOf(error);
    const text = `${what} ${hostInUrl(host)}:${port}: ${reason}; name another address`;
    throw new UsageError(text, { cause: error });
  }
  // A connection that cannot be accepted (no file is left to open) must not end the process.
  app.server.on('error', () => undefined);
  const address = app.server.address();
  const actualPort = typeof address === 'object' && address !== null ? address.port : port;
  return { url: `http://${hostInUrl(host)}:${actualPort}`, port: actualPort, close: () => app.close() };
}

function hostInUrl(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

const LISTEN_TROUBLE: Readonly<Record<string, string>> = {
  EADDRINUSE: 'it is in use',
  EACCES: 'this user may not listen there (ports below 1024 are often reserved)',
  EADDRNOTAVAIL: 'it is no address of this machine',
  ENOTFOUND: 'it is no address of this machine',
};

interface HealthOptions extends ListenAddress {
  /** Why this process is not ready, on one line; undefined when it is. A failure is a reason too. */
  readonly notReady: () => Promise<string | undefined>;
}

const BODY_LIMIT_BYTES = 1024;

/**
 * Answers `GET /healthz` (200 while this process's event loop turns) and `GET /readyz` (200 or 503, and why).
 * @throws {UsageError} when the address cannot be listened on
 */
export async function startHealthServer({ notReady, ...address }: HealthOptions): Promise<HttpServer> {
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
