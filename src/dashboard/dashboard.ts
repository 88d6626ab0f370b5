import { randomUUID } from 'node:crypto';
import type { FastifyError, FastifyInstance, FastifyReply } from 'fastify';
import { z } from 'zod';
import { UsageError, messageOf } from '../shared/errors.js';
import { partsOfJobId } from '../shared/jobs.js';
import { queueTrouble } from '../service/troubles.js';
import { type HttpServer, createHttpServer, listen } from '../shared/http-server.js';
import type { PreparedImage } from '../shared/prepare-image.js';
import { RUNS, type RunStatus } from '../shared/published.js';
import type { QueueConnection } from '../shared/queue/connection.js';
import { unlessAborted } from '../shared/waiting.js';
import { DASHBOARD_DEFAULTS, type DashboardOptions, refuseOpenDashboard, refuseRequest } from './access.js';
import { addBoard } from './board.js';
import { renderMetrics } from './metrics.js';
import { localThumbnail } from './images.js';
import { BOARD_PATH, PAGE_SOURCES, type Page } from './html.js';
import { ACTION_DEADLINE_MS, act, isAction } from './actions.js';
import { type View, runPage, runsPage } from './pages.js';
import { Results } from './results.js';

const HEALTH_PATH = '/healthz';
type RunRoute = { Params: { run: string } };
const rowSchema = z.object({ row: z.coerce.number().int().nonnegative() });
const viewSchema = z.object({ code: z.string().optional(), said: z.string().optional() });
/** Whoever looks at an older one again sees the page alone. */
const MOST_SAID = 100;
const BODY_LIMIT_BYTES = 64 * 1024;
/** A queue that is away answers when it is back: requests are answered before their callers give up. */
const ANSWER_DEADLINE_MS = 4000;
/** Requests that are worked on at a time. */
const MOST_WAITING = 200;
/** A large output over a slow line. */
const DOWNLOAD_DEADLINE_MS = 24 * 3_600_000;

export type Dashboard = HttpServer;

/**
 * Serves Bull Board, the run pages and the metrics of a queue. The connection stays the caller's.
 * @throws {UsageError} when the port is taken or the address is none, or when other machines could reach it
 *   without a password
 */
export async function startDashboard(
  connection: QueueConnection,
  options: DashboardOptions = {},
): Promise<Dashboard> {
  const { host = DASHBOARD_DEFAULTS.host, port = DASHBOARD_DEFAULTS.port, credentials } = options;
  refuseOpenDashboard(host, credentials);
  return listen(await createServer(connection, options), { host, port }, 'the dashboard at');
}

/** The dashboard's HTTP server, not listening yet. */
async function createServer(
  connection: QueueConnection,
  options: DashboardOptions,
): Promise<FastifyInstance> {
  const app = createHttpServer({
    bodyLimit: BODY_LIMIT_BYTES,
    handlerTimeout: ANSWER_DEADLINE_MS,
    // Queue names and job ids are long parameters.
    routerOptions: { maxParamLength: 500 },
  });
  app.addHook('onRequest', async (request, reply) => {
    const isBoard = request.routeOptions.url?.startsWith(BOARD_PATH) === true;
    reply.headers(isBoard ? BOARD_HEADERS : COMMON_HEADERS);
    if (request.url === HEALTH_PATH) return undefined;
    // The board is there to look at: its writes could pay for an image twice, lose a row or lift a limit.
    const readOnly = options.readOnly === true || isBoard;
    const refusal = refuseRequest(request, { ...options, readOnly });
    if (refusal === undefined) return undefined;
    if (refusal.status === 401)
      reply.header('www-authenticate', 'Basic realm="bulk-describe", charset="UTF-8"');
    return reply.code(refusal.status).type('text/plain; charset=utf-8').send(`${refusal.reason}\n`);
  });
  app.setErrorHandler<FastifyError>((error, _request, reply) => {
    options.logger?.debug({ error: messageOf(error) }, 'a request to the dashboard failed');
    const { statusCode = 500 } = error;
    if (statusCode >= 500) return sendTrouble(reply);
    return reply.code(statusCode).type('text/plain').send(`${error.message}\n`);
  });
  guardRoutes(app);
  app.get(HEALTH_PATH, async (_request, reply) => {
    const trouble = await queueTrouble(connection);
    if (trouble === undefined) return reply.send({ ready: true });
    // Shown to everybody: neither where the queue is nor what runs there.
    return reply.code(503).send({ ready: false, reason: trouble.short });
  });
  app.get('/metrics', async (_request, reply) => {
    const { type, text } = await renderMetrics(connection);
    return reply.type(type).send(text);
  });
  addPages(app, connection, options.readOnly === true);
  addResults(app, connection, options);
  type ImageRoute = { Params: { run: string; image: string } };
  app.get<ImageRoute>('/runs/:run/images/:image', async ({ params }, reply) =>
    sendPicture(reply, await localThumbnail(connection, params, options.imageRoots ?? [])),
  );
  await addBoard(app, connection, options.logger);
  return app;
}

/** While the queue is away, what has been asked of it waits on when the request was answered: no more than so many wait. */
function guardRoutes(app: FastifyInstance): void {
  let waiting = 0;
  const done = () => {
    waiting--;
  };
  app.addHook('onRoute', (route) => {
    const { handler } = route;
    // A download takes long by itself, and the queue has answered by then.
    const isFree = route.url === HEALTH_PATH || route.handlerTimeout === DOWNLOAD_DEADLINE_MS;
    route.handler = function (request, reply) {
      if (isFree) return handler.call(this, request, reply);
      if (waiting >= MOST_WAITING) return sendTrouble(reply);
      const answer: unknown = handler.call(this, request, reply);
      if (answer instanceof Promise) {
        waiting++;
        answer.then(done, done);
      }
      return answer;
    };
    // The board's own error handler has no word for a queue that is away.
    route.errorHandler = (error, _request, reply) => {
      if (error.code !== 'FST_ERR_HANDLER_TIMEOUT') throw error;
      void sendTrouble(reply);
    };
  });
}

/** The run pages, and what their buttons do: that is said on the page to which the browser is sent back. */
function addPages(app: FastifyInstance, connection: QueueConnection, readOnly: boolean): void {
  const said = new Map<string, string>();
  const viewOf = (query: unknown): View => {
    const { code, said: key = '' } = viewSchema.safeParse(query).data ?? {};
    return { readOnly, code, said: said.get(key) };
  };
  for (const path of ['/', '/runs'])
    app.get(path, async ({ query }, reply) => sendPage(reply, await runsPage(connection, viewOf(query))));
  app.get<RunRoute>('/runs/:run', async ({ params: { run }, query }, reply) =>
    sendPage(reply, await runPage(connection, run, viewOf(query))),
  );
  // Asks the queue as every page does: while it is away, nobody is told that something is not there.
  app.setNotFoundHandler(async ({ url }, reply) =>
    sendPage(reply, await runPage(connection, url, { readOnly })),
  );
  // Forms without a field.
  const formType = 'application/x-www-form-urlencoded';
  app.addContentTypeParser(formType, { parseAs: 'string' }, (_request, _body, done) => done(null));
  const handlerTimeout = ACTION_DEADLINE_MS + ANSWER_DEADLINE_MS;
  type ActionRoute = { Params: { action: string; id: string } };
  app.post<ActionRoute>('/do/:action/:id', { handlerTimeout }, async ({ params: { action, id } }, reply) => {
    if (!isAction(action)) return reply.code(404).send();
    const key = randomUUID();
    said.set(key, await act(connection, action, id));
    const [oldest = key] = said.keys();
    if (said.size > MOST_SAID) said.delete(oldest);
    const { run } = partsOfJobId(id) ?? { run: id };
    const page = action.endsWith('-account') ? '/runs' : `/runs/${encodeURIComponent(run)}`;
    return reply.redirect(`${page}?said=${key}`, 303);
  });
}

/** The results of runs, of which the queue knows where they are. */
function addResults(app: FastifyInstance, connection: QueueConnection, options: DashboardOptions): void {
  const results = new Results(options);
  app.addHook('onClose', () => results.close());
  type Show = (about: RunStatus, query: unknown, reply: FastifyReply) => Promise<FastifyReply>;
  const add = (path: string, handlerTimeout: number, show: Show) =>
    app.get<RunRoute>(`/runs/:run/results${path}`, { handlerTimeout }, async (request, reply) => {
      const { run } = request.params;
      // Also where the answer itself may take long.
      const soon = AbortSignal.timeout(ANSWER_DEADLINE_MS);
      const about = await unlessAborted(RUNS.find(connection.store, run), soon);
      if (about === undefined) return sendPage(reply, await runPage(connection, run, { readOnly: true }));
      try {
        return await show(about, request.query, reply);
      } catch (error) {
        // Its page says why.
        if (!(error instanceof UsageError)) throw error;
        return reply.code(404).send();
      }
    });
  add('', ANSWER_DEADLINE_MS, async (about, query, reply) =>
    sendPage(reply, await results.page(about, query)),
  );
  add('/image', ANSWER_DEADLINE_MS, async (about, query, reply) => {
    const row = rowSchema.safeParse(query).data?.row ?? -1;
    return sendPicture(reply, await results.picture(about, row));
  });
  add('/file', DOWNLOAD_DEADLINE_MS, async (about, _query, reply) => {
    const { name, size, stream } = await results.file(about);
    const disposition = `attachment; filename*=UTF-8''${encodeURIComponent(name)}`;
    reply.headers({ 'content-disposition': disposition, 'content-length': size });
    return await reply.type('application/octet-stream').send(stream);
  });
}

function sendPicture(reply: FastifyReply, picture: PreparedImage | undefined): FastifyReply {
  if (picture === undefined) return reply.code(404).send();
  const { type, bytes } = picture;
  return reply.type(`image/${type}`).header('cache-control', 'private, max-age=3600').send(bytes);
}

function sendTrouble(reply: FastifyReply): FastifyReply {
  return reply.code(503).type('text/plain').send('The queue does not answer. Try again in a moment.\n');
}

function sendPage(reply: FastifyReply, { status, text }: Page): FastifyReply {
  return reply.code(status).headers(PAGE_HEADERS).type('text/html; charset=utf-8').send(text);
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

/** A browser that sends no referrer at all does not say either which page a form was on. */
const PAGE_HEADERS = {
  ...COMMON_HEADERS,
  'referrer-policy': 'same-origin',
  'content-security-policy': policy(PAGE_SOURCES),
};

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
