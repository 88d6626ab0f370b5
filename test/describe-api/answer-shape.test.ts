import type { IncomingMessage, RequestListener } from 'node:http';
import { json } from 'node:stream/consumers';
import { describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import {
  type AnswerShape,
  parseFields,
  parseSchema,
  promptsShape,
} from '../../src/describe-api/answer-shape.js';
import { DescribeClient } from '../../src/describe-api/client.js';
import { FormatRefusedError, UnreadableAnswerError } from '../../src/describe-api/errors.js';
import { serve } from './http-server.js';

describe('fields', () => {
  test('make a column each, and hold the answer to their types', () => {
    const shape = parseFields('caption, tags[], nsfw:boolean, mood:calm|tense, faces:integer');
    expect(shape.columns).toEqual(['caption', 'tags', 'nsfw', 'mood', 'faces']);
    const good = { caption: 'A cat', tags: ['a', 'b'], nsfw: false, mood: 'calm', faces: 2, more: 1 };
    expect(shape.read(good)).toEqual({ values: ['A cat', ['a', 'b'], false, 'calm', 2] });
    expect(JSON.stringify(shape.read({ ...good, tags: 'a, b' }))).toMatch(/^\{"wrong":".*tags/);
    expect(JSON.stringify(shape.read({ ...good, mood: 'wild' }))).toMatch(/^\{"wrong":".*mood/);
    expect(shape.read({ caption: 'A cat' })).toHaveProperty('wrong');
    expect(shape.read(undefined)).toHaveProperty('wrong');
  });

  test.each([
    ['', 'expected a name'],
    ['a,,b', 'expected a name'],
    ['a, a', 'a is there twice'],
    ['a:text', 'expected a type of string'],
    ['a[', 'expected a name'],
  ])('%j is refused', (text, message) => {
    expect(() => parseFields(text)).toThrow(message);
  });
});

describe('a JSON Schema', () => {
  test('has its properties as columns', () => {
    const properties = {
      who: { type: 'string' },
      box: { type: 'object', properties: { x: { type: 'number' } } },
    };
    const shape = parseSchema({ type: 'object', properties, required: ['who'] }, '--schema s.json');
    expect(shape.columns).toEqual(['who', 'box']);
    expect(shape.read({ who: 'me', box: { x: 1 } })).toEqual({ values: ['me', { x: 1 }] });
    expect(shape.read({ who: 'me' })).toEqual({ values: ['me', null] });
    expect(JSON.stringify(shape.read({ box: { x: 1 } }))).toMatch(/^\{"wrong":".*who/);
  });

  test.each([
    [undefined],
    [[]],
    [{ type: 'array', items: {} }],
    [{ type: 'object', properties: {} }],
    [{ type: 'object', properties: { a: { type: 'objekt' } } }],
  ])('%j is refused', (schema) => {
    expect(() => parseSchema(schema, '--schema s.json')).toThrow(/^--schema s\.json: /);
  });
});

test('so many prompts are so many columns; one is `prompt`', () => {
  expect(promptsShape(2).columns).toEqual(['prompt_1', 'prompt_2']);
  expect(promptsShape(1).columns).toEqual(['prompt']);
  expect(promptsShape(2).read({ prompts: ['a', 'b'] })).toEqual({ values: ['a', 'b'] });
  expect(promptsShape(2).read({ prompts: ['a'] })).toHaveProperty('wrong');
  expect(promptsShape(2).read({ prompts: ['a', ' '] })).toHaveProperty('wrong');
  for (const count of [0, 1.5, 17]) expect(() => promptsShape(count)).toThrow('--count');
});

const requestSchema = z.looseObject({ response_format: z.looseObject({ type: z.string() }).optional() });

/** A model's server that knows these formats of answers and refuses others, as vLLM and others do. */
function server(formats: readonly string[], content: string): { asked: string[]; listener: RequestListener } {
  const asked: string[] = [];
  const answer = async (request: IncomingMessage): Promise<[number, unknown]> => {
    const body = requestSchema.parse(await json(request));
    const format = body.response_format?.type ?? 'none';
    asked.push(format);
    if (format !== 'none' && !formats.includes(format))
      return [400, { error: { message: `'response_format.type' must not be ${format}` } }];
    const usage = { prompt_tokens: 100, completion_tokens: 20 };
    return [200, { id: 'c1', choices: [{ message: { content } }], usage }];
  };
  const listener: RequestListener = (request, response) => {
    void answer(request).then(([status, body]) => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    });
  };
  return { asked, listener };
}

async function clientFor(listener: RequestListener, answer: AnswerShape): Promise<DescribeClient> {
  const { url } = await serve(listener);
  const client = new DescribeClient({ baseUrl: url, dialect: 'openai', model: 'm', answer });
  onTestFinished(() => client.close());
  return client;
}

const IMAGE = { url: 'https://images.test/a.jpg' };
const ANSWER = '```json\n{"caption": "A cat {sitting}", "tags": ["x"], "mood": "calm"}\n```';

test.each([
  [['json_schema', 'json_object'], ['json_schema']],
  [['json_object'], ['json_schema', 'json_object']],
  [[], ['json_schema', 'json_object', 'none']],
])(
  'a server that knows the formats %j is asked for %j, and gives the same answer',
  async (formats, expected) => {
    const { asked, listener } = server(formats, ANSWER);
    const client = await clientFor(listener, parseFields('caption, tags[], mood'));
    for (const last of expected.slice(1)) {
      await expect(client.submit(IMAGE)).rejects.toBeInstanceOf(FormatRefusedError);
      expect(last).toBe(client.answerFormat === 'words' ? 'none' : client.answerFormat);
    }
    const { completed } = await client.submit(IMAGE);
    expect(completed?.prompts).toEqual(['A cat {sitting}', ['x'], 'calm']);
    expect(completed?.usage).toEqual({ inputTokens: 100, outputTokens: 20 });
    expect(asked).toEqual(expected);
  },
);

test('an answer that does not fit says what is wrong, and what it cost', async () => {
  const client = await clientFor(server(['json_schema'], '{"caption": 1}').listener, parseFields('caption'));
  const error: unknown = await client.submit(IMAGE).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(UnreadableAnswerError);
  expect(error instanceof UnreadableAnswerError ? error.wrong : '').toContain('caption');
  expect(error).toMatchObject({
    answer: '{"caption": 1}',
    usage: { inputTokens: 100, outputTokens: 20 },
  });
});

test('a caption alone is read from the plain text of a model, unless it refuses', async () => {
  const caption = await clientFor(server([], 'A red barn at dusk').listener, promptsShape(1));
  caption.answerFormat = 'words';
  expect((await caption.submit(IMAGE)).completed?.prompts).toEqual(['A red barn at dusk']);
  const refusal = await clientFor(server([], 'Sorry, I cannot see it.').listener, promptsShape(1));
  refusal.answerFormat = 'words';
  await expect(refusal.submit(IMAGE)).rejects.toMatchObject({ isRefusal: true });
});
