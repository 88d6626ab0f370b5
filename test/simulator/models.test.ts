import { expect, onTestFinished, test } from 'vitest';
import { parseFields, parseSchema } from '../../src/describe-api/answer-shape.js';
import { DescribeClient, type DescribeClientOptions } from '../../src/describe-api/client.js';
import { FormatRefusedError } from '../../src/describe-api/errors.js';
import { isOfUrl } from '../../src/describe-api/refusals.js';
import type { Simulator } from '../helpers/simulator.js';
import { simulate } from './api.js';

const IMAGE = 'https://images.example/1.jpg';
const BYTES = `data:image/png;base64,${Buffer.alloc(3000, 7).toString('base64')}`;

function clientFor(simulator: Simulator, options: Partial<DescribeClientOptions> = {}): DescribeClient {
  const dialect = options.dialect ?? 'openai';
  const model = dialect === 'openai' ? { model: 'any' } : {};
  const client = new DescribeClient({ baseUrl: simulator.urlOf('openai'), dialect, ...model, ...options });
  onTestFinished(() => client.close());
  return client;
}

const FIELDS = parseFields('caption, tags[], nsfw:boolean, year:integer, mood:calm|tense');
const SCHEMA = parseSchema(
  { type: 'object', properties: { a: { type: 'number' }, b: { type: 'array', items: { enum: ['x'] } } } },
  '--schema',
);

test.each([
  ['a schema', {}],
  ['JSON without a schema', { noSchema: 1 }],
  ['words alone', { noFormat: 1 }],
])(
  'a model that takes %s fills in the fields that it is asked for, and counts tokens',
  async (_title, failures) => {
    const simulator = await simulate({ failures });
    const client = clientFor(simulator, { answer: FIELDS });
    const submitUntilTaken = async () => {
      for (;;) {
        const submitted = await client.submit({ url: IMAGE }).catch((error: unknown) => {
          if (!(error instanceof FormatRefusedError)) throw error;
        });
        if (submitted !== undefined) return submitted;
      }
    };
    const { completed } = await submitUntilTaken();
    const text: unknown = expect.any(String);
    expect(completed?.prompts).toEqual([text, [text, text], false, 7, 'calm']);
    expect(completed?.usage).toEqual({ inputTokens: 850, outputTokens: 240 });
    expect(simulator.stats().paid).toBe(1);
  },
);

test('a schema of one’s own is filled in as well', async () => {
  const simulator = await simulate();
  const { completed } = await clientFor(simulator, { answer: SCHEMA }).submit({ url: IMAGE });
  expect(completed?.prompts).toEqual([7, ['x', 'x']]);
});

test('an image in base64 is described by openai and mj, and is counted under its hash', async () => {
  const simulator = await simulate();
  await clientFor(simulator).describe(BYTES);
  await clientFor(simulator, { dialect: 'mj' }).describe(BYTES);
  const paid = [...simulator.stats().paidByUrl];
  expect(paid).toHaveLength(1);
  expect(paid[0]?.[0]).toMatch(/^data:[0-9a-f]{16}$/);
  expect(paid[0]?.[1]).toBe(2);
  const other = clientFor(simulator, { dialect: 'thenextleg', baseUrl: simulator.url });
  await expect(other.submit({ url: BYTES })).rejects.toThrow('is not an http(s) URL');
});

test.each(['openai', 'mj'] as const)('%s without URLs says so, and takes the bytes', async (dialect) => {
  const simulator = await simulate({ failures: { noUrls: 1 } });
  const client = clientFor(simulator, { dialect });
  const refusal: unknown = await client.submit({ url: IMAGE }).catch((error: unknown) => error);
  expect(refusal).toMatchObject({ name: 'RejectedError' });
  expect(isOfUrl(String(refusal))).toBe(true);
  await client.describe(BYTES);
  expect(simulator.stats()).toMatchObject({ paid: 1, failures: { noUrls: 1 } });
});

test('mj lists the messages that it knows, by one call', async () => {
  const simulator = await simulate({ latencyMs: 60_000 });
  const client = clientFor(simulator, { dialect: 'mj' });
  const ids = await Promise.all([1, 2].map(async () => (await client.submit({ url: IMAGE })).messageId));
  const messages = await client.messages([...ids, 'unknown']);
  expect([...messages.keys()].sort()).toEqual([...ids].sort());
  expect(messages.get(ids[0] ?? '')).toMatchObject({ status: 'working' });
  expect(simulator.stats().polls).toBe(1);
});
