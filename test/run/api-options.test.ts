import { expect, test } from 'vitest';
import { z } from 'zod';
import { type ApiOptions, checkApi } from '../../src/run/api-options.js';

/** What a program in JavaScript may give. */
const anyOptions = z.custom<ApiOptions>();

const token = 'any';
const secret = undefined;

test.each([
  [{ token, webhooks: { url: 'ftp://x y', secret } }, /--webhook-url: expected an http\(s\) URL/],
  [{ token, webhooks: { url: 'http://user:word@h.example/', secret } }, /--webhook-url: expected/],
  [{ token, dialect: 'openai', model: 'm', webhooks: { url: 'http://h.example', secret } }, /no webhooks/],
  [{ token, dialect: 'openai' }, /needs a model/],
  [{}, /no token/],
])('options of a program that cannot work are refused as flags are: %j', (options, message) => {
  expect(() => checkApi(anyOptions.parse(options))).toThrow(message);
});
