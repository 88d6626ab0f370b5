import { readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';
import { z } from 'zod';
import type { RunEvent } from '../../src/run/run-options.js';
import { serve } from '../describe-api/http-server.js';
import { describeOnRedis } from '../helpers/queues.js';
import { RunFixture } from '../helpers/run-fixture.js';
import { manifestOf } from '../helpers/workspace.js';

const cases = z
  .array(z.object({ name: z.string(), status: z.number(), body: z.unknown() }))
  .parse(JSON.parse(readFileSync(new URL('../fixtures/model-answers.json', import.meta.url), 'utf8')));

const requestSchema = z.object({
  messages: z.tuple([
    z.object({ content: z.tuple([z.unknown(), z.object({ image_url: z.object({ url: z.string() }) })]) }),
  ]),
});

/** An openai server that gives the answer of a case where `spoils` says so, with another status if given, and four prompts else. */
async function serveCase(name: string, spoils: (url: string, nth: number) => boolean, as?: number) {
  const { status: given, body } = cases.find((one) => one.name === name) ?? { status: 0, body: '' };
  const status = as ?? given;
  const seen = new Map<string, number>();
  const paid = new Map<string, number>();
  const { url } = await serve((request, response) => {
    void text(request).then((json) => {
      const [message] = requestSchema.parse(JSON.parse(json)).messages;
      const image = message.content[1].image_url.url;
      const nth = (seen.get(image) ?? 0) + 1;
      seen.set(image, nth);
      const isSpoilt = spoils(image, nth);
      if (!isSpoilt) paid.set(image, (paid.get(image) ?? 0) + 1);
      const content = JSON.stringify(['a', 'b', 'c', 'd'].map((prompt) => `${prompt}, a red barn`));
      const good = { id: `c${nth}`, choices: [{ finish_reason: 'stop', message: { content } }] };
      const isPage = isSpoilt && typeof body === 'string';
      response.writeHead(isSpoilt ? status : 200, {
        'content-type': isPage ? 'text/html' : 'application/json',
      });
      response.end(isPage ? body : JSON.stringify(isSpoilt ? body : good));
    });
  });
  return { url, seen, paid };
}

describeOnRedis('what an API says instead of prompts', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);
  const openai = { dialect: 'openai', model: 'any' } as const;

  test.each<[string, string, RegExp]>([
    ['bad-key-as-400-list', 'token', /^the API refuses the token: 400 Bad Request: API key not valid\./],
    [
      'no-image-urls-400',
      'set-up',
      /^the API describes nothing: .*does --model see images.*: invalid image input$/,
    ],
    ['no-images-400', 'set-up', /^the API describes nothing: .*--model.*Model does not support images\./],
    ['no-images-500', 'set-up', /--mmproj.*: 500 .*image input is not supported/],
    ['no-images-vllm', 'set-up', /--model.*At most 0 image\(s\) may be provided in one request\.$/],
    ['wrong-endpoint-200', 'set-up', /are --api, .* right\?\): Unexpected endpoint or method/],
  ])(
    '%s stops the run after a few images; all of them remain, and the next run describes them',
    async (name, kind, words) => {
      let isMended = false;
      const api = await serveCase(name, () => !isMended);
      const manifest = await fixture.workspace.write('m.csv', manifestOf(30));
      const limits = { rate: { count: 20, perMs: 1000 }, maxInFlight: 10 };
      const { exitCode, stop, receipt } = await fixture.run({ manifest, api: api.url, limits, ...openai });
      expect([exitCode, stop?.kind]).toEqual([3, kind]);
      expect(stop?.reason).toMatch(words);
      expect(receipt).toMatchObject({ failed: 0, remaining: receipt.rows, maybePaidTwice: 0 });
      // Five decide; ten may be in flight then.
      expect(api.seen.size).toBeLessThanOrEqual(15);
      expect(await fixture.workspace.files()).not.toContain('out.failed.csv');
      isMended = true;
      const mended = await fixture.run({ manifest, api: api.url, ...openai });
      expect(mended.receipt).toMatchObject({ rows: 30, described: 30, submits: 30, maybePaidTwice: 0 });
      expect([...api.paid.values()]).toEqual(Array.from({ length: 30 }, () => 1));
    },
  );

  test.each(['timeout-while-downloading', 'capacity-498', 'overloaded-in-200', 'firewall-403-html'])(
    '%s passes: it is tried again, and nothing is rejected or counted as paid',
    async (name) => {
      const api = await serveCase(name, (_url, nth) => nth <= 2);
      const manifest = await fixture.workspace.write('m.csv', manifestOf(4));
      const { receipt } = await fixture.run({ manifest, api: api.url, ...openai });
      expect(receipt).toMatchObject({ described: 4, failed: 0, submits: 12, maybePaidTwice: 0 });
    },
  );

  test('a page with 200 is waited for like an API that is down, once it has described anything', async () => {
    // None yet, or it would be taken for a wrong set-up.
    let phase: 'before' | 'pages' | 'after' = 'before';
    const api = await serveCase('firewall-403-html', () => phase === 'pages', 200);
    const manifest = await fixture.workspace.write('m.csv', manifestOf(40));
    const limits = { rate: { count: 20, perMs: 1000 }, maxInFlight: 10 };
    const onEvent = (event: RunEvent) => {
      if (event.type !== 'progress') return;
      const { trouble, described, failed } = event.progress;
      if (phase === 'before' && described > 0) phase = 'pages';
      if (trouble !== undefined || failed > 0) phase = 'after';
    };
    const about = { limits, onEvent, timing: { tickMs: 50 }, ...openai };
    const { receipt } = await fixture.run({ manifest, api: api.url, ...about });
    expect(phase).toBe('after');
    expect(receipt).toMatchObject({ described: 40, failed: 0, remaining: 0 });
  });

  test('what passes too late is taken up by the same command', async () => {
    let isOver = false;
    const api = await serveCase('timeout-while-downloading', () => !isOver);
    const manifest = await fixture.workspace.write('m.csv', manifestOf(4));
    const first = await fixture.run({ manifest, api: api.url, attempts: 1, ...openai });
    expect([...first.failedByCode]).toEqual([['http', 4]]);
    isOver = true;
    const second = await fixture.run({ manifest, api: api.url, ...openai });
    expect(second.receipt).toMatchObject({ described: 4, failed: 0, submits: 4 });
  });

  test('moderation rejects its image alone, however many come first, until it is asked for again', async () => {
    let isStrict = true;
    const api = await serveCase('one-flagged-image-403', (url) => isStrict && /\/[1-6]\.jpg$/.test(url));
    const manifest = await fixture.workspace.write('m.csv', manifestOf(8));
    const first = await fixture.run({ manifest, api: api.url, ...openai });
    expect(first.stop).toBeUndefined();
    expect([...first.failedByCode]).toEqual([['rejected', 6]]);
    expect(first.receipt).toMatchObject({ described: 2, submits: 8 });
    isStrict = false;
    const same = await fixture.run({ manifest, api: api.url, ...openai });
    expect(same.receipt).toMatchObject({ failed: 6, submits: 0 });
    const again = await fixture.run({ manifest, api: api.url, retryAll: true, ...openai });
    expect(again.receipt).toMatchObject({ described: 6, failed: 0, submits: 6 });
  });
});
