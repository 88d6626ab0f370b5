import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { messageOf } from '../shared/errors.js';
import { createHttpServer } from '../shared/http-server.js';
import type { Reply, SimulatedApi } from './api.js';
import { SIMULATED_DIALECTS } from './dialects.js';
import { change, parseSettings } from './options.js';

const BODY_LIMIT_BYTES = 1024 * 1024;
const paramsSchema = z.object({ id: z.string() });
const errorSchema = z.object({ statusCode: z.int().min(400).max(599) });

/** The HTTP server, not listening yet: the API in all dialects, and `/stats` and `/options` for other processes. */
export function createApp(api: SimulatedApi): FastifyInstance {
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
