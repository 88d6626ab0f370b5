import { readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { FatalError, UsageError } from '../../src/shared/errors.js';
import { newRunId, readRunFile, writeRunFile, type RunFile } from '../../src/writer/run-file.js';
import { makeFolder } from './fixtures.js';

const run: RunFile = {
  version: 1,
  run: 'a0123456789b',
  queue: 'redis://localhost',
  account: 'api.example.com@thenextleg@default',
  simulator: false,
  urlColumn: 'url',
  keyColumn: 'id',
  open: true,
  createdAt: '2024-01-01T00:00:00.000Z',
};

test('is read as it was written, and replaced as a whole', async () => {
  const path = join(await makeFolder(), 'out.csv.run');
  expect(await readRunFile(path)).toBeUndefined();
  await writeRunFile(path, { ...run, open: false, baseUrl: 'https://images' });
  await writeRunFile(path, run);
  expect(await readRunFile(path)).toEqual(run);
  expect(await readdir(dirname(path))).toEqual(['out.csv.run']);
});

test.each([
  ['', 'it is no JSON object'],
  ['{"version":1,', 'it is no JSON object'],
  ['[]', 'it is no JSON object'],
  [JSON.stringify({ ...run, version: 2 }), 'its field version is wrong or missing'],
  [JSON.stringify({ ...run, run: 'x' }), 'its field run is wrong or missing'],
  [JSON.stringify({ ...run, open: undefined }), 'its field open is wrong or missing'],
])('refuses %j and says what is wrong', async (content, reason) => {
  const path = join(await makeFolder(), 'out.csv.run');
  await writeFile(path, content);
  const refused = readRunFile(path);
  await expect(refused).rejects.toThrow(UsageError);
  await expect(refused).rejects.toThrow(`the run file ${path} cannot be used: ${reason}`);
});

test('says in one line when it cannot be read or written', async () => {
  const folder = await makeFolder();
  await expect(readRunFile(folder)).rejects.toThrow(`the run file ${folder} cannot be read: it is a folder`);
  await writeFile(join(folder, 'file'), '');
  await expect(writeRunFile(join(folder, 'file', 'x.run'), run)).rejects.toThrow(FatalError);
});

test('gives every run an id of a letter and eleven letters or digits', () => {
  const ids = Array.from({ length: 1000 }, newRunId);
  expect(ids.every((id) => /^[a-z][a-z0-9]{11}$/.test(id))).toBe(true);
  expect(new Set(ids).size).toBe(1000);
});
