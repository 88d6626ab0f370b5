import { text } from 'node:stream/consumers';
import { describe, expect, onTestFinished, test } from 'vitest';
import { judgePollFailure, judgeSubmitFailure } from '../../src/describe-api/attempt-policy.js';
import { DescribeClient, type DescribeClientOptions } from '../../src/describe-api/client.js';
import { readClaim } from '../../src/webhook/deliveries.js';
import { answering, serve } from './http-server.js';

const IMAGE = 'https://images.example/1.jpg';
const FOUR = ['one --ar 1:1', 'two', 'three', 'four'];
const NUMBERED = FOUR.map((prompt, index) => `${index + 1}️⃣ ${prompt}`).join('\n\n');

function clientFor(baseUrl: string, options: Partial<DescribeClientOptions> = {}): DescribeClient {
  const client = new DescribeClient({ baseUrl, dialect: 'mj', token: 'secret', ...options });
  onTestFinished(() => client.close());
  return client;
}

async function clientOf(status: number, body: unknown): Promise<DescribeClient> {
  const server = await serve(answering(status, body));
  return clientFor(server.url);
}

const free = { action: 'retry', code: 'http', maybePaid: false };
const rejected = { action: 'fail', code: 'rejected' };
const gateway = (code: number, description: string) => ({ description, type: 'upstream_error', code });

describe('a submit that is answered with', () => {
  test.each<[string, unknown]>([
    ['1', { code: 1, description: '提交成功', result: '1748599984985576', properties: {} }],
    [
      '1, of trueai',
      { code: 1, description: 'success', result: '1748599984985576', properties: { discordInstanceId: 'a' } },
    ],
    ['1 and a number', { code: 1, description: 'Submit success', result: 1748599984985576 }],
    [
      '21, it exists',
      { code: 21, description: '任务已存在', result: '1748599984985576', properties: { status: 'SUCCESS' } },
    ],
    [
      '22, queued',
      {
        code: 22,
        description: '排队中，前面还有1个任务',
        result: '1748599984985576',
        properties: { numberOfQueues: 1 },
      },
    ],
  ])('code %s is accepted', async (_title, body) => {
    const client = await clientOf(200, body);
    expect(await client.submit({ url: IMAGE })).toEqual({ messageId: '1748599984985576' });
  });

  test.each<[string, number, unknown, object]>([
    ['3 of novicezk', 200, { code: 3, description: '无可用的账号实例' }, { ...free, countsAsDown: true }],
    ['4 of novicezk', 200, { code: 4, description: 'base64不能为空' }, { ...rejected, mayBeSetUp: true }],
    ['9 of novicezk', 200, { code: 9, description: '系统异常' }, { ...free, countsAsDown: false }],
    [
      '23 of novicezk, with a result',
      200,
      { code: 23, description: '队列已满', result: '17' },
      { action: 'rateLimited' },
    ],
    [
      '24 of trueai',
      200,
      { code: 24, description: '可能包含敏感词', properties: { bannedWord: 'x' } },
      { ...rejected, mayBeSetUp: false },
    ],
    ['a code that nobody knows', 200, { code: -1, description: 'unknown' }, free],
    ['a code as a text', 200, { code: '24', description: 'banned' }, { ...rejected, mayBeSetUp: false }],
    ['4 of new-api', 400, gateway(4, 'bind_request_body_failed'), { ...rejected, mayBeSetUp: true }],
    [
      'a spent quota of new-api',
      400,
      gateway(4, 'quota_not_enough '),
      { action: 'suspect', why: 'quota', isSaid: true },
    ],
    ['30 of new-api', 429, gateway(30, '当前分组负载已饱和'), { action: 'rateLimited' }],
    ['30 of new-api in a 400', 400, gateway(30, 'busy'), { action: 'rateLimited' }],
    ['5 of new-api', 400, gateway(5, 'do_request_failed'), free],
    ['401 of new-api', 401, gateway(4, 'invalid token'), { action: 'stop', why: 'token' }],
    ['401 of trueai', 401, '', { action: 'stop', why: 'token' }],
    ['503 of new-api', 503, { error: { message: 'no channel' } }, { action: 'retry', maybePaid: true }],
    ['1 without a result', 200, { code: 1, description: 'ok' }, { code: 'bad-response', maybePaid: true }],
    [
      'a task that failed, without its id',
      200,
      { status: 'FAILURE', description: 'upstream error' },
      { code: 'bad-response', maybePaid: true },
    ],
    ['nothing', 200, '', { code: 'bad-response', maybePaid: true }],
    ['null', 200, 'null', { code: 'bad-response', maybePaid: true }],
  ])('%s is judged as what it is', async (_title, status, body, verdict) => {
    const error: unknown = await (
      await clientOf(status, body)
    )
      .submit({ url: IMAGE })
      .catch((reason: unknown) => reason);
    expect(judgeSubmitFailure(error)).toMatchObject(verdict);
  });

  test('a refusal gives its reason', async () => {
    const client = await clientOf(200, { code: 9, description: '系统异常' });
    await expect(client.submit({ url: IMAGE })).rejects.toThrow(/: 系统异常$/);
  });
});

describe('a task', () => {
  const task = { id: '17', action: 'DESCRIBE', prompt: '', promptEn: '', failReason: null, properties: {} };

  test.each(['NOT_START', 'SUBMITTED', 'IN_PROGRESS', 'MODAL', ''])(
    'that is "%s" is worked on',
    async (status) => {
      const client = await clientOf(200, { ...task, status, progress: '58%' });
      expect(await client.message('17')).toEqual({ status: 'working', progress: 58 });
      // Its notices lead to no poll.
      expect(readClaim(JSON.stringify({ ...task, status }))).toMatchObject({ isWorking: true });
    },
  );

  test.each(['FAILURE', 'CANCEL'])('that is %s has failed, for its reason', async (status) => {
    const client = await clientOf(200, { ...task, status, progress: '100%', failReason: 'upload failed' });
    expect(await client.message('17')).toEqual({ status: 'incomplete', reason: 'upload failed' });
  });

  test.each([
    ['properties.finalPrompt', { properties: { finalPrompt: NUMBERED }, promptEn: 'x', prompt: 'y' }],
    ['promptEn', { promptEn: NUMBERED, prompt: 'y' }],
    ['prompt, where properties are null', { properties: null, prompt: NUMBERED }],
    ['links of Markdown', { prompt: NUMBERED.replace('two', '[two](https://w.example/a_(b))') }],
  ])('has its prompts in %s', async (_title, fields) => {
    const client = await clientOf(200, { ...task, status: 'SUCCESS', progress: '100%', ...fields });
    expect(await client.message('17')).toMatchObject({ status: 'completed', prompts: FOUR });
  });

  test.each<[string, number, unknown]>([
    ['an empty 200 (novicezk)', 200, ''],
    ['null (trueai)', 200, 'null'],
    ['a 204', 204, ''],
    ['task_no_found (new-api)', 400, gateway(4, 'task_no_found ')],
    ['a 404', 404, ''],
  ])('that is not known, by %s, is not there yet', async (_title, status, body) => {
    const error: unknown = await (
      await clientOf(status, body)
    )
      .message('17')
      .catch((reason: unknown) => reason);
    // What is known to be gone is submitted again by a later run.
    expect(error).toMatchObject({ name: 'RejectedError', status: 404 });
    expect(judgePollFailure(error)).toMatchObject({ action: 'retry', countsAsDown: false });
  });
});

describe('what is sent', () => {
  test.each([
    ['', '/mj'],
    ['/', '/mj'],
    ['/mj', '/mj'],
    ['/mj/', '/mj'],
    ['/mj-fast', '/mj-fast/mj'],
    ['/mj-relax/mj', '/mj-relax/mj'],
    ['/mj-turbo/mj/submit/describe', '/mj-turbo/mj'],
    ['/api/v1', '/api/v1/mj'],
  ])('to a base URL that ends in "%s" goes below %s', async (base, root) => {
    const server = await serve(answering(200, { code: 1, result: 'a/b', status: 'SUBMITTED' }));
    const client = clientFor(server.url + base);
    await client.submit({ url: IMAGE });
    await client.message('a/b');
    expect(server.requests).toEqual([`POST ${root}/submit/describe`, `GET ${root}/task/a%2Fb/fetch`]);
  });

  /** A server that answers each call alike, and keeps the bodies. */
  async function serveAndKeep(answer: unknown) {
    const bodies: unknown[] = [];
    const server = await serve((request, response) => {
      void text(request).then((body) => {
        bodies.push(JSON.parse(body));
        answering(200, answer)(request, response);
      });
    });
    return { ...server, bodies };
  }

  test('for many tasks are their ids, and those that can be read come back', async () => {
    const tasks = [
      { id: 18, status: 'FAILURE', failReason: 'no' },
      { id: '17', status: 'SUBMITTED', progress: '0%' },
      { id: '19', status: 'SUCCESS', properties: {} },
      { status: 'SUCCESS' },
    ];
    const server = await serveAndKeep(tasks);
    const messages = await clientFor(`${server.url}/mj-fast`).messages(['17', '18', '19', '20']);
    expect(server.requests).toEqual(['POST /mj-fast/mj/task/list-by-condition']);
    expect(server.bodies).toEqual([{ ids: ['17', '18', '19', '20'] }]);
    expect(Object.fromEntries(messages)).toEqual({
      17: { status: 'working', progress: 0 },
      18: { status: 'incomplete', reason: 'no' },
    });
    const other = clientFor(server.url, { dialect: 'thenextleg' });
    await expect(other.messages(['17'])).rejects.toThrow('thenextleg has no lists of messages');
  });

  test('is a link or the image, with the hook', async () => {
    const server = await serveAndKeep({ code: 1, result: '17' });
    const client = clientFor(server.url);
    await client.submit({ url: IMAGE, webhookOverride: 'https://h.example/w', ref: 'r' });
    await client.submit({ url: 'data:image/png;base64,AAAA' });
    expect(server.bodies).toEqual([
      { link: IMAGE, botType: 'MID_JOURNEY', notifyHook: 'https://h.example/w' },
      { base64: 'data:image/png;base64,AAAA', botType: 'MID_JOURNEY' },
    ]);
  });
});
