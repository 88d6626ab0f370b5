import { randomBytes } from 'node:crypto';
import type { FastifyInstance, FastifyReply, RouteHandlerMethod } from 'fastify';
import { z } from 'zod';
import { messageOf } from '../shared/errors.js';
import { createHttpServer } from '../shared/http-server.js';
import type { Logger } from '../shared/log.js';
import { unlessAborted } from '../shared/waiting.js';
import { type AccessRules, type Refusal, refuseRequest } from './access.js';
import type { Board } from './board.js';
import type { Page } from './pages/html.js';
import type { Pages } from './pages/pages.js';

export const BOARD_PATH = '/board';
const HEALTH_PATH = '/healthz';
const runSchema = z.object({ run: z.string() });
/** A queue that is away answers when it is back: requests are answered before their callers give up. */
const BODY_LIMIT_BYTES = 64 * 1024;
const ANSWER_DEADLINE_MS = 4000;

export interface ServerDeps {
  readonly access: AccessRules;
  readonly board: Board;
  readonly pages: Pages;
  readonly metrics: () => Promise<{ type: string; text: string }>;
  /** Why the queue cannot be used at the moment; undefined when it answers. */
  readonly trouble: () => Promise<string | undefined>;
  readonly logger: Logger;
}

/** The dashboard's HTTP server, not listening yet. */
export async function createServer(deps: ServerDeps): Promise<FastifyInstance> {
  // Queue names and job ids are long parameters.
  const app = createHttpServer({ bodyLimit: BODY_LIMIT_BYTES, routerOptions: { maxParamLength: 500 } });
  app.addHook('onRequest', async (request, reply) => {
    const isBoard = request.url === BOARD_PATH || request.url.startsWith(`${BOARD_PATH}/`);
    reply.headers(isBoard ? BOARD_HEADERS : COMMON_HEADERS);
    if (request.url === HEALTH_PATH) return undefined;
    const refusal = refuseRequest(request, deps.access);
    if (refusal !== undefined) return refuse(reply, refusal);
    return undefined;
  });
  app.addHook('onRoute', (route) => {
    route.handler = inTime(route.handler);
  });
  app.setErrorHandler((error, _request, reply) => {
    deps.logger.debug({ error: messageOf(error) }, 'a request to the dashboard failed');
    return sendTrouble(reply);
  });
  app.get(HEALTH_PATH, async (_request, reply) => {
    const trouble = await deps.trouble();
    // Told to everybody: neither where the queue is nor what runs there.
    return reply.code(trouble === undefined ? 200 : 503).send({ ready: trouble === undefined });
  });
  app.get('/metrics', async (_request, reply) => {
    const { type, text } = await deps.metrics();
    return reply.type(type).send(text);
  });
  for (const path of ['/', '/runs'])
    app.get(path, async (_request, reply) => sendPage(reply, await deps.pages.runs()));
  app.get('/runs/:run', async (request, reply) => {
    const { run } = runSchema.parse(request.params);
    return sendPage(reply, await deps.pages.run(run));
  });
  app.setNotFoundHandler(inTime((_request, reply) => sendPage(reply, deps.pages.notFound)));
  await app.register(deps.board.plugin, { prefix: BOARD_PATH });
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

function sendPage(reply: FastifyReply, page: Page): FastifyReply {
  const nonce = randomBytes(18).toString('base64');
  return reply
    .code(page.status)
    .headers(pageHeaders(nonce))
    .type('text/html; charset=utf-8')
    .send(page.render(nonce));
}

function refuse(reply: FastifyReply, { status, reason }: Refusal): FastifyReply {
  if (status === 401) reply.header('www-authenticate', 'Basic realm="bulk-describe", charset="UTF-8"');
  return reply.code(status).type('text/plain; charset=utf-8').send(`${reason}\n`);
}

/** Headers of every answer. */
const COMMON_HEADERS = {
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), microphone=(), geolocation=()',
  'cache-control': 'no-store',
};

/** The board is a page of Bull Board's: its own scripts and styles. The fonts of others that it asks for are not loaded. */
const BOARD_HEADERS = {
  ...COMMON_HEADERS,
  'content-security-policy': policy({
    'img-src': "'self' data:",
    'style-src': "'self' 'unsafe-inline'",
    'script-src': "'self'",
    'worker-src': "'self' blob:",
    'font-src': "'self' data:",
    'connect-src': "'self'",
  }),
};

/** A browser may only show our pages, with images from wherever the manifest says, and run the one script that has the nonce. */
function pageHeaders(nonce: string): Record<string, string> {
  return {
    ...COMMON_HEADERS,
    'content-security-policy': policy({
      'img-src': '* data:',
      'style-src': `'nonce-${nonce}'`,
      'script-src': `'nonce-${nonce}'`,
      'connect-src': "'self'",
    }),
  };
}

function policy(allowed: Readonly<Record<string, string>>): string {
  const all = {
    'default-src': "'none'",
    'base-uri': "'self'",
    'form-action': "'self'",
    'frame-ancestors': "'none'",
    ...allowed,
  };
  return Object.entries(all)
    .map(([name, sources]) => `${name} ${sources}`)
    .join('; ');
}
