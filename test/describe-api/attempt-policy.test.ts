import { describe, expect, test } from 'vitest';
import { judgePollFailure, judgeSubmitFailure, backoffMs } from '../../src/describe-api/attempt-policy.js';
import type { About } from '../../src/describe-api/refusals.js';
import {
  type ApiCall,
  ConnectionError,
  DescribeApiError,
  InterruptedError,
  RejectedError,
  ResponseShapeError,
  SetUpError,
  StatusError,
  TimeoutError,
  UnreadableAnswerError,
} from '../../src/describe-api/errors.js';

const call: ApiCall = { method: 'POST', url: 'http://localhost/describe', redact: (text) => text };
const status = (
  code: number,
  about: { refused?: boolean; reason?: string; retryAfterMs?: number; about?: About } = {},
) => new StatusError(call, { status: code, refused: false, reason: 'why', ...about });
const rejected = (reason: string, code = 200) => new RejectedError(call, { status: code, reason });
const unreadable = (isRefusal: boolean) =>
  new UnreadableAnswerError(call, {
    ...{ answer: 'No.', isRefusal, cutOff: undefined, expected: 'four prompts', wrong: 'no JSON' },
    usage: undefined,
  });
const retry = (code: string, maybePaid: boolean, countsAsDown: boolean) => ({
  action: 'retry',
  code,
  maybePaid,
  countsAsDown,
});
const fail = { action: 'fail', code: 'rejected', mayBeSetUp: true, countsAsDown: false };
const suspect = { action: 'suspect', why: 'quota', isSaid: true, countsAsDown: false };
const setUp = { ...suspect, why: 'set-up' };

describe('a failed submit', () => {
  test.each<[string, unknown, object]>([
    ['no connection', new ConnectionError(call, 'refused'), { action: 'retry-free', countsAsDown: true }],
    ['reset after sending', new InterruptedError(call, 'reset'), retry('network', true, true)],
    ['timeout after sending', new TimeoutError(call, 'late'), retry('network', true, true)],
    ['408', status(408), retry('http', true, false)],
    ['409', status(409), retry('http', true, false)],
    ['425', status(425), retry('http', true, false)],
    ['500', status(500), retry('http', true, true)],
    ['503', status(503), retry('http', true, true)],
    ['500 with a clear refusal', status(500, { refused: true }), retry('http', false, true)],
    ['409 with a clear refusal', status(409, { refused: true }), retry('http', false, false)],
    [
      '503 with Retry-After',
      status(503, { retryAfterMs: 9000 }),
      { ...retry('http', true, true), retryAfterMs: 9000 },
    ],
    [
      'a body of the wrong shape',
      new ResponseShapeError(call, 'JSON', 'yes'),
      { ...retry('bad-response', true, false), mostAttempts: 2 },
    ],
    [
      'a page as a success',
      new ResponseShapeError(call, 'JSON', '<html>', true),
      { ...retry('bad-response', true, true), mostAttempts: 2 },
    ],
    [
      'an answer without prompts, which is asked for once more',
      unreadable(false),
      { ...retry('bad-response', true, false), wrong: 'no JSON', answer: 'No.' },
    ],
    [
      'a model that refuses, which is not asked again',
      unreadable(true),
      { action: 'fail', code: 'bad-response', answer: 'No.', reason: 'the model refuses: No.' },
    ],
    [
      'what the API does for no image',
      new SetUpError(call, 'n'),
      { action: 'stop', why: 'set-up', isPaid: true },
    ],
    ['an unexpected redirect', status(302), retry('bad-response', true, false)],
    ['429', status(429), { action: 'rateLimited', retryAfterMs: undefined, countsAsDown: false }],
    [
      '429 with Retry-After',
      status(429, { retryAfterMs: 3000 }),
      { action: 'rateLimited', retryAfterMs: 3000 },
    ],
    [
      '429 that speaks of quota',
      status(429, { refused: true, reason: 'quota exceeded' }),
      { action: 'rateLimited' },
    ],
    [
      '429 without credits',
      status(429, { reason: '429 Too Many Requests: You have no credits left' }),
      suspect,
    ],
    [
      '429 that sells credits',
      status(429, { reason: 'Rate limit exceeded: add 10 credits to unlock 1000 requests a day' }),
      { action: 'rateLimited' },
    ],
    ['400', rejected('bad url', 400), fail],
    ['404', rejected('Image not found', 404), fail],
    ['422', rejected('unprocessable', 422), fail],
    ['success: false', rejected('the URL is bad'), fail],
    ['moderation', rejected("Invalid phrase: 'x'"), { ...fail, mayBeSetUp: false }],
    ['a refusal of the moment', rejected('Timeout while downloading', 400), retry('http', false, false)],
    ['a 4xx that nobody knows', status(498), retry('http', false, false)],
    ['a page in front of it', status(403, { about: 'page' }), retry('http', false, true)],
    ['a page in place of what was done', status(408, { about: 'page' }), retry('http', true, true)],
    ['a page that leads elsewhere', status(303, { about: 'page' }), retry('http', true, true)],
    ['a page of a gateway', status(502, { about: 'page' }), retry('http', true, true)],
    ['a refusal whose URL has the word credit', rejected('cannot load https://a.b/credit-card.png'), fail],
    ['404 about the path, and not about the image', status(404, { about: 'set-up' }), setUp],
    ['405', status(405), setUp],
    ['451', status(451), fail],
    ['401', status(401), { action: 'stop', why: 'token', countsAsDown: false }],
    ['402', status(402), suspect],
    ['403', status(403), { ...setUp, isSaid: false }],
    ['a refusal that speaks of a credit line', rejected('The credit line covers the picture'), fail],
    ['a refusal that speaks of credits', rejected('You have no Credits left'), suspect],
    ['a refusal that speaks of quota', rejected('Monthly quota exceeded', 400), suspect],
    [
      'a 503 refusal that speaks of quota',
      status(503, { refused: true, reason: 'quota' }),
      { action: 'suspect' },
    ],
    ['an error that is not from the API', new TypeError('bug'), retry('network', true, false)],
    ['a request that cannot be built', new DescribeApiError(call, 'bug'), retry('network', true, false)],
  ])('%s', (_title, error, verdict) => {
    expect(judgeSubmitFailure(error)).toMatchObject(verdict);
  });

  test('keeps the reason of the refusal', () => {
    expect(judgeSubmitFailure(rejected("Invalid phrase: 'x'")).reason).toBe("Invalid phrase: 'x'");
  });
});

describe('a failed poll', () => {
  test.each<[string, unknown, object]>([
    ['no connection', new ConnectionError(call, 'refused'), { action: 'retry', countsAsDown: true }],
    ['reset', new InterruptedError(call, 'reset'), { action: 'retry', countsAsDown: true }],
    ['500', status(500), { action: 'retry', countsAsDown: true }],
    [
      '429',
      status(429, { retryAfterMs: 3000 }),
      { action: 'retry', retryAfterMs: 3000, countsAsDown: false },
    ],
    ['404, not visible yet', rejected('not found', 404), { action: 'retry', countsAsDown: false }],
    ['402', status(402), { action: 'retry', countsAsDown: false }],
    ['a wrong shape', new ResponseShapeError(call, 'JSON', 'yes'), { action: 'retry', countsAsDown: false }],
    [
      'a page as a success',
      new ResponseShapeError(call, 'JSON', '<html>', true),
      { action: 'retry', countsAsDown: true },
    ],
    ['anything else', new Error('bug'), { action: 'retry', countsAsDown: false }],
    ['401', status(401), { action: 'stop', why: 'token', countsAsDown: false }],
  ])('%s', (_title, error, verdict) => {
    expect(judgePollFailure(error)).toMatchObject(verdict);
  });
});

test.each([
  [1, 0, 500],
  [1, 1, 1000],
  [2, 0.5, 1500],
  [3, 0, 2000],
  [7, 1, 60_000],
  [7, 0, 30_000],
  [5000, 0.5, 45_000],
  [0, 1, 1000],
])('waits half to all of the doubled second: attempt %i, random %d', (attempt, random, ms) => {
  expect(backoffMs(attempt, random)).toBe(ms);
});
