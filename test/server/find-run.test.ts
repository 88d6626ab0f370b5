import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { findRun } from '../../src/service/known-run.js';

const runs = [
  { run: 'new', output: '/data/a.csv' },
  { run: 'old', output: '/data/a.csv' },
  { run: 'here', output: resolve('b.csv') },
  { run: 'c1', output: '/data/1/c.csv' },
  { run: 'c2', output: '/data/2/c.csv' },
];

test.each([
  ['old', 'old'],
  ['/data/a.csv', 'new'],
  ['a.csv', 'new'],
  ['b.csv', 'here'],
  ['1/c.csv', 'c1'],
  ['./a.csv', 'new'],
])('a run named %s is %s', (text, run) => {
  expect(findRun(runs, text).run).toBe(run);
});
test('refuses a name of several outputs, and one that nobody has', () => {
  expect(() => findRun(runs, 'c.csv')).toThrow('c.csv may be c1 (/data/1/c.csv), c2 (/data/2/c.csv)');
  expect(() => findRun(runs, 'd.csv')).toThrow('no run d.csv in the last day');
});
