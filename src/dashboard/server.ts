import { randomBytes } from 'node:crypto';
import type { FastifyInstance, FastifyReply, RouteHandlerMethod } from 'fastify';
import { messageOf } from '../shared/errors.js';
import { createHttpServer } from '../shared/http-server.js';
import type { Logger } from '../shared/log.js';
import { unlessAborted } from '../shared/unless-aborted.js';
import { type AccessRules, type Refusal, refuseRequest } from './access.js';
import { BOARD_HEADERS, COMMON_HEADERS, pageHeaders } from './security-headers.js';
import type { Board } from './board.js';
import type { Page } from './pages/layout.js';

export const BOARD_PATH = '/board';
const HEALTH_PATH = '/healthz';
/** A queue that is away answers when it is back: whoever asks is told before they give up. */
const BODY_LIMIT_BYTES = 64 * 1024;
const ANSWER_DEADLINE_MS = 4000;

export interface ServerParts {
  readonly access: AccessRules;
  readonly board: Board;
  /** Makes the page of a path; undefined where there is none. */
  readonly page: (path: string) => Promise<Page | undefined>;
  readonly metrics: () => Promise<{ type: string; text: string }>;
  /** Why the queue cannot be used at the moment; undefined when it answers. */
  readonly trouble: () => Promise<string | undefined>;
  readonly logger: Logger;
}

/** The dashboard's HTTP server, not listening yet. */
export async function createServer(parts: ServerParts): Promise<FastifyInstance> {
  // Queue names and job ids are long parameters.
  const app = createHttpServer({ bodyLimit: BODY_LIMIT_BYTES, routerOptions: { maxParamLength: 500 } });
  app.addHook('onRequest', async (request, reply) => {
    const isBoard = request.url === BOARD_PATH || request.url.startsWith(`${BOARD_PATH}/`);
    reply.headers(isBoard ? BOARD_HEADERS : COMMON_HEADERS);
    if (request.url === HEALTH_PATH) return undefined;
    const refusal = refuseRequest(request, parts.access);
    if (refusal !== undefined) return refuse(reply, refusal);
    return undefined;
  });
  app.addHook('onRoute', (route) => {
    route.handler = inTime(route.handler);
  });
  app.setErrorHandler((error, _request, reply) => {
    parts.logger.debug({ error: messageOf(error) }, 'a request to the dashboard failed');
    return sendTrouble(reply);
  });
  app.get(HEALTH_PATH, async (_request, reply) => {
    const trouble = await parts.trouble();
    // Told to everybody: neither where the queue is nor what runs there.
    return reply.code(trouble === undefined ? 200 : 503).send({ ready: trouble === undefined });
  });
  app.get('/metrics', async (_request, reply) => {
    const { type, text } = await parts.metrics();
    return reply.type(type).send(text);
  });
  for (const path of ['/', '/runs', '/runs/:run']) {
    app.get(path, async (request, reply) => sendPage(reply, await parts.page(pathOf(request.url)), 200));
  }
  app.setNotFoundHandler(inTime(async (_request, reply) => sendPage(reply, await parts.page('/404'), 404)));
  await app.register(parts.board.plugin, { prefix: BOARD_PATH });
  return app;
}

/**
 * The same handler, whose request ends in time whatever it waits for. The board's own error page has no word for it.
 * What answers by itself, such as the board's files do, is left as it is.
 */
function inTime(handler: RouteHandlerMethod): RouteHandlerMethod {
  return function (request, reply): unknown {
    const answering: unknown = handler.call(this, request, reply);
    return answering instanceof Promise ? orTrouble(answering, reply) : answering;
  };
}

async function orTrouble(answering: Promise<unknown>, reply: FastifyReply): Promise<unknown> {
  const deadline = AbortSignal.timeout(ANSWER_DEADLINE_MS);
  try {
    return await unlessAborted(answering, deadline);
  } catch (error) {
    if (!deadline.aborted) throw error;
    // A reply that has begun goes on: its reader is slow, and not the queue.
    return reply.sent ? reply : sendTrouble(reply);
  }
}

function sendTrouble(reply: FastifyReply): FastifyReply {
  return reply.code(503).type('text/plain').send('The queue does not answer. Try again in a moment.\n');
}

function pathOf(url: string): string {
  return url.replace(/[?#].*$/s, '');
}

function sendPage(reply: FastifyReply, page: Page | undefined, status: number): FastifyReply {
  if (page === undefined) return reply.code(404).type('text/plain').send('There is no such page.\n');
  const nonce = randomBytes(18).toString('base64');
  return reply
    .code(page.status ?? status)
    .headers(pageHeaders(nonce))
    .type('text/html; charset=utf-8')
    .send(page.render(nonce));
}

function refuse(reply: FastifyReply, { status, reason }: Refusal): FastifyReply {
  if (status === 401) reply.header('www-authenticate', 'Basic realm="bulk-describe", charset="UTF-8"');
  return reply.code(status).type('text/plain; charset=utf-8').send(`${reason}\n`);
}
