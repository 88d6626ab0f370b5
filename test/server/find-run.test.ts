import { mkdir, mkdtemp, realpath, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
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

test('a run is found by its output in a folder that is reached through a symbolic link', async () => {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'bulk-describe-runs-')));
  onTestFinished(() => rm(folder, { recursive: true }));
  await mkdir(join(folder, 'real'));
  await symlink('real', join(folder, 'link'));
  const there = { run: 'there', output: join(folder, 'real', 'a.csv') };
  expect(findRun([there], join(folder, 'link', 'a.csv')).run).toBe('there');
});

test('refuses a name of several outputs, and one that nobody has', () => {
  expect(() => findRun(runs, 'c.csv')).toThrow('c.csv may be c1 (/data/1/c.csv), c2 (/data/2/c.csv)');
  expect(() => findRun(runs, 'd.csv')).toThrow('no run d.csv in the last day');
});
