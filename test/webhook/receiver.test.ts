import { connect } from 'node:net';
import { once } from 'node:events';
import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import { CallbackKeys } from '../../src/webhook/callback-keys.js';
import type { DeliveryClaim } from '../../src/webhook/deliveries.js';
import { startReceiver } from '../../src/webhook/receiver.js';

const keys = new CallbackKeys('a secret of more than sixteen', 'scope');
const ref = keys.refOf('job#1');

async function receive() {
  const claims: DeliveryClaim[] = [];
  const receiver = await startReceiver({
    host: '127.0.0.1',
    port: 0,
    keys,
    onDelivery: (claim) => claims.push(claim),
  });
  onTestFinished(() => receiver.close());
  const own = keys.callbackUrl(receiver.url, ref);
  const base = keys.callbackBase(receiver.url);
  const post = async (url: string, body: string) => (await fetch(url, { method: 'POST', body })).status;
  return { claims, receiver, own, base, post };
}

test('takes a delivery in by the ref of its URL, by the ref in its body, else by its message', async () => {
  const { claims, own, base, post } = await receive();
  expect(await post(own, '{"job_id":"m1"}')).toBe(200);
  expect(await post(base, JSON.stringify({ ref, response: { originatingMessageId: 'm2' } }))).toBe(200);
  expect(await post(base, '{"ref":"forged","messageId":"m3"}')).toBe(200);
  expect(claims).toEqual([
    { ref, messageId: 'm1' },
    { ref, messageId: 'm2' },
    { ref: undefined, messageId: 'm3' },
  ]);
});

test('takes what says that its message is still worked on, and wakes nobody for it', async () => {
  const { claims, own, post } = await receive();
  for (const status of ['NOT_START', 'SUBMITTED', 'IN_PROGRESS', 'MODAL', 'SUCCESS', 'FAILURE'])
    expect(await post(own, JSON.stringify({ id: status, action: 'DESCRIBE', status }))).toBe(200);
  expect(claims.map(({ messageId }) => messageId)).toEqual(['SUCCESS', 'FAILURE']);
});

test('tells strangers nothing but 404', async () => {
  const { claims, receiver, base, post } = await receive();
  for (const url of [receiver.url, `${receiver.url}/describe/x`, `${base}/${'x'.repeat(38)}`, `${base}x`]) {
    expect([url, await post(url, '{"messageId":"m"}')]).toEqual([url, 404]);
    expect((await fetch(url)).status).toBe(404);
  }
  expect(claims).toEqual([]);
});

test('refuses other methods, long bodies and what is no delivery', async () => {
  const { claims, own, base, post } = await receive();
  expect((await fetch(own)).status).toBe(405);
  expect(await post(own, JSON.stringify({ messageId: 'm', more: 'x'.repeat(256 * 1024) }))).toBe(413);
  for (const body of ['', 'no JSON', '[]', '7', 'null', '[['.repeat(10_000)])
    expect(await post(own, body)).toBe(400);
  expect(await post(base, '{"ref":"forged"}')).toBe(400);
  expect(claims).toEqual([]);
});

test('survives any body and any bytes', async () => {
  const { receiver, own, post } = await receive();
  await fc.assert(
    fc.asyncProperty(fc.oneof(fc.json(), fc.string()), async (body) => {
      expect([200, 400]).toContain(await post(own, body));
    }),
    { numRuns: 100 },
  );
  const port = Number(new URL(receiver.url).port);
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 500 }), async (bytes) => {
      const socket = connect(port, '127.0.0.1');
      socket.on('error', () => undefined);
      socket.resume();
      const closed = once(socket, 'close');
      socket.end(bytes);
      await closed;
    }),
    { numRuns: 50 },
  );
  expect(await post(own, '{"messageId":"m"}')).toBe(200);
});

/** A connection that sends this and stays open; all that was answered when it has ended. */
async function raw(url: string, ...parts: string[]): Promise<string> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  let answer = '';
  socket.on('error', () => undefined);
  socket.setEncoding('utf8').on('data', (text: string) => (answer += text));
  const closed = new Promise((resolve) => socket.once('close', resolve));
  for (const part of parts) socket.write(part);
  await closed;
  return answer;
}

const head = (url: string, ...headers: string[]) =>
  [`POST ${new URL(url).pathname} HTTP/1.1`, 'Host: h', ...headers, '', ''].join('\r\n');

test('believes no content-length: one that is too long is refused at once, a wrong one does no harm', async () => {
  const { claims, own, post } = await receive();
  expect(await raw(own, head(own, 'Content-Length: 300000'))).toMatch(/^HTTP\/1\.1 413 /);
  const more = 'x'.repeat(300_000);
  const tooShort = await raw(own, head(own, 'Content-Length: 2', 'Connection: close'), '[]', more);
  expect(tooShort).toMatch(/^(HTTP\/1\.1 400 |$)/);
  for (const length of ['-1', 'two', '9'.repeat(30)]) {
    expect(await raw(own, head(own, `Content-Length: ${length}`), '[]')).not.toMatch(/ 200 /);
  }
  expect(claims).toEqual([]);
  expect(await post(own, '{"messageId":"m"}')).toBe(200);
});

test('without a content-length reads what comes, up to 256 KB', async () => {
  const { claims, own } = await receive();
  const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`;
  const chunked = head(own, 'Transfer-Encoding: chunked', 'Connection: close');
  const whole = await raw(own, chunked, chunk('{"messageId"'), chunk(':"m"}'), '0\r\n\r\n');
  expect(whole).toMatch(/^HTTP\/1\.1 200 /);
  expect(claims).toEqual([{ ref, messageId: 'm' }]);
  const endless = Array.from({ length: 30 }, () => chunk('x'.repeat(50_000)));
  expect(await raw(own, chunked, ...endless)).toMatch(/^(HTTP\/1\.1 413 |$)/);
  expect(await raw(own, head(own, 'Connection: close'))).toMatch(/^HTTP\/1\.1 400 /);
  expect(claims).toHaveLength(1);
});

test.each(['\\u0000', '\\ud800', 'a\\nb', ' ', 'x'.repeat(513)])(
  'takes %j for no message id and no ref',
  async (text) => {
    const { claims, base, post } = await receive();
    expect(await post(base, `{"messageId":"${text}","ref":"${text}"}`)).toBe(400);
    expect(await post(base, `{"messageId":"${text}","job_id":"m"}`)).toBe(200);
    expect(claims).toEqual([{ ref: undefined, messageId: 'm' }]);
  },
);

test('holds 256 connections, refuses more, and takes deliveries in when others have ended', async () => {
  const { receiver, own, post } = await receive();
  const port = Number(new URL(receiver.url).port);
  const sockets = Array.from({ length: 256 }, () => connect(port, '127.0.0.1'));
  onTestFinished(() => sockets.forEach((socket) => socket.destroy()));
  for (const socket of sockets) socket.on('error', () => undefined);
  for (const socket of sockets) if (socket.connecting) await once(socket, 'connect');
  await expect(post(own, '{"messageId":"m"}')).rejects.toThrow();
  for (const socket of sockets.slice(0, 5)) socket.destroy();
  await expect.poll(() => post(own, '{"messageId":"m"}').catch(() => 0), { timeout: 5000 }).toBe(200);
});

test('ends connections that do not get on, before their headers and before their bodies', async () => {
  const { claims, own } = await receive();
  const startedAt = performance.now();
  const ended = await Promise.all([
    raw(own, 'POST / HTTP/1.1\r\nHost: h\r\n'),
    raw(own, head(own, 'Content-Length: 100'), '{"messageId"'),
  ]);
  expect(ended.join('')).not.toMatch(/ 200 /);
  expect(performance.now() - startedAt).toBeGreaterThan(4000);
  expect(claims).toEqual([]);
}, 30_000);

test('tells a stranger without a Host header no more than others', async () => {
  const { receiver } = await receive();
  expect(await raw(receiver.url, 'GET / HTTP/1.1\r\nConnection: close\r\n\r\n')).toMatch(/^HTTP\/1\.1 404 /);
});
