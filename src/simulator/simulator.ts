import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { messageOf } from '../shared/errors.js';
import { createHttpServer } from '../shared/http-server.js';
import { type Reply, SimulatedApi } from './api.js';
import { SIMULATED_DIALECTS } from './dialects.js';
import {
  change,
  completeOptions,
  parseSettings,
  type SimulatorOptions,
  type SimulatorSettings,
  type Some,
} from './options.js';
import type { SimulatorStats } from './stats.js';

export type { SimulatorOptions, SimulatorSettings, WebhookFaults } from './options.js';
export { readJournal } from './stats.js';

const BODY_LIMIT_BYTES = 1024 * 1024;
const paramsSchema = z.object({ id: z.string() });
const errorSchema = z.object({ statusCode: z.int().min(400).max(599) });

export interface Simulator {
  /** The API's base: `http://127.0.0.1:<port>/v2`. */
  readonly url: string;
  /** The API's base for a dialect: all are spoken on the same port, by their paths. */
  urlOf(dialect: string): string;
  readonly port: number;
  stats(): SimulatorStats;
  /** Changes settings from now on; `failures` and `webhooks` are replaced as a whole. */
  setOptions(changes: Some<SimulatorSettings>): void;
  /** Ends all connections (answers that hang included) and forgets webhooks that are not due. */
  close(): Promise<void>;
}

/**
 * Starts a describe API on localhost. Messages are in their ids, so that another simulator answers for them.
 * Beside the API, `GET /stats` gives the stats as JSON and `POST /options` takes partial settings.
 * @param options see `DEFAULTS`
 * @throws {UsageError} for options that cannot be
 * @throws when the port is taken or the journal cannot be read or written
 */
export async function startSimulator(options: Some<SimulatorOptions> = {}): Promise<Simulator> {
  const complete = completeOptions(options);
  const { host, port: wanted } = complete;
  const api = new SimulatedApi(complete);
  const app = createApp(api);
  const close = async (): Promise<void> => {
    await app.close();
    await api.close();
  };
  try {
    await app.listen({ port: wanted, host });
  } catch (error) {
    await close();
    throw error;
  }
  const address = app.server.address();
  const port = typeof address === 'object' && address ? address.port : wanted;
  const origin = originOf(host, port);
  let closing: Promise<void> | undefined;
  return {
    url: `${origin}/v2`,
    urlOf: (dialect) => (dialect === 'thenextleg' ? `${origin}/v2` : origin),
    port,
    stats: () => api.stats.read(api.inFlight),
    setOptions: (changes) => {
      api.settings = change(api.settings, changes);
    },
    close: () => (closing ??= close()),
  };
}

/** The origin by which the machine itself reaches the server. */
function originOf(host: string, port: number): string {
  const name = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
  return `http://${name.includes(':') ? `[${name}]` : name}:${port}`;
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
    for (const path of dialect.messages?.paths ?? []) {
      app.get(path, (request, reply) =>
        send(reply, api.poll(dialect, paramsSchema.parse(request.params).id, request)),
      );
    }
  }
  app.get('/stats', () => {
    const stats = api.stats.read(api.inFlight);
    return { ...stats, paidByUrl: Object.fromEntries(stats.paidByUrl) };
  });
  app.post('/options', (request, reply) => {
    const changes = parseSettings(request.body);
    if (typeof changes === 'string') return send(reply, failure(400, changes));
    api.settings = change(api.settings, changes);
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
  if (delayMs > 0 && !(await stays(reply, delayMs))) {
    reply.hijack();
    return;
  }
  if (typeof body === 'string') reply.type('text/html');
  await reply.code(status).headers(headers).send(body);
}

/** Waits; false when the caller, or the server, is gone before. */
async function stays(reply: FastifyReply, delayMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(true), delayMs);
    reply.raw.once('close', () => {
      clearTimeout(timer);
      resolve(false);
    });
  });
}
