import { describe, expect, onTestFinished, test } from 'vitest';
import { DescribeClient } from '../../src/describe-api/client.js';
import { readPrompts } from '../../src/describe-api/dialects/polled.js';
import { makePrompts, hashUrl } from '../../src/simulator/messages.js';
import { aNumber, aText, call, post, simulate, submit } from './api.js';

const IMAGE = 'https://images.example/1.jpg';

function clientFor(baseUrl: string, submitMethod: 'post' | 'get' = 'post'): DescribeClient {
  const client = new DescribeClient({ baseUrl, token: 'secret', submitMethod });
  onTestFinished(() => client.close());
  return client;
}

describe('a submit', () => {
  test('is answered with success, a message id and its time', async () => {
    const simulator = await simulate();
    const { status, body } = await post(`${simulator.url}/describe`, { url: IMAGE });
    expect({ status, body }).toEqual({
      status: 200,
      body: {
        success: true,
        messageId: aText(/^sim-/),
        createdAt: aText(/Z$/),
      },
    });
  });

  test('can be a GET with everything in the query', async () => {
    const simulator = await simulate({ token: 'secret' });
    const query = new URLSearchParams({ authToken: 'secret', url: IMAGE, ref: 'r1' }).toString();
    expect((await call(`${simulator.url}/describe?${query}`)).body).toMatchObject({ success: true });
    expect(simulator.stats()).toMatchObject({ paid: 1, requests: { posts: 0, gets: 1, polls: 0 } });
  });

  test.each<[string, unknown]>([
    ['no url', {}],
    ['a url that is none', { url: 'image.png' }],
    ['a url that is not http(s)', { url: 'file:///etc/passwd' }],
    ['a ref that is no text', { url: IMAGE, ref: 5 }],
    ['a webhook that is no URL', { url: IMAGE, webhookOverride: 'x' }],
    ['a body that is no object', 'hello'],
  ])('with %s is refused with 400 and not paid', async (_title, body) => {
    const simulator = await simulate();
    const answer = await post(`${simulator.url}/describe`, body);
    expect(answer).toMatchObject({
      status: 400,
      body: { success: false, msg: aText(/Invalid/) },
    });
    expect(simulator.stats().paid).toBe(0);
  });

  test('that is no JSON is refused in the same form', async () => {
    const simulator = await simulate();
    const headers = { 'content-type': 'application/json' };
    const answer = await call(`${simulator.url}/describe`, { method: 'POST', headers, body: '{"url' });
    expect(answer).toMatchObject({ status: 400, body: { success: false } });
  });

  test('as HEAD is not taken for a GET, and not paid', async () => {
    const simulator = await simulate();
    const response = await fetch(`${simulator.url}/describe?url=${IMAGE}`, { method: 'HEAD' });
    expect(response.status).toBe(404);
    expect(simulator.stats().paid).toBe(0);
  });
});

describe('a token', () => {
  test('that is wrong or missing gets 401 on every call', async () => {
    const simulator = await simulate({ token: 'secret' });
    const wrong = { authorization: 'Bearer other' };
    expect((await post(`${simulator.url}/describe`, { url: IMAGE }, wrong)).status).toBe(401);
    expect((await post(`${simulator.url}/describe`, { url: IMAGE })).status).toBe(401);
    expect((await call(`${simulator.url}/describe?authToken=x&url=${IMAGE}`)).status).toBe(401);
    expect((await call(`${simulator.url}/message/sim-x`)).body).toMatchObject({ success: false });
    expect(simulator.stats()).toMatchObject({ paid: 0, answered401: 4 });
    const right = { authorization: 'Bearer secret' };
    expect((await post(`${simulator.url}/describe`, { url: IMAGE }, right)).status).toBe(200);
  });
});

describe('a message', () => {
  test('works, with rising progress, until its latency is over', async () => {
    const simulator = await simulate({ latencyMs: 2000 });
    const client = clientFor(simulator.url);
    const { messageId } = await client.submit({ url: IMAGE });
    const seen: number[] = [];
    await expect
      .poll(
        async () => {
          const message = await client.message(messageId);
          if (message.status === 'working') seen.push(message.progress);
          return message.status;
        },
        { timeout: 30_000 },
      )
      .toBe('completed');
    expect(seen.length).toBeGreaterThan(2);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(Math.max(...seen)).toBeLessThan(100);
  });

  test('of the same image always has the same prompts, of another one others', async () => {
    const client = clientFor((await simulate()).url);
    const promptsOf = async (url: string) => {
      const { messageId } = await client.submit({ url });
      const message = await client.message(messageId);
      return message.status === 'completed' ? message.prompts : undefined;
    };
    const first = await promptsOf(IMAGE);
    expect(first).toBeDefined();
    expect(await promptsOf(IMAGE)).toEqual(first);
    expect(await promptsOf(`${IMAGE}?2`)).not.toEqual(first);
  });

  test.each(['post', 'get'] as const)('submitted by %s is what the client reads', async (submitMethod) => {
    const client = clientFor((await simulate()).url, submitMethod);
    for (let i = 0; i < 10; i++) {
      const { messageId } = await client.submit({ url: `${IMAGE}?${i}`, ref: `réf ${i}` });
      expect(await client.message(messageId)).toMatchObject({
        status: 'completed',
        prompts: readPrompts(makePrompts(hashUrl(`${IMAGE}?${i}`))),
        ref: `réf ${i}`,
      });
    }
  });

  test('is answered by another simulator with other options, as after a restart', async () => {
    const first = await simulate({ latencyMs: 60_000 });
    const quick = await simulate();
    const working = await submit(first, IMAGE);
    const done = await submit(quick, IMAGE, { ref: 'r' });
    await first.close();
    await quick.close();
    const second = await simulate({ latencyMs: 5 });
    expect((await call(`${second.url}/message/${working}`)).body).toMatchObject({
      progress: aNumber,
    });
    expect((await call(`${second.url}/message/${done}`)).body).toMatchObject({ progress: 100, ref: 'r' });
  });

  test.each(['unknown', 'sim-', 'sim-1-2-c-xyz-1', 'sim-1-2-q-0123456789abcdef-1'])(
    'with an id that no simulator gave (%s) is 404',
    async (id) => {
      const simulator = await simulate();
      const answer = await call(`${simulator.url}/message/${id}`);
      expect(answer).toMatchObject({ status: 404, body: { success: false } });
    },
  );

  test('that is not completed after expireMins is incomplete', async () => {
    const simulator = await simulate({ latencyMs: 60_000 });
    const id = await submit(simulator, IMAGE);
    const tenMillis = 10 / 60_000;
    await expect
      .poll(async () => (await call(`${simulator.url}/message/${id}?expireMins=${tenMillis}`)).body)
      .toEqual({ progress: 'incomplete' });
    expect((await call(`${simulator.url}/message/${id}`)).body).toMatchObject({ progress: 0 });
  });
});

test('prompts have what real ones have: four keycaps, ratios, commas, quotes, other letters, line breaks', () => {
  const all = Array.from({ length: 200 }, (_, i) => makePrompts(hashUrl(`${IMAGE}?${i}`))).flat();
  const with_ = (pattern: RegExp): number => all.filter((prompt) => pattern.test(prompt)).length;
  expect(with_(/^[1-4]\uFE0F\u20E3 [^]* --ar \d+:\d+$/u)).toBe(800);
  for (const pattern of [/,/, /"/, /\n/, /[À-ɏ]/, /[一-龯]/]) expect(with_(pattern)).toBeGreaterThan(10);
  expect(with_(/\n/)).toBeLessThan(200);
});
