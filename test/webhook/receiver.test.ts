import { connect } from 'node:net';
import { once } from 'node:events';
import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import { CallbackKeys } from '../../src/shared/deliveries/callback-keys.js';
import type { DeliveryClaim } from '../../src/shared/deliveries/delivery-box.js';
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
