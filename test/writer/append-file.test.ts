import { existsSync } from 'node:fs';
import { type FileHandle, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { FatalError } from '../../src/shared/errors.js';
import { AppendFile } from '../../src/writer/append-file.js';
import { makeFolder } from './fixtures.js';

/** Replaces a method of a handle. */
function replaceMethod(
  handle: FileHandle,
  name: 'write' | 'datasync' | 'truncate',
  value: (buffer: Buffer, offset: number, length: number, position: number) => Promise<unknown>,
): void {
  Object.defineProperty(handle, name, { value, configurable: true });
}

/** What the system itself says, where there is a device that is always full. */
async function noSpaceError(buffer: Uint8Array): Promise<unknown> {
  if (!existsSync('/dev/full')) return Object.assign(new Error('write'), { code: 'ENOSPC' });
  const full = await open('/dev/full', 'w');
  try {
    await full.write(buffer);
    return new Error('the device took something');
  } catch (error) {
    return error;
  } finally {
    await full.close();
  }
}

/** @param options.room bytes until the disk is full: those that fit are written, as the system does */
async function makeFile({ room = Infinity } = {}) {
  const path = join(await makeFolder(), 'out.csv');
  await writeFile(path, 'header\n');
  const [handle, disk] = [await open(path, 'r+'), await open(path, 'r+')];
  let left = room;
  replaceMethod(handle, 'write', async (buffer, offset, length, position) => {
    const fits = Math.min(left, length);
    if (fits === 0) throw await noSpaceError(buffer);
    left -= fits;
    return await disk.write(buffer, offset, fits, position);
  });
  const file = new AppendFile(path, 'the output', handle, 7);
  onTestFinished(async () => {
    await file.close();
    await disk.close();
  });
  return { path, file, handle, disk, content: () => readFile(path, 'utf8') };
}

describe('append', () => {
  test('writes groups one behind the other and says where each line starts', async () => {
    const { file, content } = await makeFile();
    expect(await file.append(['größe\n', 'two\n'])).toEqual([7, 15]);
    expect(await file.append(['three\n'])).toEqual([19]);
    expect(await file.append([])).toEqual([]);
    expect(await content()).toBe('header\ngröße\ntwo\nthree\n');
  });

  test('goes on after a write that took only a part', async () => {
    const { file, handle, disk, content } = await makeFile();
    replaceMethod(handle, 'write', (buffer, offset, _, position) => disk.write(buffer, offset, 1, position));
    await file.append(['some bytes\n']);
    expect(await content()).toBe('header\nsome bytes\n');
  });

  test('takes back what was written when the disk is full, says so in one line, and takes no more', async () => {
    const { file, path, content } = await makeFile({ room: 8 });
    await file.append(['12345\n']);
    const refused = file.append(['67890\n']);
    await expect(refused).rejects.toThrow(FatalError);
    await expect(refused).rejects.toThrow(
      `no space left on the disk (ENOSPC): the output ${path} cannot be written; what it held before is kept, run the same command again when that is solved`,
    );
    expect(await content()).toBe('header\n12345\n');
    await expect(file.append(['x'])).rejects.toThrow('no space left');
    expect(await content()).toBe('header\n12345\n');
  });

  test('takes no more after an fsync that failed, and says when the end may be torn', async () => {
    const { file, handle } = await makeFile();
    const trouble = () =>
      Promise.reject(Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' }));
    replaceMethod(handle, 'datasync', trouble);
    replaceMethod(handle, 'truncate', trouble);
    await expect(file.append(['x\n'])).rejects.toThrow(
      'its end may be torn (the disk reports an error (EIO))',
    );
    replaceMethod(handle, 'datasync', () => Promise.resolve());
    await expect(file.append(['x\n'])).rejects.toThrow('the disk reports an error (EIO): the output');
  });

  test.each([
    ['deleted', (path: string) => rm(path)],
    ['deleted', (path: string) => rename(path, `${path}.moved`)],
    ['replaced', (path: string) => rm(path).then(() => writeFile(path, 'header\n'))],
    ['changed', (path: string) => writeFile(path, 'header\nmore\n')],
    ['changed', (path: string) => writeFile(path, '')],
  ])('refuses when the file was %s', async (how, change) => {
    const { file, path } = await makeFile();
    // Kept open, so that a new file cannot be given the old one's inode.
    await file.append(['one\n']);
    await change(path);
    const refused = file.append(['two\n']);
    await expect(refused).rejects.toThrow(FatalError);
    await expect(refused).rejects.toThrow(`the output ${path} was ${how} while the run goes on`);
  });

  test('leaves a file alone that others have changed', async () => {
    const { file, path, content } = await makeFile();
    await writeFile(path, 'header\nsomebody else was here\n');
    await expect(file.append(['two\n'])).rejects.toThrow('changed');
    expect(await content()).toBe('header\nsomebody else was here\n');
  });
});
