import { expect, test } from 'vitest';
import {
  credentialsOf,
  isAuthorized,
  isLoopbackName,
  refuseOpenDashboard,
  refuseRequest,
} from '../../src/dashboard/access.js';

const ADA = { user: 'ada', password: 'a:b ü' };
const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`;
const AS_ADA = basic('ada:a:b ü');

test.each([
  ['nothing', undefined, false],
  ['the right pair', AS_ADA, true],
  ['another case of the scheme', AS_ADA.replace('Basic', 'basic'), true],
  ['a wrong password', basic('ada:a:b'), false],
  ['a longer password', basic('ada:a:b üx'), false],
  ['a wrong user', basic('eve:a:b ü'), false],
  ['no password', basic('ada'), false],
  ['another scheme', AS_ADA.replace('Basic', 'Bearer'), false],
  ['no base64', 'Basic %%%', false],
])('basic auth with %s', (_what, header, let_in) => {
  expect(isAuthorized(header, ADA)).toBe(let_in);
});

const LOCAL = { host: '127.0.0.1:3100' };

test.each([
  // Without a password: this machine, by its own names.
  ['a page', 'GET', LOCAL, {}, undefined],
  ['localhost', 'GET', { host: 'localhost:3100' }, {}, undefined],
  ['IPv6', 'GET', { host: '[::1]:3100' }, {}, undefined],
  ['a foreign name that resolves to this machine', 'GET', { host: 'evil.example:3100' }, {}, 403],
  ['a name that only begins like ours', 'GET', { host: '127.0.0.1.evil.example' }, {}, 403],
  ['no name', 'GET', {}, {}, 403],
  // Writes.
  [
    'a write of our page',
    'PUT',
    { ...LOCAL, origin: 'http://127.0.0.1:3100', 'sec-fetch-site': 'same-origin' },
    {},
    undefined,
  ],
  [
    'a write of our page through a proxy that calls us by another name',
    'POST',
    { ...LOCAL, origin: 'https://board.example', 'sec-fetch-site': 'same-origin' },
    {},
    undefined,
  ],
  ['the same of a browser that says no more', 'POST', { ...LOCAL, origin: 'https://board.example' }, {}, 403],
  ['a write of curl', 'PUT', LOCAL, {}, undefined],
  ['a write of another page', 'PUT', { ...LOCAL, origin: 'https://evil.example' }, {}, 403],
  ['a write of another port', 'POST', { ...LOCAL, origin: 'http://127.0.0.1:8080' }, {}, 403],
  ['a write of a page without an origin', 'POST', { ...LOCAL, origin: 'null' }, {}, 403],
  ['a write whose browser says cross-site', 'PATCH', { ...LOCAL, 'sec-fetch-site': 'cross-site' }, {}, 403],
  ['a write of a sibling', 'DELETE', { ...LOCAL, 'sec-fetch-site': 'same-site' }, {}, 403],
  // Read-only.
  ['a read', 'GET', LOCAL, { readOnly: true }, undefined],
  ['a head', 'HEAD', LOCAL, { readOnly: true }, undefined],
  ['a write', 'PUT', LOCAL, { readOnly: true }, 405],
  // With a password: any name, and nothing without it.
  ['a page without password', 'GET', LOCAL, { credentials: ADA }, 401],
  [
    'a page with password',
    'GET',
    { host: 'board.example', authorization: AS_ADA },
    { credentials: ADA },
    undefined,
  ],
  [
    'a foreign write with the password that the browser sends',
    'PUT',
    { host: 'board.example', authorization: AS_ADA, origin: 'https://evil.example' },
    { credentials: ADA },
    403,
  ],
  [
    'our write behind a proxy',
    'PUT',
    { host: 'board.example', authorization: AS_ADA, origin: 'https://board.example' },
    { credentials: ADA },
    undefined,
  ],
  ['a write without password, read-only', 'PUT', LOCAL, { credentials: ADA, readOnly: true }, 401],
] as const)('%s by %s', (_what, method, headers, rules, status) => {
  const refusal = refuseRequest({ method, headers }, { credentials: undefined, readOnly: false, ...rules });
  expect(refusal?.status).toBe(status);
});

test('takes only addresses of this machine alone for loopback', () => {
  for (const name of ['127.0.0.1', '127.8.9.1', 'localhost', 'LOCALHOST', '::1', '[::1]']) {
    expect(isLoopbackName(name), name).toBe(true);
  }
  for (const name of [
    '0.0.0.0',
    '::',
    '',
    '10.0.0.1',
    '127.0.0.1.nip.io',
    'localhost.evil.example',
    '1270.0.0.1',
  ]) {
    expect(isLoopbackName(name), name).toBe(false);
  }
});

test('refuses in one line to be reachable from other machines without user and password', () => {
  expect(() => refuseOpenDashboard('0.0.0.0', undefined)).toThrow(
    'the dashboard on 0.0.0.0 could be reached from other machines: set DASHBOARD_USER and DASHBOARD_PASSWORD',
  );
  refuseOpenDashboard('0.0.0.0', ADA);
  refuseOpenDashboard('127.0.0.1', undefined);
});

test('takes user and password from the environment, both or none', () => {
  expect(credentialsOf({})).toBeUndefined();
  expect(credentialsOf({ DASHBOARD_USER: 'ada', DASHBOARD_PASSWORD: 'x' })).toEqual({
    user: 'ada',
    password: 'x',
  });
  expect(() => credentialsOf({ DASHBOARD_USER: 'ada' })).toThrow('DASHBOARD_PASSWORD is not set');
  expect(() => credentialsOf({ DASHBOARD_PASSWORD: 'x' })).toThrow('DASHBOARD_USER is not set');
  expect(() => credentialsOf({ DASHBOARD_USER: 'a:b', DASHBOARD_PASSWORD: 'x' })).toThrow('colon');
});
