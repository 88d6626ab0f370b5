import type { IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { serve } from '../describe-api/http-server.js';
import { SharedQueue } from './api-fixture.js';

const sharedQueue = SharedQueue.forFile();
const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==',
  'base64',
);
const submitSchema = z.object({ link: z.string().optional(), base64: z.string().optional() });

/** A proxy that keeps its tasks in memory, as novicezk's does, and an image beside it. */
async function startProxy(options: { takesLinks: boolean }) {
  const tasks = new Map<string, number>();
  const submits: z.infer<typeof submitSchema>[] = [];
  const proxy = { url: '', tasks, submits, isQuick: true };
  const answer = async (request: IncomingMessage): Promise<unknown> => {
    if (request.method !== 'POST') {
      const id = request.url?.split('/').at(-2) ?? '';
      const polls = tasks.get(id);
      if (polls === undefined) return undefined;
      tasks.set(id, polls + 1);
      if (!proxy.isQuick) return { id, status: 'IN_PROGRESS', progress: `${Math.min(99, polls)}%` };
      return { id, status: 'SUCCESS', properties: { finalPrompt: '1️⃣ a\n2️⃣ b\n3️⃣ c\n4️⃣ d' } };
    }
    const submit = submitSchema.parse(JSON.parse(await text(request)));
    submits.push(submit);
    if (submit.base64 === undefined && !options.takesLinks) return { code: 4, description: 'base64不能为空' };
    const id = String(1_748_599_984_985_000 + submits.length);
    tasks.set(id, 0);
    return { code: submits.length % 2 === 0 ? 22 : 1, description: 'ok', result: id, properties: {} };
  };
  const server = await serve((request, response) => {
    if (request.url === '/image.png') {
      response.end(PNG);
      return;
    }
    void answer(request).then((body) => response.end(body === undefined ? '' : JSON.stringify(body)));
  });
  proxy.url = server.url;
  return proxy;
}

describe('a proxy of Midjourney', () => {
  test('that forgets its tasks when it restarts is paid once more for each, by the next run', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const proxy = await startProxy({ takesLinks: true });
    const manifest = await fixture.manifest(['https://i.example/1.jpg', 'https://i.example/2.jpg']);
    const options = { manifest, api: proxy.url, dialect: 'mj', images: { send: 'url' } } as const;
    proxy.isQuick = false;
    const running = fixture.run({ ...options, deadlineMs: 1500, attempts: 1 });
    const polled = () => [...proxy.tasks.values()].filter((polls) => polls > 0).length;
    await expect.poll(polled, { timeout: 20_000 }).toBe(2);
    proxy.tasks.clear();
    const first = await running;
    expect([...first.failedByCode]).toEqual([['deadline', 2]]);
    expect(first.receipt).toMatchObject({ submits: 2 });
    proxy.isQuick = true;
    const again = await fixture.run(options);
    expect(again.receipt).toMatchObject({ described: 2, failed: 0, submits: 2 });
    expect(proxy.submits).toHaveLength(4);
    expect((await fixture.run(options)).receipt).toMatchObject({ resumed: 2, submits: 0 });
  });

  test('that takes no links is sent the image itself, and nothing is paid twice', async (test) => {
    const fixture = await sharedQueue.fixture(test);
    const proxy = await startProxy({ takesLinks: false });
    const manifest = await fixture.manifest([`${proxy.url}/image.png`]);
    const run = await fixture.run({
      manifest,
      api: proxy.url,
      dialect: 'mj',
      images: { allowPrivate: true },
    });
    expect(run.receipt).toMatchObject({ described: 1 });
    expect(proxy.submits.map(({ base64 = '' }) => base64.slice(0, 11))).toEqual(['', 'data:image/']);
    expect(proxy.tasks.size).toBe(1);
  });
});
