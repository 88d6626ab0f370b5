import { expect, test } from 'vitest';
import { openAddressWarning, parseListenAddress } from '../../src/webhook/receiver.js';

test.each([
  ['127.0.0.1:8787', { host: '127.0.0.1', port: 8787 }],
  ['[::1]:0', { host: '::1', port: 0 }],
  ['hooks.test:65535', { host: 'hooks.test', port: 65_535 }],
])('%s is an address to listen on', (text, address) => {
  expect(parseListenAddress(text, '--webhook-listen')).toEqual(address);
});

test.each([
  '',
  '8787',
  ':8787',
  'h:',
  'h:65536',
  '::1:80',
  '[h]:80',
  'http://h:80',
  'h:80/x',
  'h:-1',
  'a b:80',
])('"%s" is none', (text) => {
  expect(() => parseListenAddress(text, '--webhook-listen')).toThrow(
    `--webhook-listen ${text}: expected <host>:<port>, such as 127.0.0.1:8787`,
  );
});

test.each([
  ['127.0.0.1', false],
  ['127.1.2.3', false],
  ['::1', false],
  ['localhost', false],
  ['0.0.0.0', true],
  ['::', true],
  ['10.0.0.7', true],
  ['127.0.0.1.example', true],
])('that others can reach %s is warned of: %j', (host, isOpen) => {
  expect(openAddressWarning({ host, port: 1 }) !== undefined).toBe(isOpen);
});
