import { describe, expect, onTestFinished, test } from 'vitest';
import { judgeSubmitFailure } from '../../src/describe-api/attempt-policy.js';
import { DescribeClient, type DescribeClientOptions } from '../../src/describe-api/client.js';
import { DIALECT_NAMES } from '../../src/describe-api/dialects/index.js';
import { MessageFailedError } from '../../src/describe-api/errors.js';
import { readPrompts } from '../../src/describe-api/dialects/polled.js';
import { makePrompts, hashUrl } from '../../src/simulator/messages.js';
import type { Simulator } from '../helpers/simulator.js';
import { simulate } from './api.js';

const IMAGE = 'https://images.example/1.jpg';
const PROMPTS = readPrompts(makePrompts(hashUrl(IMAGE)));

function clientFor(
  simulator: Simulator,
  dialect: (typeof DIALECT_NAMES)[number],
  options: Partial<DescribeClientOptions> = {},
): DescribeClient {
  const model = dialect === 'openai' ? { model: 'any' } : {};
  const baseUrl = simulator.urlOf(dialect);
  const client = new DescribeClient({ baseUrl, dialect, token: 'secret', ...model, ...options });
  onTestFinished(() => client.close());
  return client;
}

async function verdictOf(submit: Promise<unknown>) {
  const error: unknown = await submit.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return judgeSubmitFailure(error);
}

describe.each(DIALECT_NAMES)('%s', (dialect) => {
  test('describes an image', async () => {
    const simulator = await simulate({ token: 'secret' });
    const message = await clientFor(simulator, dialect).describe(IMAGE);
    expect(message).toMatchObject({ status: 'completed', prompts: PROMPTS });
    expect(message.messageId).toMatch(/^sim-/);
    expect(simulator.stats().paid).toBe(1);
  });

  test('lets nobody in without the token, in its own header', async () => {
    const simulator = await simulate({ token: 'other' });
    expect(await verdictOf(clientFor(simulator, dialect).submit({ url: IMAGE }))).toMatchObject({
      action: 'stop',
      why: 'token',
    });
  });

  test.each([
    ['reject', { action: 'fail', code: 'rejected' }],
    ['reject400', { action: 'fail', code: 'rejected' }],
    ['quota', { action: 'suspect', why: 'quota' }],
    ['http500', { action: 'retry', code: 'http' }],
    ['badJson', { action: 'retry', code: 'bad-response', maybePaid: true }],
    ['html', { action: 'retry', code: 'bad-response', maybePaid: true }],
    ['reset', { action: 'retry', code: 'network', maybePaid: true }],
  ] as const)('fails by %s in its own words, and the client understands it', async (kind, verdict) => {
    const simulator = await simulate({ failures: { [kind]: 1 } });
    expect(await verdictOf(clientFor(simulator, dialect).submit({ url: IMAGE }))).toMatchObject(verdict);
    expect(simulator.stats().failures).toEqual({ [kind]: 1 });
  });

  test('slows down with a 429 that says for how long', async () => {
    const simulator = await simulate({ rateLimit: { count: 1, perMs: 5000 } });
    const client = clientFor(simulator, dialect);
    await client.submit({ url: IMAGE });
    const verdict = await verdictOf(client.submit({ url: IMAGE }));
    expect(verdict.action).toBe('rateLimited');
    if (verdict.action === 'rateLimited') expect(verdict.retryAfterMs).toBeGreaterThan(500);
    expect(simulator.stats()).toMatchObject({ paid: 1, answered429: 1 });
  });
});

test.each(['imaginepro', 'legnext'] as const)('a job that fails at %s says why', async (dialect) => {
  const simulator = await simulate({ failures: { incomplete: 1 } });
  const failing = clientFor(simulator, dialect).describe(IMAGE);
  await expect(failing).rejects.toBeInstanceOf(MessageFailedError);
  await expect(failing).rejects.toThrow('Simulated: the job has failed');
});

test('the newer paths of imaginepro are those of a base URL that ends in /nova', async () => {
  const simulator = await simulate({ token: 'secret' });
  const baseUrl = `${simulator.urlOf('imaginepro')}/api/v1/nova`;
  const message = await clientFor(simulator, 'imaginepro', { baseUrl }).describe(IMAGE);
  expect(message.prompts).toEqual(PROMPTS);
});

describe('openai', () => {
  test('gives four answers of one prompt each when asked for them', async () => {
    const simulator = await simulate();
    const message = await clientFor(simulator, 'openai', { choices: 4 }).describe(IMAGE);
    expect(message.prompts).toEqual(PROMPTS);
  });

  test('says with an answer when the limit is used up, and for how long', async () => {
    const simulator = await simulate({ rateLimit: { count: 2, perMs: 5000 } });
    const client = clientFor(simulator, 'openai');
    expect((await client.submit({ url: IMAGE })).restMs).toBeUndefined();
    const { restMs } = await client.submit({ url: IMAGE });
    expect(restMs).toBeGreaterThan(1000);
    expect(restMs).toBeLessThanOrEqual(5000);
  });

  test('tells its wait without Retry-After as well', async () => {
    const simulator = await simulate({ rateLimit: { count: 1, perMs: 5000 }, retryAfter: 'none' });
    const client = clientFor(simulator, 'openai');
    await client.submit({ url: IMAGE });
    const verdict = await verdictOf(client.submit({ url: IMAGE }));
    expect(verdict).toMatchObject({ action: 'rateLimited' });
    if (verdict.action === 'rateLimited') expect(verdict.retryAfterMs).toBeGreaterThan(500);
  });

  test('answers as late as the image takes, and an answer that is cut off is paid', async () => {
    const simulator = await simulate({ latencyMs: 300, failures: { incomplete: 1 } });
    const startedAt = performance.now();
    expect(await verdictOf(clientFor(simulator, 'openai').submit({ url: IMAGE }))).toMatchObject({
      action: 'retry',
      code: 'bad-response',
      maybePaid: true,
    });
    expect(performance.now() - startedAt).toBeGreaterThan(290);
    expect(simulator.stats().paid).toBe(1);
  });
});
