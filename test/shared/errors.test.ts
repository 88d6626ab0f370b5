import { mkdir, open, readFile, realpath, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { fileTrouble, messageOf, shownPath } from '../../src/shared/errors.js';
import { makeFolder } from '../writer/fixtures.js';

const failure = async (work: Promise<unknown>): Promise<unknown> => {
  try {
    return await work;
  } catch (error) {
    return error;
  }
};

test('what the file system reports is said in words, with its code and the path', async () => {
  const folder = await makeFolder();
  await mkdir(join(folder, 'folder'));
  await writeFile(join(folder, 'file'), '');
  const long = join(folder, 'x'.repeat(600));
  const cases: [() => Promise<unknown>, string, string][] = [
    [() => realpath(join(folder, 'none')), 'no such file or folder (ENOENT)', join(folder, 'none')],
    [() => readFile(join(folder, 'folder')), 'it is a folder (EISDIR)', ''],
    [
      () => open(join(folder, 'file', 'x')),
      'a part of the path is a file and no folder (ENOTDIR)',
      join(folder, 'file', 'x'),
    ],
    [() => open(long), 'the name is too long (ENAMETOOLONG)', shownPath(long)],
  ];
  for (const [work, words, path] of cases) {
    const error = await failure(work());
    expect(fileTrouble(error)).toBe(words);
    expect(messageOf(error)).toBe(path === '' ? words : `${words}: ${path}`);
  }
});

test.each([
  ['EACCES', 'permission denied (EACCES)'],
  ['EPERM', 'permission denied (EPERM)'],
  ['ENOSPC', 'no space left on the disk (ENOSPC)'],
  ['EDQUOT', 'the disk quota is spent (EDQUOT)'],
  ['EMFILE', 'too many files are open (EMFILE)'],
])('%s is said in words', (code, words) => {
  const error = Object.assign(new Error(`${code}: as the system says it, write`), { code, syscall: 'write' });
  expect(messageOf(error)).toBe(words);
  expect(fileTrouble(error, { [code]: 'special' })).toBe(`special (${code})`);
});

test('errors of sockets and others keep their message, on one line', () => {
  const refused = { code: 'ECONNREFUSED', syscall: 'connect', path: '/run/redis.sock' };
  expect(messageOf(Object.assign(new Error('connect ECONNREFUSED'), refused))).toBe('connect ECONNREFUSED');
  const noSocket = Object.assign(new Error('connect ENOENT /run/redis.sock'), { ...refused, code: 'ENOENT' });
  expect(messageOf(noSocket)).toBe('connect ENOENT /run/redis.sock');
  expect(messageOf(new Error('a\n  b'))).toBe('a b');
  expect(fileTrouble(new Error('broken'))).toBe('broken');
});

test('a long path is shown with both of its ends', () => {
  expect(shownPath('/short.csv')).toBe('/short.csv');
  const shown = shownPath(`/start/${'x'.repeat(600)}/end.csv`);
  expect(shown).toMatch(/^\/start\/x+…x+\/end\.csv$/);
  expect(shown).toHaveLength(201);
});
