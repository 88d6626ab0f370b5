import { chmod, readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { FatalError, UsageError } from '../../src/shared/errors.js';
import { removeFile, replaceFile } from '../../src/writer/durable-file.js';
import { makeFolder } from './fixtures.js';

test('replaces a file as a whole and keeps its mode', async () => {
  const path = join(await makeFolder(), 'file');
  await writeFile(path, 'old');
  await chmod(path, 0o640);
  await replaceFile(path, (handle) => handle.writeFile('new'));
  expect(await readFile(path, 'utf8')).toBe('new');
  expect((await stat(path)).mode & 0o777).toBe(0o640);
});

test('leaves the old file and no temporary one when writing fails', async () => {
  const path = join(await makeFolder(), 'file');
  await writeFile(path, 'old');
  const failing = replaceFile(path, async (handle) => {
    await handle.writeFile('half of it');
    throw new UsageError('the source is broken');
  });
  await expect(failing).rejects.toThrow(UsageError);
  expect(await readFile(path, 'utf8')).toBe('old');
  expect(await readdir(dirname(path))).toEqual(['file']);
});

test('says in one line where nothing can be written', async () => {
  const folder = await makeFolder();
  await writeFile(join(folder, 'file'), '');
  const cases = [
    [join(folder, 'file', 'x'), 'the folder is a file (ENOTDIR)'],
    [join(folder, 'missing', 'x'), 'the folder does not exist (ENOENT)'],
  ] as const;
  for (const [path, reason] of cases) {
    await expect(replaceFile(path, (handle) => handle.writeFile('x'))).rejects.toThrow(FatalError);
    await expect(replaceFile(path, (handle) => handle.writeFile('x'))).rejects.toThrow(
      `${path} cannot be written: ${reason}`,
    );
  }
});

test('removes a file, and is content when there is none', async () => {
  const path = join(await makeFolder(), 'file');
  await writeFile(path, '');
  await removeFile(path);
  await removeFile(path);
  expect(await readdir(dirname(path))).toEqual([]);
});
