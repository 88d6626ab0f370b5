import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type ApiCall, ResponseShapeError } from '../../src/describe-api/errors.js';
import { thenextleg } from '../../src/describe-api/dialects/polled.js';
import { parseMessage } from '../../src/describe-api/dialects/polled.js';
import { isRefusal, reasonIn } from '../../src/describe-api/refusals.js';

const call: ApiCall = { method: 'GET', url: 'http://localhost/v2/message/m1', redact: (text) => text };
const content = ['one', 'two', 'three', 'four'].map((word, i) => `${i + 1}\uFE0F\u20E3 ${word} --ar 50:93`);
const prompts = ['one', 'two', 'three', 'four'].map((word) => `${word} --ar 50:93`);
const body = {
  createdAt: '2023-04-04T13:07:01.927Z',
  originatingMessageId: 'OtfxNzfMIKBPVE1aP4u4',
  content,
  ref: 'r1',
  type: 'describe',
  responseAt: '2023-04-04T13:06:01.000Z',
};
const completed = {
  status: 'completed',
  messageId: 'm1',
  prompts,
  ref: 'r1',
};

describe('a message', () => {
  test.each<[string, unknown, object]>([
    [
      'in progress',
      { progress: 37, progressImageUrl: 'https://a/b.webp' },
      { status: 'working', progress: 37 },
    ],
    ['just begun', { progress: 0, progressImageUrl: null }, { status: 'working', progress: 0 }],
    ['with its progress as text', { progress: '42' }, { status: 'working', progress: 42 }],
    ['that expired', { progress: 'incomplete' }, { status: 'incomplete' }],
    ['completed, flat', { progress: 100, ...body }, completed],
    ['completed, nested', { progress: 100, response: body }, completed],
    ['completed, one string', { progress: 100, ...body, content: content.join('\n') }, completed],
    [
      'completed, nested, one string',
      { progress: 100, response: { ...body, content: content.join(' ') } },
      completed,
    ],
    ['completed, its progress as text', { progress: '100', ...body }, completed],
    [
      'with an old date',
      { progress: 100, ...body, createdAt: { _seconds: 1680613621, _nanoseconds: 927000000 } },
      completed,
    ],
    [
      'with dates and ref that make no sense, since the prompts are paid for',
      { progress: 100, ...body, createdAt: { _seconds: 1e300 }, responseAt: 'yesterday', ref: {} },
      { ...completed, ref: undefined },
    ],
  ])('%s is read', (_title, value, message) => {
    expect(parseMessage(value, 'm1', call)).toEqual(message);
  });

  test.each<[string, unknown]>([
    ['null', null],
    ['a list', []],
    ['a text', 'done'],
    ['another word for progress', { progress: 'queued' }],
    ['100 without prompts', { progress: 100 }],
    ['three prompts', { progress: 100, ...body, content: content.slice(1) }],
    ['prompts that are no texts', { progress: 100, ...body, content: [1, 2, 3, 4] }],
  ])('that is %s is a typed error', (_title, value) => {
    expect(() => parseMessage(value, 'm1', call)).toThrow(ResponseShapeError);
  });

  test('error shows what was expected and what came, on one short line', () => {
    const odd = { progress: 'queued', note: 'line 1\nline 2', more: 'x'.repeat(5000) };
    expect(() => parseMessage(odd, 'm1', call)).toThrow(
      /^GET http:\/\/localhost\/v2\/message\/m1: expected a message: .+, got \{ progress: 'queued', .{1,140}…$/,
    );
  });
});

test('an answer to a submit is read', () => {
  const answer = { success: true, messageId: 'OtfxNzfMIKBPVE1aP4u4', createdAt: '2023-04-04T13:07:01.927Z' };
  const { messageId } = answer;
  expect(thenextleg.readSubmitted(answer, call)).toEqual({ messageId });
  expect(thenextleg.readSubmitted({ messageId }, call)).toEqual({ messageId });
});

test.each<[unknown]>([[{ success: true }], [{ success: true, messageId: ' ' }], [null], [['m1']]])(
  'an answer to a submit without a messageId is a typed error: %j',
  (answer) => {
    expect(() => thenextleg.readSubmitted(answer, call)).toThrow(ResponseShapeError);
  },
);

test.each<[object, string | undefined]>([
  [{ success: false, msg: "Invalid phrase: 'x'" }, "Invalid phrase: 'x'"],
  [{ success: false, message: 'no' }, 'no'],
  [{ success: false, error: 'no' }, 'no'],
  [{ success: false, error: { message: 'deep' } }, 'deep'],
  [{ success: false, msg: '', error: 'no' }, 'no'],
  [{ success: false }, undefined],
])('a refusal is known, with its reason: %j', (refusal, reason) => {
  expect(isRefusal(refusal)).toBe(true);
  expect(reasonIn(refusal)).toBe(reason);
});

/** Bodies that are nearly right, mixed with any JSON. */
const almost = fc.oneof(
  fc.jsonValue(),
  fc.record(
    {
      progress: fc.oneof(fc.jsonValue(), fc.integer({ min: -5, max: 120 }), fc.constant('incomplete')),
      content: fc.oneof(fc.jsonValue(), fc.array(fc.string(), { minLength: 3, maxLength: 5 }), fc.string()),
      response: fc.oneof(
        fc.jsonValue(),
        fc.record({ content: fc.constant(content), createdAt: fc.jsonValue() }),
      ),
      createdAt: fc.oneof(fc.jsonValue(), fc.record({ _seconds: fc.double(), _nanoseconds: fc.double() })),
      messageId: fc.jsonValue(),
      success: fc.jsonValue(),
      msg: fc.jsonValue(),
    },
    { requiredKeys: [] },
  ),
);

test('any body is a valid result or a typed error', () => {
  const parsers: ((value: unknown) => unknown)[] = [
    (value) => parseMessage(value, 'm1', call),
    (value) => thenextleg.readSubmitted(value, call),
  ];
  fc.assert(
    fc.property(almost, fc.constantFrom(...parsers), (value, parse) => {
      isRefusal(value);
      reasonIn(value);
      try {
        parse(value);
      } catch (error) {
        expect(error).toBeInstanceOf(ResponseShapeError);
      }
    }),
    { numRuns: 1500 },
  );
});
