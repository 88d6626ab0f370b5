import { setTimeout as delay } from 'node:timers/promises';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { messageOf } from '../shared/errors.js';
import { createHttpServer } from '../shared/http-server.js';
import { type OnDelivery, type Reply, SimulatedApi, type SimulatorStats } from './api.js';
import { SIMULATED_DIALECTS } from './dialects.js';
import { changeSettings, completeOptions, type SimulatorOptions, type SimulatorSettings } from './options.js';

export type { SimulatorOptions, SimulatorSettings } from './options.js';

/** An image of 20 MB in base64. */
const BODY_LIMIT_BYTES = 30 * 1024 * 1024;
const paramsSchema = z.object({ id: z.string() });
const errorSchema = z.object({ statusCode: z.int().min(400).max(599) });

export interface Simulator {
  /** The API's base: `http://127.0.0.1:<port>/v2`. */
  readonly url: string;
  /** The API's base for a dialect: all are spoken on the same port, by their paths. */
  urlOf(dialect: string): string;
  readonly port: number;
  stats(): SimulatorStats;
  /** Changes settings from now on; `failures` is replaced as a whole. @throws {UsageError} for values that cannot be */
  setOptions(changes: Partial<SimulatorSettings>): void;
  /** Has the deliveries to webhooks decided about from now on; otherwise each is sent once, when it is due. */
  onDelivery(hook: OnDelivery): void;
  /** Ends all connections (answers that hang included) and forgets webhooks that are not due. */
  close(): Promise<void>;
}

/**
 * Starts a describe API on localhost. Messages are in their ids, so that another simulator answers for them.
 * Beside the API, `GET /stats` gives the stats as JSON and `POST /options` takes partial settings.
 * @throws {UsageError} for options that cannot be
 * @throws when the port is taken or the journal cannot be written
 */
export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const api = new SimulatedApi(completeOptions(options));
  const app = createApp(api);
  app.addHook('onClose', () => api.close());
  const origin = await app.listen({ port: api.options.port, host: '127.0.0.1' });
  return {
    url: `${origin}/v2`,
    urlOf: (dialect) => (dialect === 'thenextleg' ? `${origin}/v2` : origin),
    port: Number(new URL(origin).port),
    stats: () => api.stats,
    setOptions: (changes) => {
      api.options = changeSettings(api.options, changes);
    },
    onDelivery: (hook) => {
      api.onDelivery = hook;
    },
    close: () => app.close(),
  };
}

/** The HTTP server, not listening yet: the API in all dialects, and `/stats` and `/options` for other processes. */
function createApp(api: SimulatedApi): FastifyInstance {
  const app = createHttpServer({
    bodyLimit: BODY_LIMIT_BYTES,
    // HEAD /describe would be a submit.
    exposeHeadRoutes: false,
    routerOptions: { maxParamLength: 2000 },
  });
  for (const dialect of SIMULATED_DIALECTS) {
    const submit = (request: FastifyRequest, reply: FastifyReply) =>
      send(reply, api.submit(dialect, request));
    for (const path of dialect.submitPaths) app.post(path, submit);
    for (const path of dialect.getPaths ?? []) app.get(path, submit);
    for (const path of dialect.messages?.listPaths ?? [])
      app.post(path, (request, reply) => send(reply, api.list(dialect, request)));
    for (const path of dialect.messages?.paths ?? []) {
      app.get(path, (request, reply) =>
        send(reply, api.poll(dialect, paramsSchema.parse(request.params).id, request)),
      );
    }
  }
  app.get('/stats', () => ({ ...api.stats, paidByUrl: Object.fromEntries(api.stats.paidByUrl) }));
  app.post('/options', (request, reply) => {
    try {
      api.options = changeSettings(api.options, z.looseObject({}).parse(request.body));
    } catch (error) {
      return send(reply, failure(400, messageOf(error)));
    }
    return send(reply, { status: 200, body: { success: true } });
  });
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
