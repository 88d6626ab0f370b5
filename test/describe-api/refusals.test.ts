import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { judgePollFailure, judgeSubmitFailure } from '../../src/describe-api/attempt-policy.js';
import { DescribeClient } from '../../src/describe-api/client.js';
import { DIALECT_NAMES } from '../../src/describe-api/dialects/index.js';
import { type About, aboutOf } from '../../src/describe-api/refusals.js';
import { answering, serve } from './http-server.js';

const HTML = '<!DOCTYPE html><pre>Cannot POST /api/v1/describe</pre>';

test.each<[number, string | undefined, About]>([
  [404, undefined, 'set-up'],
  [404, 'Not Found', 'set-up'],
  [404, 'not found.', 'set-up'],
  [404, '404 page not found', 'set-up'],
  [404, 'Cannot POST /api/v1/describe', 'set-up'],
  [404, 'Route POST:/v2/describe not found', 'set-up'],
  [404, 'The route api/v1/describe could not be found.', 'set-up'],
  [404, 'No static resource v2/describe.', 'set-up'],
  [404, 'Image not found', 'request'],
  [404, 'The image at https://a.example/route/1.jpg was not found', 'request'],
  [404, 'https://a.example/1.jpg: not found', 'request'],
  [404, 'The file does not exist', 'request'],
  [404, 'The model `x` does not exist or you do not have access to it', 'set-up'],
  [404, 'No endpoints found that support image input', 'set-up'],
  [400, 'x is not a valid model ID: invalid model', 'set-up'],
  [400, 'No models loaded. Please load a model', 'set-up'],
  [400, 'unknown variant `image_url`, expected `text`', 'set-up'],
  [400, 'This model does not support vision', 'set-up'],
  [400, 'images are not supported by this model', 'set-up'],
  [400, 'messages[0].content must be a string', 'set-up'],
  [500, 'this model is missing data required for image input', 'set-up'],
  [400, 'WebP images are not supported', 'request'],
  [400, 'Unable to process input image. Please retry or report', 'moment'],
  [400, 'This service does not support images of type image/avif', 'request'],
  [405, 'Method Not Allowed', 'set-up'],
  [407, undefined, 'set-up'],
  [421, undefined, 'set-up'],
  [426, 'Upgrade Required', 'set-up'],
  [400, undefined, 'request'],
  [410, undefined, 'request'],
  [413, undefined, 'request'],
  [415, undefined, 'request'],
  [422, 'Not Found', 'request'],
  [451, undefined, 'request'],
  [200, "Invalid phrase: 'x'", 'image'],
  [400, 'Your request was rejected as a result of our safety system.', 'image'],
  [400, 'the model refuses: I am at capacity', 'image'],
  [400, 'cannot load https://a.example/api-key-invalid/timeout/no-credits.png', 'request'],
  [400, 'The image could not be downloaded, try again later', 'moment'],
  [200, 'Internal error', 'moment'],
  [400, "Failed to generate JSON. Please adjust your prompt. See 'failed_generation'.", 'moment'],
  [418, undefined, 'moment'],
  [499, undefined, 'moment'],
  [500, 'Not Found', 'moment'],
  [503, 'Your quota', 'moment'],
  [529, 'Overloaded', 'moment'],
  [401, undefined, 'token'],
  [403, 'Incorrect API key provided: sk-1', 'token'],
  [403, undefined, 'forbidden'],
  [403, 'Billing is not enabled', 'quota'],
  [402, undefined, 'quota'],
  [429, 'You exceeded your current quota', 'rate'],
  [400, 'Your job queue is full. Please wait for a job to finish first, then resubmit this one.', 'rate'],
  [200, 'You have reached the maximum allowed number of concurrent jobs', 'rate'],
  [429, 'You have no credits left', 'quota'],
  [429, 'Request too large for x on tokens per min (TPM): Limit 30000, Requested 45000', 'request'],
])('%i with the reason %j speaks of: %s', (status, said, about) => {
  expect(aboutOf({ status, refused: false, said })).toBe(about);
});

test('a dialect that never says so of an image has every 404 for the set-up', () => {
  const facts = { status: 404, refused: false, said: 'what you ask for is not here' };
  expect([aboutOf(facts), aboutOf({ ...facts, isNotFoundSetUp: true })]).toEqual(['request', 'set-up']);
});

/** Answers of servers, and what is expected of each. */
test.each<[number, About]>([
  [403, 'page'],
  [502, 'page'],
  [413, 'request'],
  [415, 'request'],
  [404, 'set-up'],
])('a page with the status %i speaks of: %s', (status, about) => {
  expect(aboutOf({ status, refused: false, said: undefined, isPage: true })).toBe(about);
});

const cases = z
  .array(z.object({ name: z.string(), status: z.number(), body: z.unknown() }))
  .parse(JSON.parse(readFileSync(new URL('../fixtures/model-answers.json', import.meta.url), 'utf8')));

const setUp = { action: 'suspect', why: 'set-up', isSaid: true, countsAsDown: false };
const retry = { action: 'retry', code: 'http', maybePaid: false };

test.each<[string, object, RegExp]>([
  ['timeout-while-downloading', retry, /Timeout while downloading/],
  ['capacity-498', retry, /Flex tier capacity exceeded/],
  ['overloaded-in-200', retry, /^The server is overloaded$/],
  ['bad-key-as-400-list', { action: 'suspect', why: 'token', isSaid: true }, /API key not valid\./],
  ['one-flagged-image-403', { action: 'fail', code: 'rejected', mayBeSetUp: false }, /was flagged/],
  [
    'firewall-403-html',
    { ...retry, countsAsDown: true },
    /^403 Forbidden: a page came where JSON was expected \("Just a moment\.\.\."\)$/,
  ],
  ['no-image-urls-400', { action: 'fail', mayBeSetUp: true }, /^invalid image input$/],
  ['no-images-400', setUp, /--model .*: 400 .*does not support images/],
  ['no-images-500', setUp, /--mmproj\): .*image input is not supported/],
  ['no-images-vllm', setUp, /At most 0 image\(s\)/],
  ['wrong-endpoint-200', setUp, /are --api, .* right\?\): Unexpected endpoint/],
])('judges the answer %s', async (name, verdict, words) => {
  const { status, body } = cases.find((one) => one.name === name) ?? { status: 0, body: '' };
  const isPage = typeof body === 'string';
  const server = await serve(answering(status, body, isPage ? { 'content-type': 'text/html' } : {}));
  const client = new DescribeClient({ baseUrl: server.url, dialect: 'openai', model: 'any' });
  const error: unknown = await client.submit({ url: 'https://a.example/1.jpg' }).catch((e: unknown) => e);
  await client.close();
  expect(judgeSubmitFailure(error)).toMatchObject(verdict);
  expect(judgeSubmitFailure(error).reason).toMatch(words);
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
    expect(verdict).toMatchObject({ action: 'suspect', why: 'set-up', isSaid: true, countsAsDown: false });
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
