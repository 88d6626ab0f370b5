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
    const text = `${what} ${hostInUrl(host)}:${port}: ${reasonOf(error)}; name another address`;
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

function reasonOf(error: { readonly code: string }): string {
  switch (error.code) {
    case 'EADDRINUSE':
      return 'it is in use';
    case 'EACCES':
      return 'this user may not listen there (ports below 1024 are often reserved)';
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return 'it is no address of this machine';
    default:
      return messageOf(error);
  }
}
