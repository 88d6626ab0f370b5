import { readFileSync, readdirSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { judgeSubmitFailure } from '../../src/describe-api/attempt-policy.js';
import { readAnswer } from '../../src/describe-api/http.js';
import { DescribeClient, type DescribeClientOptions } from '../../src/describe-api/client.js';
import { answeredPrompts } from '../../src/describe-api/dialects/answered-prompts.js';
import { DIALECT_NAMES, type DialectName, dialectFor } from '../../src/describe-api/dialects/index.js';
import { answerCell } from '../../src/shared/jobs.js';
import { exhaustedForMs } from '../../src/describe-api/retry-after.js';
import { DescribeApiError } from '../../src/describe-api/errors.js';
import type { Message } from '../../src/describe-api/dialects/dialect.js';
import { readClaim } from '../../src/webhook/deliveries.js';
import { answering, serve } from './http-server.js';

const FOLDER = new URL('fixtures/', import.meta.url);
const IMAGE = 'https://images.example/a b.jpg?x=1';

const anything = z.looseObject({});
const fixtureSchema = z.object({
  dialect: z.enum(DIALECT_NAMES),
  kind: z.enum(['submit', 'message', 'delivery']),
  status: z.int(),
  headers: z.record(z.string(), z.string()).default({}),
  body: z.unknown(),
  expect: z.looseObject({
    error: z.string().optional(),
    reason: z.string().optional(),
    reasonHas: z.string().optional(),
    verdict: anything.optional(),
  }),
});
type Fixture = z.infer<typeof fixtureSchema>;

const FIXTURES = readdirSync(FOLDER).map((name): [string, Fixture] => [
  name.replace('.json', ''),
  fixtureSchema.parse(JSON.parse(readFileSync(new URL(name, FOLDER), 'utf8'))),
]);

function clientFor(
  baseUrl: string,
  dialect: DialectName,
  options: Partial<DescribeClientOptions> = {},
): DescribeClient {
  const model = dialect === 'openai' ? { model: 'a-model' } : {};
  const client = new DescribeClient({ baseUrl, dialect, token: 'secret', ...model, ...options });
  onTestFinished(() => client.close());
  return client;
}

async function outcomeOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    (value) => value,
    (reason: unknown) => reason,
  );
}

describe('a recorded answer', () => {
  test.each(FIXTURES)('%s is read as what it is', async (_name, fixture) => {
    const { dialect, kind, expect: expected, ...answer } = fixture;
    if (kind === 'delivery') {
      expect(readClaim(JSON.stringify(answer.body))).toEqual({ ref: undefined, ...expected });
      return;
    }
    const server = await serve(answering(answer.status, answer.body, answer.headers));
    const client = clientFor(server.url, dialect);
    const call = kind === 'submit' ? client.submit({ url: IMAGE }) : client.message('m1');
    const outcome = await outcomeOf(call);
    const { error, reason, reasonHas, verdict, ...shape } = expected;
    if (error === undefined) {
      const { status, ...facts } = shape;
      const isSubmit = kind === 'submit' && status === 'submitted';
      expect(outcome).toMatchObject(isSubmit ? facts : shape);
      return;
    }
    if (!(outcome instanceof DescribeApiError)) throw new Error('expected an error', { cause: outcome });
    expect(outcome.name).toBe(error);
    if (reason !== undefined) expect(outcome.reason).toBe(reason);
    if (reasonHas !== undefined) expect(outcome.reason).toContain(reasonHas);
    if (verdict !== undefined) expect(judgeSubmitFailure(outcome)).toMatchObject(verdict);
  });

  test('is there for every dialect: submits, messages and deliveries', () => {
    for (const dialect of DIALECT_NAMES) {
      const kinds = FIXTURES.filter(([, fixture]) => fixture.dialect === dialect).map(([, { kind }]) => kind);
      const isSynchronous = dialectFor({ dialect }).readMessage === undefined;
      const expected = isSynchronous ? ['submit'] : ['delivery', 'message', 'submit'];
      expect([dialect, ...[...new Set(kinds)].sort()]).toEqual([dialect, ...expected]);
    }
  });
});

interface Sent {
  readonly path: string;
  readonly headers: Record<string, unknown>;
  readonly body: unknown;
}

async function sentBy(dialect: DialectName, base: string, options: Partial<DescribeClientOptions> = {}) {
  const sent: Sent[] = [];
  const server = await serve((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      const json: unknown = body === '' ? undefined : JSON.parse(body);
      sent.push({
        path: `${request.method ?? ''} ${request.url ?? ''}`,
        headers: request.headers,
        body: json,
      });
      answering(500, {})(request, response);
    });
  });
  const client = clientFor(server.url + base, dialect, options);
  await outcomeOf(client.submit({ url: IMAGE, ref: 'r', webhookOverride: 'https://h.example/w' }));
  await outcomeOf(client.message('a/b'));
  return sent;
}

describe('what is sent', () => {
  test.each<[DialectName, string, string, string | undefined]>([
    ['thenextleg', '/v2', 'POST /v2/describe', 'GET /v2/message/a%2Fb'],
    ['imaginepro', '', 'POST /api/v1/midjourney/describe', 'GET /api/v1/midjourney/message/a%2Fb'],
    ['imaginepro', '/api/v1/', 'POST /api/v1/midjourney/describe', 'GET /api/v1/midjourney/message/a%2Fb'],
    ['imaginepro', '/nova', 'POST /api/v1/nova/describe', 'GET /api/v1/message/fetch/a%2Fb'],
    ['imaginepro', '/x/api/v1/nova', 'POST /x/api/v1/nova/describe', 'GET /x/api/v1/message/fetch/a%2Fb'],
    ['legnext', '', 'POST /api/v1/describe', 'GET /api/v1/job/a%2Fb'],
    ['legnext', '/api', 'POST /api/v1/describe', 'GET /api/v1/job/a%2Fb'],
    ['legnext', '/api/v1', 'POST /api/v1/describe', 'GET /api/v1/job/a%2Fb'],
    ['openai', '', 'POST /v1/chat/completions', undefined],
    ['openai', '/v1', 'POST /v1/chat/completions', undefined],
    ['openai', '/api/v1/', 'POST /api/v1/chat/completions', undefined],
    ['openai', '/v1beta/openai', 'POST /v1beta/openai/chat/completions', undefined],
    ['openai', '/v1/chat/completions', 'POST /v1/chat/completions', undefined],
    [
      'openai',
      '/openai/deployments/a/chat/completions',
      'POST /openai/deployments/a/chat/completions',
      undefined,
    ],
  ])('by %s to a base URL that ends in "%s" goes to its paths', async (dialect, base, submit, poll) => {
    const paths = (await sentBy(dialect, base)).map(({ path }) => path);
    expect(paths).toEqual(poll === undefined ? [submit] : [submit, poll]);
  });

  test.each<[DialectName, object, object]>([
    [
      'thenextleg',
      { authorization: 'Bearer secret' },
      { url: IMAGE, ref: 'r', webhookOverride: 'https://h.example/w' },
    ],
    [
      'imaginepro',
      { authorization: 'Bearer secret' },
      { url: IMAGE, ref: 'r', webhookOverride: 'https://h.example/w' },
    ],
    ['legnext', { 'x-api-key': 'secret' }, { imgUrl: IMAGE, callback: 'https://h.example/w' }],
  ])('by %s has its fields and its header', async (dialect, headers, body) => {
    const [submit, poll] = await sentBy(dialect, '');
    expect(submit?.headers).toMatchObject(headers);
    expect(submit?.body).toEqual(body);
    expect(poll?.headers).toMatchObject(headers);
  });

  test('by openai is a chat completion with the image, our prompt or another, and n when four are asked for', async () => {
    const [own] = await sentBy('openai', '');
    expect(own?.headers).toMatchObject({ authorization: 'Bearer secret' });
    expect(own?.body).toMatchObject({
      model: 'a-model',
      messages: [
        { role: 'user', content: [{ type: 'text' }, { type: 'image_url', image_url: { url: IMAGE } }] },
      ],
    });
    expect(JSON.stringify(own?.body)).toContain('4 different prompts');
    expect(own?.body).toMatchObject({ response_format: { type: 'json_schema' } });
    expect(own?.body).not.toHaveProperty('n');
    const [other] = await sentBy('openai', '', { prompt: 'Describe it.', choices: 4 });
    expect(other?.body).toMatchObject({ n: 4, messages: [{ content: [{}, {}] }] });
    expect(JSON.stringify(other?.body)).toContain('Describe it.');
    expect(other?.body).not.toHaveProperty('response_format');
  });
});

describe('a dialect', () => {
  test.each([
    [{}, 'thenextleg'],
    [{ api: 'https://api.thenextleg.io/v2' }, 'thenextleg'],
    [{ api: 'https://api.imaginepro.ai' }, 'imaginepro'],
    [{ api: 'https://api.legnext.ai/api/v1' }, 'legnext'],
    [{ api: 'https://api.openai.com/v1' }, 'openai'],
    [{ api: 'https://proxy.example/v1' }, 'thenextleg'],
    [{ api: 'https://api.openai.com/v1', dialect: 'legnext' }, 'legnext'],
    [{ api: 'simulator' }, 'thenextleg'],
  ])('of %o is %s', (options, name) => {
    expect(dialectFor(options).name).toBe(name);
  });

  test('that nobody knows is refused with the nearest', () => {
    expect(() => dialectFor({ dialect: 'opnai' })).toThrow('--dialect opnai: did you mean openai?');
    expect(() => dialectFor({ dialect: 'toString' })).toThrow('expected one of thenextleg');
  });

  test('of somebody else can be handed to the client', async () => {
    const server = await serve(answering(200, { id: 'x1' }));
    const client = new DescribeClient({
      baseUrl: server.url,
      dialect: {
        ...dialectFor({ dialect: 'thenextleg' }),
        name: 'mine',
        submitUrl: (base) => `${base}/mine`,
        readSubmitted: () => ({ messageId: 'x1' }),
      },
    });
    onTestFinished(() => client.close());
    expect(await client.submit({ url: IMAGE })).toMatchObject({ messageId: 'x1' });
    expect(server.requests).toEqual(['POST /mine']);
  });

  test('that is synchronous waits for its answer as long as its deadline, and has no messages', async () => {
    const server = await serve(() => undefined);
    const client = clientFor(server.url, 'openai');
    const startedAt = performance.now();
    expect(await outcomeOf(client.submit({ url: IMAGE }, { deadlineMs: 200 }))).toMatchObject({
      name: 'TimeoutError',
    });
    expect(performance.now() - startedAt).toBeGreaterThan(190);
    expect(await outcomeOf(client.message('m'))).toMatchObject({ name: 'RejectedError', status: 404 });
  });
});

const NOW = Date.parse('2026-03-01T12:00:00Z');

test.each([
  ['6m0s', 360_000],
  ['0m3.5s', 3500],
  ['20ms', 20],
  ['1s', 1000],
  ['2', 2000],
  [String(NOW / 1000 + 30), 30_000],
  [String(NOW + 30_000), 30_000],
  [String(NOW - 1000), 0],
  ['2026-03-01T12:00:30Z', 30_000],
  ['2026-03-01T13:00:30.000+01:00', 30_000],
  ['2026-03-01T11:59:00Z', 0],
  ['2026-99-01T11:59:00Z', undefined],
  ['1h2m3.5s', 900_000],
  ['', undefined],
  ['soon', undefined],
  ['5x', undefined],
])('a limit that is reset in "%s" is so in %s ms', (reset, ms) => {
  for (const kind of ['-requests', '-tokens', ''])
    expect(
      exhaustedForMs({ [`x-ratelimit-remaining${kind}`]: '0', [`x-ratelimit-reset${kind}`]: reset }, NOW),
    ).toBe(ms);
});

test('a limit counts when nothing is left of it, the longer one, and never for more than 15 minutes', () => {
  const headers = (remaining: string, reset: string, tokens = '5') => ({
    'x-ratelimit-remaining-requests': remaining,
    'x-ratelimit-reset-requests': reset,
    'x-ratelimit-remaining-tokens': tokens,
    'x-ratelimit-reset-tokens': '2s',
  });
  expect(exhaustedForMs({}, NOW)).toBeUndefined();
  expect(exhaustedForMs(headers('1', '6m0s'), NOW)).toBeUndefined();
  expect(exhaustedForMs(headers('0', '1s'), NOW)).toBe(1000);
  expect(exhaustedForMs(headers('0', '1s', '0'), NOW)).toBe(2000);
  expect(exhaustedForMs(headers('0', '24h0m0s'), NOW)).toBe(900_000);
  expect(exhaustedForMs(headers('0', 'nonsense'), NOW)).toBeUndefined();
});

describe('whatever comes', () => {
  const call = { method: 'POST', url: 'http://h/', redact: (text: string) => text } as const;
  const words = fc.constantFrom(
    'status',
    'messageId',
    'job_id',
    'id',
    'progress',
    'content',
    'output',
    'prompts',
    'choices',
    'message',
    'error',
    'code',
    'created',
    'meta',
    'refusal',
    'finish_reason',
    'DONE',
    'completed',
    'failed',
    '__proto__',
  );
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { maxDepth: 5 },
      fc.oneof(fc.string(), words, fc.double(), fc.integer(), fc.boolean(), fc.constant(null)),
      fc.array(tie('tree'), { maxLength: 5 }),
      fc.dictionary(fc.oneof(words, fc.string()), tie('tree'), { maxKeys: 6 }),
    ),
  }));

  /** What is read is of use: prompts are four texts and not all empty, progress is below 100. */
  function expectSense(message: Message | { readonly status: 'none' }): void {
    if (message.status === 'working') expect(message.progress >= 0 && message.progress < 100).toBe(true);
    if (message.status !== 'completed') return;
    expect(message.messageId).not.toBe('');
    expect(message.prompts.map((prompt) => typeof prompt)).toEqual(Array(4).fill('string'));
    expect(message.prompts.map((prompt) => answerCell(prompt)).join('')).not.toBe('');
  }

  function typedErrorOrValue(read: () => unknown): void {
    try {
      read();
    } catch (error) {
      if (!(error instanceof DescribeApiError)) throw error;
    }
  }

  /** A copy in which whatever is at a random place is replaced by something else, or taken away. */
  function spoil(value: unknown, place: readonly number[], by: unknown): unknown {
    const [first, ...deeper] = place;
    const entries: [string, unknown][] =
      typeof value === 'object' && value !== null ? Object.entries(value) : [];
    if (first === undefined || entries.length === 0) return by;
    const at = first % entries.length;
    const spoilt = entries
      .map(([key, inner], index) => [key, index === at ? spoil(inner, deeper, by) : inner] as const)
      .filter(([, inner]) => inner !== GONE);
    return Array.isArray(value) ? spoilt.map(([, inner]) => inner) : Object.fromEntries(spoilt);
  }
  const GONE = Symbol('taken away');
  const places = fc.array(fc.nat(50), { minLength: 1, maxLength: 4 });
  const spoiltBodies = (ofThese: (fixture: Fixture) => boolean) => {
    const bodies = FIXTURES.filter(([, fixture]) => ofThese(fixture)).map(([, { body }]) => body);
    return fc
      .tuple(fc.constantFrom(...bodies), places, fc.oneof(tree, fc.constant(GONE)))
      .map(([body, place, by]) => spoil(body, place, by))
      .map((body) => (body === GONE ? null : body));
  };

  test.each(DIALECT_NAMES)(
    'a recorded answer with something else in it is read by %s or is a typed error',
    (name) => {
      const dialect = dialectFor({ dialect: name });
      let read = 0;
      fc.assert(
        fc.property(
          spoiltBodies((fixture) => fixture.dialect === name),
          (body) => {
            const answer = { status: 200, headers: {}, text: JSON.stringify(body), tooLong: false };
            const json = () => readAnswer(answer, call, dialect);
            typedErrorOrValue(() => {
              expectSense(dialect.readSubmitted(json(), call, {}).completed ?? { status: 'none' });
              read++;
            });
            typedErrorOrValue(() => {
              expectSense(dialect.readMessage?.(json(), 'm1', call) ?? { status: 'none' });
              read++;
            });
          },
        ),
        { numRuns: 1000 },
      );
      // It is not only errors that were tried.
      expect(read).toBeGreaterThan(200);
    },
  );

  test('a recorded delivery with something else in it names a message, a ref, or nothing', () => {
    let named = 0;
    fc.assert(
      fc.property(
        spoiltBodies(({ kind }) => kind !== 'submit'),
        (body) => {
          const { ref, messageId } = readClaim(JSON.stringify(body)) ?? {};
          for (const id of [ref, messageId].filter((one) => one !== undefined)) {
            expect(id.trim()).toBe(id);
            expect(id.length).toBeGreaterThan(0);
            expect(id.length).toBeLessThanOrEqual(512);
            named++;
          }
        },
      ),
      { numRuns: 1000 },
    );
    expect(named).toBeGreaterThan(200);
  });

  test.each(DIALECT_NAMES)('any JSON is read by %s or is a typed error', (name) => {
    const dialect = dialectFor({ dialect: name });
    fc.assert(
      fc.property(tree, fc.integer({ min: 100, max: 599 }), (body, status) => {
        typedErrorOrValue(() => dialect.readSubmitted(body, call, {}));
        typedErrorOrValue(() => dialect.readMessage?.(body, 'm1', call));
        const answer = { status, headers: {}, text: JSON.stringify(body), tooLong: false };
        typedErrorOrValue(() => dialect.readSubmitted(readAnswer(answer, call, dialect), call, {}));
      }),
      { numRuns: 750 },
    );
  });

  test.each(DIALECT_NAMES)('any text, as a body and in headers, is a typed error of %s', (name) => {
    const dialect = dialectFor({ dialect: name });
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string(), fc.boolean(), (text, header, tooLong) => {
        const headers = {
          'retry-after': header,
          'x-ratelimit-remaining-requests': '0',
          'x-ratelimit-reset-requests': header,
        };
        typedErrorOrValue(() => readAnswer({ status: 200, headers, text, tooLong }, call, dialect));
        typedErrorOrValue(() => readAnswer({ status: 429, headers, text, tooLong }, call, dialect));
      }),
      { numRuns: 250 },
    );
  });

  test('any text of a model gives four prompts that are not all empty, or none', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.string(),
            tree.map((value) => JSON.stringify(value)),
          ),
          { maxLength: 5 },
        ),
        (texts) => {
          const prompts = answeredPrompts(texts.map((text) => ({ text, isCut: false })));
          if (prompts !== undefined) expect(prompts.some((prompt) => prompt !== '')).toBe(true);
        },
      ),
      { numRuns: 750 },
    );
  });
});
