import { expect, test } from 'vitest';
import { z } from 'zod';
import { type MessageFacts, formatMessageId, makePrompts } from '../../src/simulator/messages.js';
import { hashUrl, seededRandom } from '../../src/simulator/random.js';
import { type KnownSubmit, forgeDelivery, planDelivery } from '../../src/simulator/webhooks.js';
import type { DeliveryFault } from '../../src/simulator/options.js';
import type { Simulator } from '../../src/simulator/simulator.js';
import { serve } from '../describe-api/http-server.js';
import { call, post, simulate, submit } from './api.js';

const IMAGE = 'https://images.example/1.jpg';
const KINDS: readonly DeliveryFault[] = ['lost', 'late', 'early', 'doubled'];

test.each<[DeliveryFault, number, [number, number][]]>([
  ['lost', 1000, []],
  ['late', 1000, [[2000, 3000]]],
  ['late', 60_000, [[120_000, 180_000]]],
  ['late', 0, [[1000, 2000]]],
  ['early', 1000, [[0, 900]]],
  [
    'doubled',
    1000,
    [
      [1000, 1000],
      [1000, 2000],
    ],
  ],
])('a delivery that is %s, of a message of %d ms, is sent within %j', (fault, latencyMs, windows) => {
  const random = seededRandom(7);
  for (let i = 0; i < 100; i++) {
    const plan = planDelivery(latencyMs, { [fault]: 1 }, random);
    expect(plan).toMatchObject({ fault, sendAtMs: { length: windows.length } });
    windows.forEach(([from, to], index) => {
      expect(plan.sendAtMs[index]).toBeGreaterThanOrEqual(from);
      expect(plan.sendAtMs[index]).toBeLessThanOrEqual(to);
    });
  }
});

test('each share is kept, the rest comes when it is due, and the same seed plans the same', () => {
  const shares = { lost: 0.1, late: 0.2, early: 0.1, doubled: 0.2 };
  const play = (seed: number) => {
    const random = seededRandom(seed);
    return Array.from({ length: 2000 }, () => planDelivery(1000, shares, random));
  };
  const plans = play(1);
  for (const kind of KINDS)
    expect(plans.filter(({ fault }) => fault === kind).length / 2000).toBeCloseTo(shares[kind], 1);
  const inTime = plans.filter(({ fault }) => fault === undefined);
  expect(inTime.length / 2000).toBeCloseTo(0.4, 1);
  expect(new Set(inTime.map(({ sendAtMs }) => JSON.stringify(sendAtMs)))).toEqual(new Set(['[1000]']));
  expect(play(1)).toEqual(plans);
  expect(play(2)).not.toEqual(plans);
});

test('forgeries name known and unknown messages and refs, with made-up prompts or those of another image', () => {
  const known = [0, 1, 2].map((n): KnownSubmit => {
    const facts: MessageFacts = {
      submittedAt: 1_700_000_000_000,
      latencyMs: 100,
      fate: 'completes',
      urlHash: hashUrl(`${IMAGE}?${n}`),
      nonce: `n${n}`,
      ref: `ref-${n}`,
    };
    return {
      url: `http://hooks.test/secret/ref-${n}`,
      facts,
      deliveredFor: (of) => ({
        originatingMessageId: formatMessageId(of),
        ref: of.ref,
        content: makePrompts(of.urlHash),
      }),
    };
  });
  const [first, ...others] = known;
  if (first === undefined) throw new Error('there are three');
  const ids = new Map(known.map(({ facts }) => [formatMessageId(facts), facts]));
  const random = seededRandom(3);
  const said = new Set<string>();
  for (let i = 0; i < 500; i++) {
    const { url, body } = forgeDelivery([first, ...others], random);
    const path = new URL(url).pathname;
    said.add(`at ${known.some((one) => one.url === url) ? 'a webhook' : path.replace(/[0-9a-f]{16}/, 'x')}`);
    if (!body.endsWith('}')) {
      said.add('no JSON');
      continue;
    }
    const { originatingMessageId, ref, content } = z
      .object({ originatingMessageId: z.string(), ref: z.string(), content: z.array(z.string()).length(4) })
      .parse(JSON.parse(body));
    const facts = ids.get(originatingMessageId);
    said.add(`${facts ? 'known' : 'unknown'} message`);
    said.add(`${ref === '' ? 'no' : facts?.ref === ref ? 'its' : 'unknown'} ref`);
    const isOwn = facts !== undefined && makePrompts(facts.urlHash).join() === content.join();
    said.add(isOwn ? 'the message of another image' : 'prompts of no message');
  }
  expect([...said].sort()).toEqual([
    'at /secret',
    'at /secret/x',
    'at a webhook',
    'its ref',
    'known message',
    'no JSON',
    'no ref',
    'prompts of no message',
    'the message of another image',
    'unknown message',
    'unknown ref',
  ]);
});

/** A webhook, and what came to it: when, where, and which message it was about. */
async function receive() {
  const came: { at: number; path: string; body: string }[] = [];
  const receiver = await serve((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      came.push({ at: performance.now(), path: request.url ?? '', body });
      response.end();
    });
  });
  return { came, url: `${receiver.url}/secret` };
}

async function statusOf(simulator: Simulator, messageId: string): Promise<unknown> {
  return (await call(`${simulator.url}/message/${messageId}`)).body['progress'];
}

test('a delivery that is early says that the message is completed while it is not', async () => {
  const { came, url } = await receive();
  const simulator = await simulate({ latencyMs: 60_000, webhooks: { early: 1 } });
  // Of many, the earliest is there at once.
  const ids = await Promise.all(
    Array.from({ length: 200 }, (_, i) =>
      submit(simulator, `${IMAGE}?${i}`, { webhookOverride: `${url}/${i}` }),
    ),
  );
  await expect.poll(() => came.length, { timeout: 10_000 }).toBeGreaterThan(0);
  const body = z
    .object({ originatingMessageId: z.string(), content: z.array(z.string()).length(4) })
    .parse(JSON.parse(came[0]?.body ?? ''));
  expect(ids).toContain(body.originatingMessageId);
  expect(await statusOf(simulator, body.originatingMessageId)).toBeLessThan(100);
  expect(simulator.stats().webhookFaults).toEqual({ early: 200 });
});

test('a delivery that is late comes a second and more after the message was completed', async () => {
  const { came, url } = await receive();
  const simulator = await simulate({ webhooks: { late: 1 } });
  const startedAt = performance.now();
  const id = await submit(simulator, IMAGE, { webhookOverride: url });
  expect(await statusOf(simulator, id)).toBe(100);
  await expect.poll(() => came.length, { timeout: 5000 }).toBe(1);
  expect((came[0]?.at ?? 0) - startedAt).toBeGreaterThan(990);
});

test('a delivery that is doubled comes twice, one that is lost never', async () => {
  const { came, url } = await receive();
  const simulator = await simulate({ webhooks: { lost: 1 } });
  await submit(simulator, IMAGE, { webhookOverride: `${url}/lost` });
  simulator.setOptions({ webhooks: { doubled: 1 } });
  await submit(simulator, IMAGE, { webhookOverride: `${url}/doubled` });
  await expect.poll(() => simulator.stats().webhooksSent, { timeout: 5000 }).toBe(2);
  expect(came.map(({ path }) => path)).toEqual(['/secret/doubled', '/secret/doubled']);
  expect(came[0]?.body).toBe(came[1]?.body);
  expect(simulator.stats().webhookFaults).toEqual({ lost: 1, doubled: 1 });
});

test.each(['thenextleg', 'imaginepro', 'legnext'])(
  'forged deliveries (%s) come at their rate from the first submit on, until they are turned off',
  async (dialect) => {
    const { came, url } = await receive();
    const simulator = await simulate({
      latencyMs: 60_000,
      webhooks: { forged: { count: 100, perMs: 1000 } },
    });
    const paths: Readonly<Record<string, string>> = {
      thenextleg: '/v2/describe',
      imaginepro: '/api/v1/midjourney/describe',
      legnext: '/api/v1/describe',
    };
    const origin = new URL(simulator.url).origin;
    const fields = { url: IMAGE, imgUrl: IMAGE, webhookOverride: `${url}/r`, callback: `${url}/r` };
    await post(`${origin}${paths[dialect] ?? ''}`, fields);
    const startedAt = performance.now();
    await expect.poll(() => came.length, { timeout: 10_000 }).toBeGreaterThanOrEqual(30);
    // A machine that does other things makes them fewer, never more.
    expect(came.length / ((performance.now() - startedAt) / 1000)).toBeLessThan(150);
    simulator.setOptions({ webhooks: {} });
    expect(simulator.stats().webhookFaults.forged).toBeGreaterThanOrEqual(30);
    expect(simulator.stats()).toMatchObject({ webhooksSent: 0, webhooksFailed: 0 });
  },
);

test('POST /options sets what goes wrong with deliveries, and refuses what cannot', async () => {
  const simulator = await simulate();
  const options = `http://127.0.0.1:${simulator.port}/options`;
  expect((await post(options, { webhooks: { lost: 1 } })).status).toBe(200);
  await submit(simulator, IMAGE, { webhookOverride: 'http://127.0.0.1:9/' });
  expect(simulator.stats().webhookFaults).toEqual({ lost: 1 });
  for (const webhooks of [{ lost: 2 }, { forged: 200 }, { misplaced: 1 }])
    expect((await post(options, { webhooks })).status).toBe(400);
});

test('what goes wrong with deliveries changes nothing else for the same seed', async () => {
  const play = async (webhooks: Partial<Record<DeliveryFault, number>>) => {
    const simulator = await simulate({ latencyMs: 60_000, latencySpread: 0.3, webhooks });
    const latencies: string[] = [];
    for (let i = 0; i < 20; i++) {
      const id = await submit(simulator, `${IMAGE}?${i}`, { webhookOverride: 'http://127.0.0.1:9/' });
      latencies.push(id.split('-')[2] ?? '');
    }
    return latencies;
  };
  expect(await play({ lost: 0.5, late: 0.2 })).toEqual(await play({}));
});
