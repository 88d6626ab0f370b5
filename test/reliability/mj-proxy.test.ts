import { type IncomingMessage, type ServerResponse, request as call } from 'node:http';
import { text } from 'node:stream/consumers';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { accountOf } from '../../src/run/api-options.js';
import { describeQueueName } from '../../src/shared/account.js';
import { silentLogger } from '../../src/shared/log.js';
import { sleep } from '../../src/shared/waiting.js';
import { startAccountReceiver } from '../../src/webhook/receiver.js';
import { serve } from '../describe-api/http-server.js';
import { freePort } from '../helpers/redis.js';
import { SharedQueue } from './api-fixture.js';

const sharedQueue = SharedQueue.forFile();
const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==',
  'base64',
);
const FOUR = '1️⃣ a --ar 1:1\n\n2️⃣ [b](https://w.example/b_(c)) d\n\n3️⃣ c\n\n4️⃣ d';

/** An answer: its status and body. */
type Answer = readonly [status: number, body: unknown];

/** How one of the proxies behaves. */
interface Family {
  readonly root: string;
  /** What is behind the address in `--api`. */
  readonly base: string;
  readonly authHeader?: string;
  readonly auth: readonly [header: string, value: string];
  readonly takes: 'link' | 'base64';
  readonly hasList: boolean;
  readonly unknownTask: Answer;
  /** What a submit is answered with that is not taken. */
  readonly refusals: readonly Answer[];
  readonly described: object;
}

const proxyRefusals: readonly Answer[] = [
  [200, { code: 23, description: '队列已满，请稍后尝试', result: '17', properties: {} }],
  [200, { code: 3, description: '无可用的账号实例' }],
  [200, { code: 9, description: '系统异常' }],
  [200, { code: 24, description: '可能包含敏感词', properties: { bannedWord: 'x' } }],
];
const gateway = (code: number, description: string) => ({ description, type: 'upstream_error', code });

const NOVICEZK: Family = {
  root: '/mj',
  base: '/mj',
  authHeader: 'mj-api-secret',
  auth: ['mj-api-secret', 'any'],
  takes: 'base64',
  hasList: true,
  unknownTask: [200, ''],
  refusals: proxyRefusals,
  described: { properties: { finalPrompt: FOUR }, promptEn: 'x', prompt: 'y' },
};
const TRUEAI: Family = {
  ...{ ...NOVICEZK, base: '', authHeader: 'Authorization', auth: ['authorization', 'any'] },
  takes: 'link',
  unknownTask: [200, 'null'],
  described: { properties: {}, promptEn: FOUR, prompt: 'y' },
};
const RESELLER: Family = {
  root: '/mj-fast/mj',
  base: '/mj-fast',
  auth: ['authorization', 'Bearer any'],
  takes: 'link',
  hasList: false,
  unknownTask: [400, gateway(4, 'task_no_found ')],
  refusals: [
    [429, gateway(30, '当前分组负载已饱和')],
    [400, gateway(5, 'do_request_failed')],
    [503, { error: { message: 'no channel is free', type: 'new_api_error' } }],
    [200, { code: 24, description: 'banned', properties: {} }],
  ],
  described: { properties: null, promptEn: '', prompt: FOUR },
};
const FAMILIES: readonly (readonly [string, Family])[] = [
  ['novicezk', NOVICEZK],
  ['trueai', TRUEAI],
  ['a reseller', RESELLER],
];

const submitSchema = z.object({
  link: z.string().optional(),
  base64: z.string().optional(),
  notifyHook: z.string().optional(),
});
const listSchema = z.object({ ids: z.array(z.string()) });
const WORKING = ['NOT_START', 'SUBMITTED', 'IN_PROGRESS', 'MODAL', ''];

/** A proxy that keeps its tasks in memory, and an image beside it. */
async function startProxy(family: Family) {
  const tasks = new Map<string, { polls: number }>();
  const submits: z.infer<typeof submitSchema>[] = [];
  const proxy = {
    ...{ api: '', origin: '', tasks, submits, lists: 0, fetches: 0 },
    /** How often a task is still worked on when it is asked for. */
    worksFor: 0,
    refusals: [] as Answer[],
    onTask: undefined as ((id: string, hook: string) => void) | undefined,
    taskNow: (id: string): object => {
      const { polls = 0 } = tasks.get(id) ?? {};
      const isDone = polls > proxy.worksFor;
      if (!isDone) return { id, status: WORKING[polls % WORKING.length], progress: '5%', properties: null };
      return { id, status: 'SUCCESS', progress: '100%', ...family.described };
    },
  };
  const pollOf = (id: string): object | undefined => {
    const task = tasks.get(id);
    if (task === undefined) return undefined;
    task.polls++;
    return proxy.taskNow(id);
  };
  const submitted = (submit: z.infer<typeof submitSchema>): Answer => {
    submits.push(submit);
    if (submit[family.takes] === undefined) return [200, { code: 4, description: 'base64不能为空' }];
    const refusal = proxy.refusals.shift();
    if (refusal !== undefined) return refusal;
    const id = String(1_748_599_984_985_000 + submits.length);
    tasks.set(id, { polls: 0 });
    proxy.onTask?.(id, submit.notifyHook ?? '');
    // Each of the codes that say that it is taken.
    return [200, { code: [1, 21, 22][submits.length % 3], description: 'ok', result: id, properties: {} }];
  };
  const answer = async (request: IncomingMessage): Promise<Answer> => {
    const { method = '', url = '', headers } = request;
    if (headers[family.auth[0]] !== family.auth[1]) return [401, ''];
    const body: unknown = method === 'POST' ? JSON.parse(await text(request)) : undefined;
    if (url === `${family.root}/submit/describe`) return submitted(submitSchema.parse(body));
    if (url === `${family.root}/task/list-by-condition`) {
      proxy.lists++;
      if (!family.hasList) return [404, { error: { message: `Invalid URL (POST ${url})` } }];
      // In whatever order; what it does not know is left out.
      const { ids } = listSchema.parse(body);
      return [200, ids.flatMap((id) => pollOf(id) ?? []).reverse()];
    }
    proxy.fetches++;
    const task = pollOf(url.split('/').at(-2) ?? '');
    return task === undefined ? family.unknownTask : [200, task];
  };
  const send = (response: ServerResponse, [status, body]: Answer) =>
    response.writeHead(status).end(typeof body === 'string' ? body : JSON.stringify(body));
  const server = await serve((request, response) => {
    if (request.url?.startsWith('/image') === true) response.end(PNG);
    else void answer(request).then((answered) => send(response, answered));
  });
  proxy.origin = server.url;
  proxy.api = server.url + family.base;
  return proxy;
}

function optionsFor(family: Family, api: string) {
  const send = family.takes === 'base64' ? 'data' : 'url';
  return { api, dialect: 'mj', authHeader: family.authHeader, images: { send, allowPrivate: true } } as const;
}

const imagesOf = (origin: string, count: number) =>
  Array.from({ length: count }, (_, index) => `${origin}/image-${index}.png`);

describe.each(FAMILIES)('a proxy as %s', (_name, family) => {
  test('is submitted to until it takes each image, whatever it says meanwhile, and is paid once for each', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const proxy = await startProxy(family);
    proxy.refusals.push(...family.refusals);
    proxy.worksFor = WORKING.length;
    const manifest = await fixture.manifest(imagesOf(proxy.origin, 8));
    const rate = { count: 100, perMs: 1000 };
    const limits = { rate, pollRate: { count: 20, perMs: 1000 }, maxInFlight: 8 };
    const run = await fixture.run({ ...optionsFor(family, proxy.api), manifest, limits });
    expect([...run.failedByCode]).toEqual([['rejected', 1]]);
    expect(run.receipt).toMatchObject({ described: 7, submits: 11, polls: proxy.lists + proxy.fetches });
    expect(proxy.tasks.size).toBe(7);
    // A server without the call is asked for it once.
    if (family.hasList) expect(proxy.lists).toBeGreaterThan(1);
    else expect(proxy.lists).toBe(1);
    const rows = await fixture.workspace.records('out.csv');
    expect(new Set(rows.map((row) => row['prompt_2']))).toEqual(new Set(['b d']));
  });

  test('that forgets its tasks when it restarts is paid once more for each, by the next run', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const proxy = await startProxy(family);
    const manifest = await fixture.manifest(imagesOf(proxy.origin, 2));
    const options = { ...optionsFor(family, proxy.api), manifest };
    proxy.worksFor = Infinity;
    const running = fixture.run({ ...options, deadlineMs: 1500, attempts: 1 });
    const polled = () => [...proxy.tasks.values()].filter(({ polls }) => polls > 0).length;
    await expect.poll(polled, { timeout: 20_000 }).toBe(2);
    proxy.tasks.clear();
    const first = await running;
    expect([...first.failedByCode]).toEqual([['deadline', 2]]);
    expect(first.receipt).toMatchObject({ submits: 2 });
    proxy.worksFor = 0;
    const again = await fixture.run(options);
    expect(again.receipt).toMatchObject({ described: 2, failed: 0, submits: 2 });
    expect(proxy.submits).toHaveLength(4);
    expect((await fixture.run(options)).receipt).toMatchObject({ resumed: 2, submits: 0 });
  });
});

/** Posts a notice, as a proxy does at each change of a task. */
async function notify(hook: string, task: object): Promise<void> {
  await new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json' };
    const sent = call(hook, { method: 'POST', headers }, (response) => response.resume().on('end', resolve));
    sent.on('error', reject).end(JSON.stringify(task));
  });
}

test('of all notices of a task only those that say that it is done lead to a poll', async (test) => {
  const fixture = await sharedQueue.fixture(test);
  const proxy = await startProxy(TRUEAI);
  const working = (id: string, status: string) => ({ id, action: 'DESCRIBE', status, progress: '5%' });
  const notices: Promise<unknown>[] = [];
  const tell = async (id: string, hook: string) => {
    // Out of order, too early, and doubled.
    const done = { ...working(id, 'SUCCESS'), ...TRUEAI.described };
    for (const status of ['SUBMITTED', 'NOT_START', 'IN_PROGRESS', 'MODAL'])
      await notify(hook, working(id, status));
    await notify(hook, done);
    await expect.poll(() => proxy.tasks.get(id)?.polls, { timeout: 20_000 }).toBe(1);
    for (const task of [working(id, 'IN_PROGRESS'), done, done, working(id, 'IN_PROGRESS')])
      await notify(hook, task);
  };
  proxy.worksFor = 1;
  proxy.onTask = (id, hook) => void notices.push(sleep(50).then(() => tell(id, hook)));
  const port = await freePort();
  const manifest = await fixture.manifest(imagesOf(proxy.origin, 6));
  const options = optionsFor(TRUEAI, proxy.api);
  const run = await fixture.run({
    ...options,
    manifest,
    webhooks: { url: `http://127.0.0.1:${port}/hook` },
    companions: [
      async ({ store }) => {
        const receiver = await startAccountReceiver({
          store,
          queueName: describeQueueName(accountOf(options)),
          secret: undefined,
          listen: { host: '127.0.0.1', port },
          logger: silentLogger(),
        });
        return async () => {
          await Promise.all(notices);
          await receiver.close();
        };
      },
    ],
  });
  expect(run.receipt).toMatchObject({ described: 6, submits: 6, polls: proxy.lists + proxy.fetches });
  expect([...proxy.tasks.values()].map(({ polls }) => polls)).toEqual([2, 2, 2, 2, 2, 2]);
});

test('a proxy that takes no links is sent the image itself, and nothing is paid twice', async (test) => {
  const fixture = await sharedQueue.fixture(test);
  const proxy = await startProxy(NOVICEZK);
  const manifest = await fixture.manifest(imagesOf(proxy.origin, 1));
  const options = { ...optionsFor(NOVICEZK, proxy.api), images: { allowPrivate: true } };
  const run = await fixture.run({ ...options, manifest });
  expect(run.receipt).toMatchObject({ described: 1 });
  expect(proxy.submits.map(({ base64 = '' }) => base64.slice(0, 11))).toEqual(['', 'data:image/']);
  expect(proxy.tasks.size).toBe(1);
});
