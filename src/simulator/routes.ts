import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { z } from 'zod';
import { messageOf } from '../shared/errors.js';
import { parseSettings, type SimulatorSettings, type Some } from './options.js';
import { SIMULATED_DIALECTS } from './dialects/index.js';
import type { SimulatedDialect } from './dialects/simulated-dialect.js';
import { answerPoll } from './poll.js';
import type { Random } from './random.js';
import { refuse, type Reply } from './reply.js';
import type { SimulatorStats, StatsKeeper } from './stats.js';
import type { SubmitDesk } from './submit.js';

export interface RouteParts {
  readonly desk: SubmitDesk;
  readonly stats: StatsKeeper;
  readonly random: Random;
  readonly settings: () => SimulatorSettings;
  readonly setOptions: (changes: Some<SimulatorSettings>) => void;
  readonly readStats: () => SimulatorStats;
}

const pollSchema = z.object({ id: z.string() });
const pollQuerySchema = z.object({ expireMins: z.string().optional() });
const errorSchema = z.object({ statusCode: z.int().min(400).max(599) });

function isDown({ down, downUntil }: SimulatorSettings): boolean {
  return down || (downUntil !== null && Date.now() < downUntil);
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

async function send(reply: FastifyReply, answer: Reply): Promise<void> {
  if ('delayMs' in answer && answer.delayMs !== undefined && !(await stays(reply, answer.delayMs))) {
    reply.hijack();
    return;
  }
  switch (answer.kind) {
    case 'json':
      await reply
        .headers(answer.headers ?? {})
        .code(answer.status)
        .send(answer.body);
      return;
    case 'text':
      await reply.code(answer.status).type(answer.type).send(answer.text);
      return;
    case 'reset':
      reply.hijack();
      reply.raw.socket?.resetAndDestroy();
      return;
    case 'hang':
      // The socket stays open until the caller gives up or the server is closed.
      reply.hijack();
      return;
  }
}

/** A dialect's routes. */
function addApiRoutes(app: FastifyInstance, dialect: SimulatedDialect, parts: RouteParts): void {
  const { desk, stats, random, settings } = parts;
  const handle =
    (decide: (request: FastifyRequest) => Reply) => (request: FastifyRequest, reply: FastifyReply) => {
      if (isDown(settings())) {
        stats.count('answered503');
        const text = '<h1>Service Unavailable</h1>';
        return send(reply, { kind: 'text', status: 503, type: 'text/html', text });
      }
      const { token } = settings();
      if (token !== null && dialect.tokenOf(request) !== token) {
        stats.count('answered401');
        return send(reply, refuse(dialect, 'token', 'The token is not valid'));
      }
      return send(reply, decide(request));
    };
  const takeSubmit = (how: 'posts' | 'gets', read: (request: FastifyRequest) => unknown) => {
    const decide = handle((request) => desk.take(dialect, read(request), Date.now()));
    return (request: FastifyRequest, reply: FastifyReply) => {
      stats.countSubmit(how, performance.now());
      return decide(request, reply);
    };
  };
  const poll = handle((request) => {
    const { id } = pollSchema.parse(request.params);
    const { expireMins } = pollQuerySchema.parse(request.query);
    return answerPoll(dialect, { id, expireMins }, { settings: settings(), random, stats }, Date.now());
  });

  const post = takeSubmit('posts', ({ body }) => body);
  const get = takeSubmit('gets', ({ query }) => query);
  for (const path of dialect.submitPaths) app.post(path, post);
  for (const path of dialect.getPaths ?? []) app.get(path, get);
  for (const path of dialect.messagePaths) {
    app.get(path, (request, reply) => {
      stats.count('polls');
      return poll(request, reply);
    });
  }
}

/** What is no dialect's to word. */
function failure(status: number, msg: string): Reply {
  return { kind: 'json', status, body: { success: false, msg } };
}

/** Routes beside the API, for whoever runs it from another process. */
function addControlRoutes(app: FastifyInstance, parts: RouteParts): void {
  app.get('/stats', () => {
    const stats = parts.readStats();
    return { ...stats, paidByUrl: Object.fromEntries(stats.paidByUrl) };
  });
  app.post('/options', (request, reply) => {
    const changes = parseSettings(request.body);
    if (typeof changes === 'string') return send(reply, failure(400, changes));
    parts.setOptions(changes);
    return send(reply, { kind: 'json', status: 200, body: { success: true } });
  });
}

/** The HTTP server, not listening yet. */
export function createApp(parts: RouteParts): FastifyInstance {
  const app = fastify({
    logger: false,
    // Answers that never come would keep it from closing.
    forceCloseConnections: true,
    // HEAD /describe would be a submit.
    exposeHeadRoutes: false,
    routerOptions: { maxParamLength: 2000 },
  });
  app.setErrorHandler((error, _request, reply) => {
    const status = errorSchema.safeParse(error).data?.statusCode ?? 500;
    return send(reply, failure(status, messageOf(error)));
  });
  app.setNotFoundHandler((_request, reply) => send(reply, failure(404, 'Not found')));
  for (const dialect of SIMULATED_DIALECTS) addApiRoutes(app, dialect, parts);
  addControlRoutes(app, parts);
  return app;
}
