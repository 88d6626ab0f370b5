import { createServer, type Socket } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { DescribeClient, type DescribeClientOptions } from '../../src/describe-api/client.js';
import {
  ConnectionError,
  DescribeApiError,
  InterruptedError,
  RejectedError,
  StatusError,
  TimeoutError,
} from '../../src/describe-api/errors.js';
import { UsageError } from '../../src/shared/errors.js';
import { answering, serve } from './http-server.js';

const IMAGE = 'https://images.example/a b.jpg?x=1&y=ö';
const ACCEPTED = { success: true, messageId: 'm1', createdAt: '2023-04-04T13:07:01.927Z' };

function clientFor(baseUrl: string, options: Partial<DescribeClientOptions> = {}): DescribeClient {
  const client = new DescribeClient({ baseUrl, token: 'secret-token', timeoutMs: 5000, ...options });
  onTestFinished(() => client.close());
  return client;
}

async function failureOf(work: Promise<unknown>): Promise<DescribeApiError> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof DescribeApiError) return error;
  throw new Error('expected a DescribeApiError', { cause: error });
}

/** A port on which nothing listens. */
async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address ? address.port : 1;
}

describe('a submit', () => {
  test.each(['', '/'])('posts JSON with the token as Bearer; base URL ending "%s"', async (ending) => {
    const seen: unknown[] = [];
    const server = await serve((request, response) => {
      let body = '';
      request.on('data', (chunk: Buffer) => (body += chunk.toString()));
      request.on('end', () => {
        seen.push(request.headers.authorization, JSON.parse(body));
        answering(200, ACCEPTED)(request, response);
      });
    });
    const client = clientFor(`${server.url}/v2${ending}`);
    const answer = await client.submit({ url: IMAGE, ref: 'r', webhookOverride: 'https://h.example/' });
    expect(answer).toEqual({ messageId: 'm1' });
    expect(seen).toEqual([
      'Bearer secret-token',
      { url: IMAGE, ref: 'r', webhookOverride: 'https://h.example/' },
    ]);
    expect(server.requests).toEqual(['POST /v2/describe']);
  });

  test('goes as GET with everything in the query when asked to', async () => {
    const server = await serve(answering(200, ACCEPTED));
    await clientFor(server.url, { submitMethod: 'get' }).submit({ url: IMAGE, ref: 'r' });
    const [method, path] = (server.requests[0] ?? '').split(' ');
    const query = Object.fromEntries(new URL(path ?? '', server.url).searchParams);
    expect({ method, query }).toEqual({
      method: 'GET',
      query: { authToken: 'secret-token', url: IMAGE, ref: 'r' },
    });
  });

  test.each<[string, number, unknown, object]>([
    ['400', 400, { success: false, msg: 'Invalid url' }, { name: 'RejectedError', reason: 'Invalid url' }],
    [
      '200 with success: false',
      200,
      { success: false, error: 'No' },
      { name: 'RejectedError', reason: 'No' },
    ],
    ['404 without a body', 404, '', { name: 'StatusError', status: 404, about: 'set-up' }],
    ['404 with a reason', 404, { msg: 'no image' }, { name: 'RejectedError', reason: 'no image' }],
    ['413 without a body', 413, '', { name: 'RejectedError', reason: '413 Payload Too Large' }],
    ['401', 401, { msg: 'who?' }, { name: 'StatusError', status: 401, reason: '401 Unauthorized: who?' }],
    [
      '500 HTML',
      500,
      '<html>',
      { name: 'StatusError', status: 500, refused: false, retryAfterMs: undefined },
    ],
    ['500 refusal', 500, { success: false, msg: 'x' }, { name: 'StatusError', status: 500, refused: true }],
    ['200 HTML', 200, '<html>\n<p>', { name: 'ResponseShapeError', reason: 'expected JSON, got <html> <p>' }],
    ['cut JSON', 200, '{"success":true,"mess', { name: 'ResponseShapeError' }],
    ['an empty body', 200, '', { name: 'ResponseShapeError', reason: 'expected JSON, got an empty body' }],
    ['another shape', 200, { success: true }, { name: 'ResponseShapeError' }],
    ['a body above 1 MB', 200, JSON.stringify('x'.repeat(3_000_000)), { name: 'ResponseShapeError' }],
  ])('answered by %s is a typed error', async (_title, status, body, expected) => {
    const server = await serve(answering(status, body));
    expect(await failureOf(clientFor(server.url).submit({ url: IMAGE }))).toMatchObject(expected);
  });

  test('reads Retry-After of a 429 as seconds and as a date', async () => {
    let header = '7';
    const server = await serve((request, response) => {
      answering(429, { success: false, msg: 'slow down' }, { 'retry-after': header })(request, response);
    });
    const client = clientFor(server.url);
    expect(await failureOf(client.submit({ url: IMAGE }))).toMatchObject({ status: 429, retryAfterMs: 7000 });
    header = new Date(Date.now() + 60_000).toUTCString();
    const error = await failureOf(client.submit({ url: IMAGE }));
    expect(error).toBeInstanceOf(StatusError);
    if (error instanceof StatusError) expect(error.retryAfterMs).toBeGreaterThan(50_000);
  });

  test('follows no redirect: the token goes nowhere else', async () => {
    const other = await serve(answering(200, ACCEPTED));
    const server = await serve(answering(307, '', { location: `${other.url}/describe` }));
    expect(await failureOf(clientFor(server.url).submit({ url: IMAGE }))).toMatchObject({ status: 307 });
    expect(other.requests).toEqual([]);
  });
});

describe('a broken connection', () => {
  test('refused: nothing was sent', async () => {
    const error = await failureOf(clientFor(`http://127.0.0.1:${await closedPort()}`).submit({ url: IMAGE }));
    expect(error).toBeInstanceOf(ConnectionError);
    expect(error.message).toContain('ECONNREFUSED');
  });

  test('to a host that no DNS knows: nothing was sent', async () => {
    const error = await failureOf(clientFor('http://no-such-host.invalid').submit({ url: IMAGE }));
    expect(error).toBeInstanceOf(ConnectionError);
  });

  test('with a failed TLS handshake: nothing was sent', async () => {
    const server = await serve(answering(200, ACCEPTED));
    const error = await failureOf(clientFor(server.url.replace('http:', 'https:')).submit({ url: IMAGE }));
    expect(error).toBeInstanceOf(ConnectionError);
    expect(server.requests).toEqual([]);
  });

  test('whose TLS handshake hangs until the timeout: nothing was sent', async () => {
    const sockets: Socket[] = [];
    const server = createServer((socket) => sockets.push(socket));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    const address = server.address();
    const port = typeof address === 'object' && address ? address.port : 0;
    const client = clientFor(`https://127.0.0.1:${port}`, { timeoutMs: 150 });
    expect(await failureOf(client.submit({ url: IMAGE }))).toBeInstanceOf(ConnectionError);
  });

  test('reset after sending: may have been paid', async () => {
    const server = await serve((request) => request.socket.resetAndDestroy());
    const error = await failureOf(clientFor(server.url).submit({ url: IMAGE }));
    expect(error).toBeInstanceOf(InterruptedError);
    expect(error).not.toBeInstanceOf(TimeoutError);
    expect(server.requests).toHaveLength(1);
  });

  test('closed in the middle of the body: may have been paid', async () => {
    const server = await serve((_request, response) => {
      response.writeHead(200, { 'content-length': '500' });
      response.write('{"success":', () => response.destroy());
    });
    expect(await failureOf(clientFor(server.url).submit({ url: IMAGE }))).toBeInstanceOf(InterruptedError);
  });

  test('closed in the body of a 401 is still a 401', async () => {
    const server = await serve((_request, response) => {
      response.writeHead(401, { 'content-length': '500' });
      response.write('{"msg":', () => response.destroy());
    });
    expect(await failureOf(clientFor(server.url).submit({ url: IMAGE }))).toMatchObject({ status: 401 });
  });

  test.each([['get'], ['post']] as const)('is never tried again by itself: %s', async (submitMethod) => {
    let calls = 0;
    const server = await serve((request, response) => {
      if (calls++ === 0) answering(200, ACCEPTED)(request, response);
      else request.socket.destroy();
    });
    const client = clientFor(server.url, { submitMethod });
    await client.submit({ url: IMAGE });
    expect(await failureOf(client.submit({ url: IMAGE }))).toBeInstanceOf(InterruptedError);
    expect(server.requests).toHaveLength(2);
  });

  test('after an answer that never comes is a timeout', async () => {
    const server = await serve(() => undefined);
    const error = await failureOf(clientFor(server.url, { timeoutMs: 150 }).submit({ url: IMAGE }));
    expect(error).toBeInstanceOf(TimeoutError);
    expect(error.message).toBe(`POST ${server.url}/describe: no complete answer within 150 ms`);
  });

  test('a body that trickles in does not put the timeout off', async () => {
    const server = await serve((_request, response) => {
      response.writeHead(200);
      const timer = setInterval(() => response.write(' '), 20);
      response.on('close', () => clearInterval(timer));
    });
    expect(await failureOf(clientFor(server.url, { timeoutMs: 200 }).submit({ url: IMAGE }))).toBeInstanceOf(
      TimeoutError,
    );
  });
});

describe('a poll', () => {
  test('asks for the message by its encoded id, with expireMins when given', async () => {
    const server = await serve(answering(200, { progress: 3 }));
    expect(await clientFor(server.url).message('a/b?c')).toEqual({ status: 'working', progress: 3 });
    await clientFor(server.url, { expireMins: 30 }).message('m1');
    expect(server.requests).toEqual(['GET /message/a%2Fb%3Fc', 'GET /message/m1?expireMins=30']);
  });

  test('ends at once with the reason of its signal, on the wire and in the line', async () => {
    const server = await serve(() => undefined);
    const client = clientFor(server.url, { maxConcurrent: 1 });
    const stopping = new AbortController();
    const polls = [
      client.message('m1', { signal: stopping.signal }),
      client.message('m2', { signal: stopping.signal }),
    ];
    const settled = Promise.allSettled(polls);
    await expect.poll(() => server.requests).toEqual(['GET /message/m1']);
    const reason = new Error('stopping');
    stopping.abort(reason);
    expect(await settled).toEqual([
      { status: 'rejected', reason },
      { status: 'rejected', reason },
    ]);
    expect(server.requests).toHaveLength(1);
  });

  test('has a timeout', async () => {
    const server = await serve(() => undefined);
    const error = await failureOf(clientFor(server.url, { timeoutMs: 2000 }).message('m1'));
    expect(error).toBeInstanceOf(TimeoutError);
  });

  test('of an unknown message is refused', async () => {
    const server = await serve(answering(404, { success: false, msg: 'no such message' }));
    const error = await failureOf(clientFor(server.url).message('m1'));
    expect(error).toBeInstanceOf(RejectedError);
    expect(error).toMatchObject({ status: 404, reason: 'no such message' });
  });
});

test('makes no more calls at a time than allowed, and a wait for a turn costs no time of the timeout', async () => {
  let open = 0;
  let most = 0;
  const server = await serve((request, response) => {
    most = Math.max(most, ++open);
    setTimeout(() => {
      open--;
      answering(200, { progress: 1 })(request, response);
    }, 200);
  });
  // Twelve in a row take longer than each of them may.
  const client = clientFor(server.url, { maxConcurrent: 2, timeoutMs: 2000 });
  await Promise.all(Array.from({ length: 24 }, (_, i) => client.message(`m${i}`)));
  expect(most).toBe(2);
});

test('close waits for the submit on the wire, and can be called again', async () => {
  let answer: (() => void) | undefined;
  const server = await serve((request, response) => {
    answer = () => answering(200, ACCEPTED)(request, response);
  });
  const client = clientFor(server.url);
  const submit = client.submit({ url: IMAGE });
  await expect.poll(() => answer).toBeDefined();
  const closed = Promise.all([client.close(), client.close()]);
  answer?.();
  expect(await submit).toMatchObject({ messageId: 'm1' });
  await closed;
});

test.each([['ftp://host/v2'], ['not a url'], ['https://user:pass@host/v2'], ['https://host/v2#x']])(
  'refuses a base URL that cannot work: %s',
  (baseUrl) => {
    expect(() => new DescribeClient({ baseUrl })).toThrow('API URL: expected an http(s) URL');
  },
);

test('refuses a token that no header can carry, without showing it', () => {
  const build = () => new DescribeClient({ baseUrl: 'http://host', token: 'se\ncret' });
  expect(build).toThrow('API token: expected visible ASCII');
  expect(build).not.toThrow('cret');
});

test.each(
  (['timeoutMs', 'maxConcurrent'] as const).flatMap((name) =>
    [NaN, 0, -1].map((value) => ({ [name]: value })),
  ),
)('refuses %o', (options) => {
  const build = () => new DescribeClient({ baseUrl: 'http://host', ...options });
  expect(build).toThrow(UsageError);
  expect(build).toThrow(new RegExp(`${Object.keys(options).join()} .*: expected`));
});

test('refuses half a call at a time', () => {
  expect(() => new DescribeClient({ baseUrl: 'http://host', maxConcurrent: 1.5 })).toThrow(UsageError);
});
