import { describe, expect, test } from 'vitest';
import { judgePollFailure, judgeSubmitFailure } from '../../src/describe-api/attempt-policy.js';
import { DescribeClient } from '../../src/describe-api/client.js';
import { DIALECT_NAMES } from '../../src/describe-api/dialects/index.js';
import { isSetUpTrouble, setUpTrouble } from '../../src/describe-api/answers.js';
import { answering, serve } from './http-server.js';

const HTML = '<!DOCTYPE html><pre>Cannot POST /api/v1/describe</pre>';

test.each<[number, string | undefined, boolean]>([
  [404, undefined, true],
  [404, 'Not Found', true],
  [404, 'not found.', true],
  [404, '404 page not found', true],
  [404, 'Cannot POST /api/v1/describe', true],
  [404, 'Route POST:/v2/describe not found', true],
  [404, 'The route api/v1/describe could not be found.', true],
  [404, 'No static resource v2/describe.', true],
  [404, 'Image not found', false],
  [404, 'The image at https://a.example/route/1.jpg was not found', false],
  [404, 'https://a.example/1.jpg: not found', false],
  [404, 'The file does not exist', false],
  [405, 'Method Not Allowed', true],
  [407, undefined, true],
  [421, undefined, true],
  [426, 'Upgrade Required', true],
  [400, undefined, false],
  [410, undefined, false],
  [413, undefined, false],
  [415, undefined, false],
  [422, 'Not Found', false],
  [451, undefined, false],
  [500, 'Not Found', false],
])('%i with the reason %j is about the set-up: %j', (status, said, isSetUp) => {
  const trouble = setUpTrouble(status, said);
  expect(trouble !== undefined).toBe(isSetUp);
  expect(trouble === undefined || isSetUpTrouble(`${trouble}: ${said}`)).toBe(true);
});

test('a dialect that never says so of an image has every 404 for the set-up', () => {
  expect(setUpTrouble(404, 'model "llava" not found', true)).toContain('--model');
});

describe.each(DIALECT_NAMES)('%s', (dialect) => {
  const clientAt = (baseUrl: string) =>
    new DescribeClient({ baseUrl, dialect, ...(dialect === 'openai' && { model: 'any' }) });

  test.each<[number, unknown]>([
    [404, ''],
    [404, HTML],
    [404, { success: false, msg: 'Not found' }],
    [404, { statusCode: 404, message: 'Cannot POST /describe', error: 'Not Found' }],
    [405, { detail: 'Method Not Allowed' }],
    [407, HTML],
    [421, ''],
    [426, ''],
  ])('takes a %i with %j at a submit for trouble with the set-up', async (status, body) => {
    const server = await serve(answering(status, body));
    const client = clientAt(server.url);
    const error: unknown = await client.submit({ url: 'https://a.example/1.jpg' }).catch((e: unknown) => e);
    await client.close();
    const verdict = judgeSubmitFailure(error);
    expect(verdict).toMatchObject({ action: 'suspect', saysQuota: true, countsAsDown: false });
    expect(verdict.reason).toMatch(/are --api, --dialect and .* right\?/);
  });
});

test('a 404 that gives a reason of its own refuses the image', async () => {
  const server = await serve(answering(404, { success: false, msg: 'Image not found' }));
  const client = new DescribeClient({ baseUrl: server.url });
  const error: unknown = await client.submit({ url: 'https://a.example/1.jpg' }).catch((e: unknown) => e);
  await client.close();
  expect(judgeSubmitFailure(error)).toMatchObject({ action: 'fail', reason: 'Image not found' });
});

test('a message that is not there says nothing of the set-up', async () => {
  const server = await serve(answering(404, HTML));
  const client = new DescribeClient({ baseUrl: server.url });
  const error: unknown = await client.message('m1').catch((e: unknown) => e);
  await client.close();
  expect(judgePollFailure(error)).toMatchObject({ action: 'retry', reason: '404 Not Found' });
});
