import { setTimeout as delay } from 'node:timers/promises';
import type { FastifyInstance, FastifyReply } from 'fastify';
import { z } from 'zod';
import { messageOf } from '../shared/errors.js';
import { createHttpServer } from '../shared/http-server.js';
import { type Call, type Reply, SimulatedApi } from './api.js';
import { SIMULATED_DIALECTS } from './dialects.js';
import type { SimulatorOptions } from './options.js';

export type { SimulatorOptions } from './options.js';

/** An image of 20 MB in base64. */
const BODY_LIMIT_BYTES = 30 * 1024 * 1024;
const errorSchema = z.object({ statusCode: z.int().min(400).max(599) });

export interface Simulator {
  /** The API's base: `http://127.0.0.1:<port>/v2`. */
  readonly url: string;
  /** The API's base for a dialect: all are spoken on the same port, by their paths. */
  urlOf(dialect: string): string;
  readonly port: number;
  /** Ends all connections (answers that hang included) and forgets webhooks that are not due. */
  close(): Promise<void>;
}

/**
 * Starts a describe API on localhost. Messages are in their ids, so that another simulator answers for them.
 * @throws {UsageError} for options that cannot be
 * @throws when the port is taken or the journal cannot be written
 */
export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const api = new SimulatedApi(options);
  return listenWith(createApp(api), api.options.port);
}

/** Listens on localhost. */
export async function listenWith(app: FastifyInstance, port: number): Promise<Simulator> {
  const origin = await app.listen({ port, host: '127.0.0.1' });
  return {
    url: `${origin}/v2`,
    urlOf: (dialect) => (dialect === 'thenextleg' ? `${origin}/v2` : origin),
    port: Number(new URL(origin).port),
    close: () => app.close(),
  };
}

/** The HTTP server, not listening yet: the API in all dialects. */
export function createApp(api: SimulatedApi): FastifyInstance {
  const app = createHttpServer({
    bodyLimit: BODY_LIMIT_BYTES,
    // HEAD /describe would be a submit.
    exposeHeadRoutes: false,
    routerOptions: { maxParamLength: 2000 },
  });
  for (const dialect of SIMULATED_DIALECTS) {
    const answer = (call: Call, method: 'GET' | 'POST', paths: readonly string[] = []) => {
      for (const url of paths)
        app.route({
          method,
          url,
          handler: (request, reply) => send(reply, api.answer(dialect, call, request)),
        });
    };
    answer('submit', 'POST', dialect.submitPaths);
    answer('submit', 'GET', dialect.getPaths);
    answer('poll', 'GET', dialect.messages?.paths);
    answer('list', 'POST', dialect.messages?.listPaths);
  }
  app.addHook('onClose', () => api.close());
  app.setNotFoundHandler((_request, reply) => send(reply, failure(404, 'Not found')));
  app.setErrorHandler((error, _request, reply) => {
    const status = errorSchema.safeParse(error).data?.statusCode ?? 500;
    return send(reply, failure(status, messageOf(error)));
  });
  return app;
}

/** What is no dialect's to word. */
function failure(status: number, msg: string): Reply {
  return { status, body: { success: false, msg } };
}

async function send(reply: FastifyReply, answer: Reply): Promise<void> {
  if (answer === 'hang' || answer === 'reset') {
    // A socket that hangs stays open until the caller gives up or the server is closed.
    reply.hijack();
    if (answer === 'reset') reply.raw.socket?.resetAndDestroy();
    return;
  }
  const { status, body, headers = {}, delayMs = 0 } = answer;
  // When the caller, or the server, is gone before, this sends nothing.
  if (delayMs > 0) await delay(delayMs, undefined, { ref: false });
  if (typeof body === 'string') reply.type('text/html');
  await reply.code(status).headers(headers).send(body);
}
