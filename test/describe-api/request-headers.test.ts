import type { IncomingHttpHeaders } from 'node:http';
import { inspect } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import { DescribeClient, type DescribeClientOptions } from '../../src/describe-api/client.js';
import type { CallHeaders } from '../../src/describe-api/request-headers.js';
import { headers as readHeaders, secretHeaders } from '../../src/cli/option-spec.js';
import { accountOf, accountOptionsIn, checkApi } from '../../src/run/api-options.js';
import { answering, serve } from './http-server.js';

const IMAGE = 'https://images.example/1.jpg';
const SECRET = 'proj-secret/1+2';

/** What a submit and a poll bear. */
async function sentWith(options: Partial<DescribeClientOptions>, query = '') {
  const sent: IncomingHttpHeaders[] = [];
  const server = await serve((request, response) => {
    sent.push(request.headers);
    answering(200, { success: true, messageId: 'm1', progress: 5 })(request, response);
  });
  const client = new DescribeClient({ baseUrl: `${server.url}/v2${query}`, token: 'secret', ...options });
  onTestFinished(() => client.close());
  await client.submit({ url: IMAGE });
  await client.message('m1');
  return { sent, paths: server.requests };
}

describe('a call', () => {
  test.each([
    [undefined, { authorization: 'Bearer secret' }],
    ['bearer', { authorization: 'Bearer secret' }],
    ['Authorization', { authorization: 'secret' }],
    ['mj-api-secret', { 'mj-api-secret': 'secret' }],
  ])('with --auth-header %s has the token there', async (authHeader, expected) => {
    const { sent } = await sentWith({ authHeader });
    expect(sent).toMatchObject([expected, expected]);
    if (authHeader === 'mj-api-secret') expect(sent[0]).not.toHaveProperty('authorization');
  });

  test('has the headers that are given, secret or not', async () => {
    const { sent } = await sentWith({
      headers: { 'X-Title': 'mine' },
      secretHeaders: { 'X-Project': SECRET },
    });
    const expected = { 'x-title': 'mine', 'x-project': SECRET, authorization: 'Bearer secret' };
    expect(sent).toMatchObject([expected, expected]);
  });

  test('keeps the query of the base URL, also beside parameters of its own', async () => {
    const { paths } = await sentWith({ expireMins: 3 }, '/?api-version=2026-01&a=b%20c');
    expect(paths).toEqual([
      'POST /v2/describe?api-version=2026-01&a=b+c',
      'GET /v2/message/m1?api-version=2026-01&a=b+c&expireMins=3',
    ]);
  });

  test('by GET has the query and the headers, and the token in no header', async () => {
    const { paths, sent } = await sentWith({ submitMethod: 'get', headers: { 'x-a': 'b' } }, '?v=1');
    expect(paths[0]).toBe(`GET /v2/describe?v=1&authToken=secret&url=${encodeURIComponent(IMAGE)}`);
    expect(sent[0]).toMatchObject({ 'x-a': 'b' });
    expect(sent[0]).not.toHaveProperty('authorization');
  });
});

test.each<[string, CallHeaders, RegExp]>([
  ['no name', { headers: { 'a b': 'c' } }, /--header: "a b" is no name of a header/],
  ['a name that HTTP decides', { headers: { Host: 'c' } }, /--header Host: .*leave it away/],
  [
    'a line break',
    { secretHeaders: { a: `${SECRET}\n` } },
    /--header-file a: a header cannot have this value/,
  ],
  ['a header twice', { headers: { A: 'b' }, secretHeaders: { a: SECRET } }, /--header-file a: .*there twice/],
  ['the token twice', { secretHeaders: { Authorization: SECRET } }, /holds the token already/],
  ['no name for the token', { authHeader: 'x y' }, /--auth-header: "x y" is no name/],
])('%s is refused before anything is sent, without its value', (_title, options, message) => {
  const construct = () => new DescribeClient({ baseUrl: 'http://h.example', token: 'secret', ...options });
  expect(construct).toThrow(message);
  expect(construct).not.toThrow(SECRET);
  expect(() => checkApi({ token: 'secret', ...options })).toThrow(message);
});

test('the values of secret headers, and of secrets in the query, are in no part of an error', async () => {
  const server = await serve((request, response) => {
    const sent = `${request.url ?? ''} ${JSON.stringify(request.headers)}`;
    answering(500, { error: `${decodeURIComponent(sent)} ${sent}` })(request, response);
  });
  const client = new DescribeClient({
    baseUrl: `${server.url}/?key=a-key-1&api-version=2026-01`,
    token: 'the-token',
    secretHeaders: { 'X-Project': SECRET, 'X-Other': 'Basic dXNlcjp3b3Jk' },
  });
  onTestFinished(() => client.close());
  const calls = await Promise.allSettled([client.submit({ url: IMAGE }), client.message('m1')]);
  const shown = inspect(calls, { depth: Infinity, showHidden: true, maxStringLength: null });
  for (const secret of ['a-key-1', 'the-token', SECRET, encodeURIComponent(SECRET), 'dXNlcjp3b3Jk'])
    expect(shown).not.toContain(secret);
  expect(shown).toContain('[token]');
});

describe('an account', () => {
  const api = 'https://api.example/v2';
  const nameOf = (options: Parameters<typeof accountOf>[0]) => accountOf({ api, ...options }).name;

  test('has a name of its own for each header, auth header and query, and the old one without', () => {
    expect(nameOf({})).toBe('default');
    const names = [
      nameOf({ headers: { a: '1' } }),
      nameOf({ headers: { a: '2' } }),
      nameOf({ authHeader: 'api-key' }),
      nameOf({ secretHeaders: { a: '1' } }),
      nameOf({ api: `${api}?v=1` }),
      nameOf({ dialect: 'openai', model: 'm' }),
      nameOf({ dialect: 'openai', model: 'm', headers: { a: '1' } }),
    ];
    expect(new Set(names).size).toBe(names.length);
    for (const name of names.slice(0, 5)) expect(name).toMatch(/^default\+[0-9a-f]{8}$/);
  });

  test('is named by a part of the options, without the token, as a server hands it to its runs', () => {
    const options = {
      api: `${api}?v=1`,
      authHeader: 'a',
      secretHeaders: { b: SECRET },
      fields: 'c',
      model: 'm',
    };
    const all = { ...options, dialect: 'openai', account: 'x', token: 'secret' };
    expect(accountOf(accountOptionsIn(all))).toEqual(accountOf(all));
    expect(accountOptionsIn(all)).not.toHaveProperty('token');
  });

  test('does not depend on case and order, and never on the value of a secret', () => {
    expect(nameOf({ headers: { A: '1', b: '2' } })).toBe(nameOf({ headers: { B: '2', a: '1' } }));
    expect(nameOf({ secretHeaders: { a: '1' } })).toBe(nameOf({ secretHeaders: { A: SECRET } }));
    expect(nameOf({ authHeader: 'API-Key' })).toBe(nameOf({ authHeader: 'api-key' }));
  });
});

describe('the flags', () => {
  test('read name=value, and a file of name: value lines', () => {
    expect(readHeaders('a=b=c\nX-Y = z ', '--header')).toEqual({ a: 'b=c', 'X-Y': 'z' });
    expect(secretHeaders('Api-Key: x:y\r\n\nOther:z', '--header-file h')).toEqual({
      'Api-Key': 'x:y',
      Other: 'z',
    });
  });

  test('refuse what is none, and show nothing of a file', () => {
    expect(() => readHeaders('a', '--header')).toThrow('--header: expected name=value');
    expect(() => readHeaders('a=1\na=2', '--header')).toThrow('there twice');
    const broken = () => secretHeaders(`a: b\n${SECRET}`, '--header-file h');
    expect(broken).toThrow('--header-file h: line 2: expected name: value');
    expect(broken).not.toThrow(SECRET);
  });
});
