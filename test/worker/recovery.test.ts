import { beforeAll, expect, test } from 'vitest';
import { DescribeClient } from '../../src/describe-api/client.js';
import type { DialectName } from '../../src/describe-api/dialects/index.js';
import { describeQueueName } from '../../src/shared/account.js';
import { AccountLimits } from '../../src/shared/account-limits.js';
import { freshJobData } from '../../src/shared/jobs.js';
import { silentLogger } from '../../src/shared/log.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { RateLimiter } from '../../src/shared/queue/limiter.js';
import { DeliveryWatch } from '../../src/webhook/deliveries.js';
import { ApiHealth } from '../../src/worker/api-health.js';
import { PollSchedule } from '../../src/worker/poll-schedule.js';
import { SpendingCounter } from '../../src/shared/run-spending.js';
import type { Processing } from '../../src/worker/processing.js';
import { createResultPublisher } from '../../src/worker/processing.js';
import { awaitRecovery } from '../../src/worker/recovery.js';
import { WorkerWebhooks } from '../../src/worker/webhooks.js';
import { WorkerMetrics } from '../../src/worker/worker-metrics.js';
import { type TestServer, serve } from '../describe-api/http-server.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';

let connection: QueueConnection;

const OWN_REF = 'the-ref';
const PROMPTS = ['a fox', 'a hare', 'an owl', 'a deer'];

/** What the API has: message ids and their bodies; any other is a 404. */
async function serveMessages(messages: Record<string, object>): Promise<TestServer> {
  return serve((request, response) => {
    const id = (request.url ?? '').split('/').at(-1) ?? '';
    const body = messages[id];
    response.writeHead(body === undefined ? 404 : 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body ?? { success: false, msg: 'Message not found' }));
  });
}

interface Waiting {
  /** Brings a delivery that names a message. */
  readonly deliver: (messageId: string) => void;
  readonly recovery: ReturnType<typeof awaitRecovery>;
  /** Passes the time in which the delivery is waited for. */
  readonly giveUp: () => void;
}

async function recoverAt(server: TestServer, dialect: DialectName): Promise<Waiting> {
  let skippedMs = 0;
  const queueName = describeQueueName({ host: 'api.test', dialect, name: 'recovery' });
  const client = new DescribeClient({ baseUrl: server.url, dialect });
  const limiter = new RateLimiter({
    rate: () => ({ count: 1, perMs: 1 }),
    take: () => Promise.resolve({ dueInMs: [0], nextInMs: 0 }),
  });
  const webhooks = await WorkerWebhooks.open(
    { url: 'http://hook.test' },
    connection.store,
    queueName,
    silentLogger(),
  );
  const watch = new DeliveryWatch();
  const data = freshJobData({
    run: 'run',
    url: 'http://h/i.jpg',
    row: 1,
    maxAttempts: 3,
    deadlineMs: 60_000,
  });
  const processing: Processing = {
    job: {
      image: 'image',
      identity: 'job@0',
      data,
      attemptsStarted: 1,
      isHeld: false,
      save: () => Promise.resolve(),
      report: () => undefined,
      renewLock: () => Promise.resolve(),
      log: () => undefined,
    },
    deps: {
      connection,
      queue: connection.queue(queueName),
      client,
      images: {
        sendsUrl: () => true,
        read: (url) => Promise.resolve(url),
        refusedUrl: () => Promise.resolve(false),
        described: () => Promise.resolve(),
      },
      submitLimiter: limiter,
      pollTurns: {
        take: async (_id, stopping) => ({
          kind: (await limiter.take(stopping)) ? 'alone' : 'end',
          polls: 0,
        }),
      },
      spending: new SpendingCounter(connection),
      limits: await AccountLimits.open(connection.store, queueName, {}, silentLogger()),
      health: new ApiHealth(),
      living: { has: () => Promise.resolve(true) },
      schedule: new PollSchedule([100]),
      metrics: new WorkerMetrics(),
      firstPolls: new Set(),
      webhooks,
      publisher: createResultPublisher(connection),
      intake: { rest: () => Promise.resolve(), takeNoMore: () => Promise.resolve() },
      now: () => performance.now() + skippedMs,
    },
    stopping: new AbortController().signal,
    callback: undefined,
  };
  const callback = { ref: OWN_REF, url: 'http://hook.test/secret', watch };
  const recovery = awaitRecovery(processing, { ...data, unanswered: [1] }, [callback]).finally(() =>
    client.close(),
  );
  const giveUp = () => {
    skippedMs = 3_600_000;
    watch.notify('');
  };
  return { deliver: (messageId) => watch.notify(messageId), recovery, giveUp };
}

const described = { kind: 'complete', result: { rescued: 1, maybePaid: 0, outcome: { prompts: PROMPTS } } };
const completed = (ref: unknown) => ({ progress: 100, content: PROMPTS, ref });
const done = (ref: unknown) => ({ messageId: 'm1', status: 'DONE', content: PROMPTS, ref });

describeOnRedis('the recovery of an unconfirmed submit', (openQueue) => {
  beforeAll(async () => {
    connection = await (await openQueue()).connect();
  });

  test.each<[DialectName, string, object]>([
    ['thenextleg', 'an empty ref', completed('')],
    ['thenextleg', 'no ref', completed(undefined)],
    ['thenextleg', 'null', completed(null)],
    ['thenextleg', 'another ref', completed('other')],
    ['imaginepro', 'an empty ref', done('')],
    ['imaginepro', 'no ref', done(undefined)],
  ])('takes no message of %s with %s', async (dialect, _what, body) => {
    const server = await serveMessages({ OLD: body });
    const { deliver, recovery, giveUp } = await recoverAt(server, dialect);
    deliver('OLD');
    await waitUntil('it is asked for', () => server.requests.length > 0);
    giveUp();
    expect(await recovery).toMatchObject({ polls: 1, maybePaid: 1, unanswered: undefined });
  });

  test.each<[DialectName, object]>([
    ['thenextleg', completed(OWN_REF)],
    ['imaginepro', done(OWN_REF)],
    ['legnext', { job_id: 'OWN', status: 'completed', output: { prompts: PROMPTS } }],
  ])('takes the message of %s that is its own', async (dialect, body) => {
    const server = await serveMessages({ OWN: body });
    const { deliver, recovery } = await recoverAt(server, dialect);
    deliver('OWN');
    expect(await recovery).toMatchObject(described);
  });

  test('asks for the message of a later delivery while that of an earlier one is not there', async () => {
    const server = await serveMessages({ OWN: completed(OWN_REF) });
    const { deliver, recovery } = await recoverAt(server, 'thenextleg');
    deliver('FORGED');
    await waitUntil('the forged one is asked for', () => server.requests.length > 0);
    deliver('OWN');
    expect(await recovery).toMatchObject({ ...described, result: { polls: 2 } });
  });

  test('still takes its own message, which was not there at first, when forged deliveries follow', async () => {
    const messages: Record<string, object> = {};
    const server = await serveMessages(messages);
    const { deliver, recovery } = await recoverAt(server, 'thenextleg');
    deliver('OWN');
    await waitUntil('it is asked for', () => server.requests.length > 0);
    for (const forged of ['F1', 'F2', 'F3']) {
      const before = server.requests.length;
      deliver(forged);
      if (forged !== 'F3') await waitUntil('it is asked for', () => server.requests.length > before);
    }
    messages['OWN'] = completed(OWN_REF);
    expect(await recovery).toMatchObject(described);
    expect(server.requests.some((request) => request.endsWith('/F3'))).toBe(false);
  });
});
