import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { z } from 'zod';
import { messageOf } from '../shared/errors.js';
import { parseSettings, type SimulatorSettings, type Some } from './options.js';
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

const withTokenSchema = z.object({ authToken: z.string() });
const pollSchema = z.object({ id: z.string() });
const pollQuerySchema = z.object({ expireMins: z.string().optional() });
const errorSchema = z.object({ statusCode: z.int().min(400).max(599) });

function tokenOf(request: FastifyRequest): string | undefined {
  const bearer = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1];
  const inQuery = withTokenSchema.safeParse(request.query).data?.authToken;
  return bearer ?? inQuery ?? withTokenSchema.safeParse(request.body).data?.authToken;
}

function isDown({ down, downUntil }: SimulatorSettings): boolean {
  return down || (downUntil !== null && Date.now() < downUntil);
}

async function send(reply: FastifyReply, answer: Reply): Promise<void> {
  switch (answer.kind) {
    case 'json':
      if (answer.retryAfter !== undefined) reply.header('retry-after', answer.retryAfter);
      await reply.code(answer.status).send(answer.body);
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

/** Routes below /v2: the API's own. */
function addApiRoutes(api: FastifyInstance, parts: RouteParts): void {
  const { desk, stats, random, settings } = parts;
  const handle =
    (decide: (request: FastifyRequest) => Reply) => (request: FastifyRequest, reply: FastifyReply) => {
      if (isDown(settings())) {
        stats.count('answered503');
        return send(reply, {
          kind: 'text',
          status: 503,
          type: 'text/html',
          text: '<h1>Service Unavailable</h1>',
        });
      }
      const { token } = settings();
      if (token !== null && tokenOf(request) !== token) {
        stats.count('answered401');
        return send(reply, refuse(401, 'The token is not valid'));
      }
      return send(reply, decide(request));
    };
  const takeSubmit = (how: 'posts' | 'gets', read: (request: FastifyRequest) => unknown) => {
    const decide = handle((request) => desk.take(read(request), Date.now()));
    return (request: FastifyRequest, reply: FastifyReply) => {
      stats.countSubmit(how, performance.now());
      return decide(request, reply);
    };
  };
  const poll = handle((request) => {
    const { id } = pollSchema.parse(request.params);
    const { expireMins } = pollQuerySchema.parse(request.query);
    return answerPoll({ id, expireMins }, { settings: settings(), random, stats }, Date.now());
  });

  api.post(
    '/describe',
    takeSubmit('posts', ({ body }) => body),
  );
  api.get(
    '/describe',
    takeSubmit('gets', ({ query }) => query),
  );
  api.get('/message/:id', (request, reply) => {
    stats.count('polls');
    return poll(request, reply);
  });
}

/** Routes beside the API, for whoever runs it from another process. */
function addControlRoutes(app: FastifyInstance, parts: RouteParts): void {
  app.get('/stats', () => {
    const stats = parts.readStats();
    return { ...stats, paidByUrl: Object.fromEntries(stats.paidByUrl) };
  });
  app.post('/options', (request, reply) => {
    const changes = parseSettings(request.body);
    if (typeof changes === 'string') return send(reply, refuse(400, changes));
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
    return send(reply, refuse(status, messageOf(error)));
  });
  app.setNotFoundHandler((_request, reply) => send(reply, refuse(404, 'Not found')));
  app.register(
    (api, _options, done) => {
      addApiRoutes(api, parts);
      done();
    },
    { prefix: '/v2' },
  );
  addControlRoutes(app, parts);
  return app;
}
