import { beforeAll, expect, test } from 'vitest';
import { DescribeClient } from '../../src/describe-api/client.js';
import type { DialectName } from '../../src/describe-api/dialects/index.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { RateLimiter } from '../../src/shared/queue/limiter.js';
import { DeliveryWatch } from '../../src/webhook/deliveries.js';
import { ApiHealth } from '../../src/worker/api-health.js';
import { DeliveryTiming } from '../../src/worker/webhooks.js';
import { type Recovery, recoverSubmit } from '../../src/worker/recovery.js';
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
  readonly watch: DeliveryWatch;
  readonly recovery: Promise<Recovery>;
  /** Passes the time in which the delivery is waited for. */
  readonly giveUp: () => void;
}

function recoverAt(server: TestServer, dialect: DialectName): Waiting {
  const watch = new DeliveryWatch(() => undefined);
  let skippedMs = 0;
  const client = new DescribeClient({ baseUrl: server.url, dialect });
  const recovery = recoverSubmit(
    { image: 'image', log: () => undefined },
    [{ ref: OWN_REF, url: 'http://hook.test/secret', watch }],
    {
      timing: new DeliveryTiming(100),
      callback: () => {
        throw new Error('nothing is submitted');
      },
      alsoFor: () => () => undefined,
      notifyEarlier: () => Promise.resolve(),
    },
    {
      client,
      health: new ApiHealth(),
      connection,
      queue: connection.queue('describe@api.test@thenextleg@recovery'),
      pollLimiter: new RateLimiter({
        rate: () => ({ count: 1, perMs: 1 }),
        take: () => Promise.resolve({ dueInMs: [0], nextInMs: 0 }),
      }),
      now: () => performance.now() + skippedMs,
    },
    new AbortController().signal,
  ).finally(() => client.close());
  const giveUp = () => {
    skippedMs = 3_600_000;
    watch.notify('');
  };
  return { watch, recovery, giveUp };
}

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
    const { watch, recovery, giveUp } = recoverAt(server, dialect);
    watch.notify('OLD');
    await waitUntil('it is asked for', () => server.requests.length > 0);
    giveUp();
    expect(await recovery).toEqual({ kind: 'nothing', polls: 1 });
  });

  test.each<[DialectName, object]>([
    ['thenextleg', completed(OWN_REF)],
    ['imaginepro', done(OWN_REF)],
    ['legnext', { job_id: 'OWN', status: 'completed', output: { prompts: PROMPTS } }],
  ])('takes the message of %s that is its own', async (dialect, body) => {
    const server = await serveMessages({ OWN: body });
    const { watch, recovery } = recoverAt(server, dialect);
    watch.notify('OWN');
    expect(await recovery).toMatchObject({ kind: 'recovered', message: { prompts: PROMPTS } });
  });

  test('asks for the message of a later delivery while that of an earlier one is not there', async () => {
    const server = await serveMessages({ OWN: completed(OWN_REF) });
    const { watch, recovery } = recoverAt(server, 'thenextleg');
    watch.notify('FORGED');
    await waitUntil('the forged one is asked for', () => server.requests.length > 0);
    watch.notify('OWN');
    expect(await recovery).toMatchObject({ kind: 'recovered', polls: 2 });
  });

  test('still takes its own message, which was not there at first, when forged deliveries follow', async () => {
    const messages: Record<string, object> = {};
    const server = await serveMessages(messages);
    const { watch, recovery } = recoverAt(server, 'thenextleg');
    watch.notify('OWN');
    await waitUntil('it is asked for', () => server.requests.length > 0);
    for (const forged of ['F1', 'F2', 'F3']) {
      const before = server.requests.length;
      watch.notify(forged);
      if (forged !== 'F3') await waitUntil('it is asked for', () => server.requests.length > before);
    }
    messages['OWN'] = completed(OWN_REF);
    expect(await recovery).toMatchObject({ kind: 'recovered', message: { prompts: PROMPTS } });
    expect(server.requests.some((request) => request.endsWith('/F3'))).toBe(false);
  });
});
