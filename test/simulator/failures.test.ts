import { describe, expect, onTestFinished, test } from 'vitest';
import { DescribeClient } from '../../src/describe-api/client.js';
import type { FailureKind } from '../../src/simulator/options.js';
import { call, post, simulate, submit } from './api.js';

const IMAGE = 'https://images.example/1.jpg';

function clientFor(baseUrl: string, timeoutMs = 30_000): DescribeClient {
  const client = new DescribeClient({ baseUrl, timeoutMs });
  onTestFinished(() => client.close());
  return client;
}

test.each<[FailureKind, object, number]>([
  ['http500', { name: 'StatusError', status: 500 }, 0],
  ['quota', { name: 'StatusError', status: 402 }, 0],
  ['resetBefore', { name: 'InterruptedError' }, 0],
  ['reject', { name: 'RejectedError', status: 200, reason: "Invalid phrase: 'simulated'" }, 0],
  ['reject400', { name: 'RejectedError', status: 400 }, 0],
  ['reset', { name: 'InterruptedError' }, 1],
  ['badJson', { name: 'ResponseShapeError' }, 1],
  ['html', { name: 'ResponseShapeError' }, 1],
  ['hang', { name: 'TimeoutError' }, 1],
])('a submit that fails by %s is seen as such by the client, and paid or not', async (kind, error, paid) => {
  const simulator = await simulate({ failures: { [kind]: 1 } });
  const client = clientFor(simulator.url, kind === 'hang' ? 200 : undefined);
  await expect(client.submit({ url: IMAGE })).rejects.toMatchObject(error);
  expect(simulator.stats()).toMatchObject({ paid, failures: { [kind]: 1 } });
  expect(simulator.stats().paidByUrl).toEqual(new Map(paid === 0 ? [] : [[IMAGE, 1]]));
});

describe('a message', () => {
  test('by incomplete expires when it would have completed', async () => {
    const simulator = await simulate({ failures: { incomplete: 1 } });
    const { messageId } = await clientFor(simulator.url).submit({ url: IMAGE });
    expect(await clientFor(simulator.url).message(messageId)).toEqual({ status: 'incomplete' });
  });

  test('by never stays at work, up to its time of expiry', async () => {
    const simulator = await simulate({ failures: { never: 1 } });
    const messageId = await submit(simulator, IMAGE);
    await expect
      .poll(async () => (await call(`${simulator.url}/message/${messageId}`)).body)
      .toMatchObject({ progress: 99 });
    await expect
      .poll(async () => (await call(`${simulator.url}/message/${messageId}?expireMins=0.0001`)).body)
      .toEqual({ progress: 'incomplete' });
    expect(simulator.stats().inFlight).toBe(1);
  });

  test('by pollError answers 500, by pollMissing 404 while it works', async () => {
    const simulator = await simulate({ latencyMs: 60_000, failures: { pollError: 1 } });
    const client = clientFor(simulator.url);
    const { messageId } = await client.submit({ url: IMAGE });
    await expect(client.message(messageId)).rejects.toMatchObject({ status: 500 });
    simulator.setOptions({ failures: { pollMissing: 1 } });
    await expect(client.message(messageId)).rejects.toMatchObject({ name: 'RejectedError', status: 404 });
    simulator.setOptions({ latencyMs: 0 });
    const done = await client.submit({ url: IMAGE });
    expect(await client.message(done.messageId)).toMatchObject({ status: 'completed' });
  });
});

test('shares are kept, and the same seed fails the same calls', async () => {
  const play = async (seed: number): Promise<number[]> => {
    const simulator = await simulate({ seed, failures: { http500: 0.2, quota: 0.1 } });
    const statuses: number[] = [];
    for (let i = 0; i < 300; i++) {
      const response = await fetch(`${simulator.url}/describe?url=${IMAGE}?${i}`);
      await response.text();
      statuses.push(response.status);
    }
    return statuses;
  };
  const [first, again, other] = await Promise.all([play(1), play(1), play(2)]);
  const share = (status: number): number => first.filter((one) => one === status).length / 300;
  expect(share(500)).toBeCloseTo(0.2, 1);
  expect(share(402)).toBeCloseTo(0.1, 1);
  expect(again).toEqual(first);
  expect(other).not.toEqual(first);
});

test('the same images are refused each time, so that asking again does not help', async () => {
  const simulator = await simulate({ failures: { reject: 0.5 } });
  const round = async (): Promise<unknown[]> => {
    const refused = [];
    for (let i = 0; i < 20; i++) {
      const { body } = await post(`${simulator.url}/describe`, { url: `${IMAGE}?${i}` });
      refused.push(body.success);
    }
    return refused;
  };
  const first = await round();
  expect(new Set(first).size).toBe(2);
  expect(await round()).toEqual(first);
});

test('down answers 503 to every call', async () => {
  const simulator = await simulate({ down: true });
  const status = async (): Promise<number> => (await fetch(`${simulator.url}/describe?url=${IMAGE}`)).status;
  expect(await status()).toBe(503);
  expect((await fetch(`${simulator.url}/message/sim-x`)).status).toBe(503);
  simulator.setOptions({ down: false });
  expect(await status()).toBe(200);
  expect(simulator.stats().answered503).toBe(2);
});

test('close ends answers that hang', async () => {
  const simulator = await simulate({ failures: { hang: 1 } });
  const client = new DescribeClient({ baseUrl: simulator.url, timeoutMs: 60_000 });
  onTestFinished(() => client.close());
  const hanging = client.submit({ url: IMAGE }).catch((error: unknown) => error);
  await expect.poll(() => simulator.stats().paid).toBe(1);
  await simulator.close();
  expect(await hanging).toMatchObject({ name: 'InterruptedError' });
});

test('latencies spread around their median, the same for the same seed', async () => {
  const play = async (): Promise<number[]> => {
    const simulator = await simulate({ latencyMs: 1000, latencySpread: 0.3 });
    const latencies: number[] = [];
    for (let i = 0; i < 200; i++) {
      latencies.push(parseInt((await submit(simulator, `${IMAGE}?${i}`)).split('-')[2] ?? '', 36));
    }
    return latencies;
  };
  const first = await play();
  const sorted = [...first].sort((a, b) => a - b);
  expect(sorted[100]).toBeGreaterThan(900);
  expect(sorted[100]).toBeLessThan(1100);
  expect(new Set(first).size).toBeGreaterThan(100);
  expect(await play()).toEqual(first);
});
