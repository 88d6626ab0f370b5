import type { RequestListener } from 'node:http';
import { inspect } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import { DescribeClient } from '../../src/describe-api/client.js';
import { excerptOf } from '../../src/describe-api/errors.js';
import { redactorOf } from '../../src/describe-api/errors.js';
import { answering, serve } from './http-server.js';

const TOKEN = 'tok/en+with"odd&characters';
const FORMS = [TOKEN, encodeURIComponent(TOKEN), 'with%22odd', 'with\\"odd', 'odd&char'];

/** A server that gives away what it was sent. */
const echo =
  (status: number, wrap: (text: string) => unknown): RequestListener =>
  (request, response) => {
    const sent = `${request.url ?? ''} ${request.headers.authorization ?? ''}`;
    answering(status, wrap(`${'x'.repeat(80)} ${sent} ${decodeURIComponent(sent)}`))(request, response);
  };

/** Answers with bytes that are no HTTP, the token among them. */
const garbage: RequestListener = (request) => {
  request.socket.end(`HTTP/1.1 200 ${request.headers.authorization ?? ''}\r\n${request.url ?? ''}\r\n\r\n`);
};

describe.each(['post', 'get'] as const)('with submits by %s', (submitMethod) => {
  test.each<[string, RequestListener]>([
    ['a refusal that echoes it', echo(400, (msg) => ({ success: false, msg }))],
    ['a 500 that echoes it', echo(500, (error) => ({ error }))],
    ['HTML that echoes it', echo(200, (text) => `<html>${text}</html>`)],
    ['JSON of the wrong shape that echoes it', echo(200, (text) => ({ text, deep: { text } }))],
    ['no HTTP at all', garbage],
    ['a reset', (request) => request.socket.resetAndDestroy()],
    ['a timeout', () => undefined],
  ])('the token is in no part of an error: %s', async (_title, listener) => {
    const server = await serve(listener);
    const client = new DescribeClient({ baseUrl: server.url, token: TOKEN, submitMethod, timeoutMs: 300 });
    onTestFinished(() => client.close());
    const calls = await Promise.allSettled([
      client.submit({ url: 'https://a.b/c.png' }),
      client.message('m1'),
    ]);
    for (const call of calls) {
      expect(call.status).toBe('rejected');
      const shown = inspect(call, {
        depth: Infinity,
        showHidden: true,
        maxStringLength: null,
        maxArrayLength: null,
      });
      for (const form of FORMS) expect(shown).not.toContain(form);
    }
  });
});

test('an excerpt that is cut within the token shows no part of it', () => {
  for (let padding = 0; padding < 50; padding++) {
    expect(excerptOf(`${'x'.repeat(padding)} ${TOKEN}`, 40, redactorOf(TOKEN))).not.toContain('tok/');
  }
});
