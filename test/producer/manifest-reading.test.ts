import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir, readlink, rm } from 'node:fs/promises';
import { PassThrough, Readable } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { describe, expect, test, vi } from 'vitest';
import { openManifest } from '../../src/producer/manifest.js';
import { cellsOf, openText, readAll, readText, streamOf, useManifestFolder } from './manifest-texts.js';

const folder = useManifestFolder();

function csvOf(rows: number): string {
  return `id,url\n${Array.from({ length: rows }, (_, index) => `${index},http://host/${index}.jpg\n`).join('')}`;
}

/** How often this process has a file open; undefined where that cannot be known. */
async function countOpen(path: string): Promise<number | undefined> {
  if (!existsSync('/proc/self/fd')) return undefined;
  const descriptors = await readdir('/proc/self/fd');
  const targets = await Promise.all(descriptors.map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')));
  return targets.filter((target) => target === path).length;
}

async function expectClosed(path: string): Promise<void> {
  expect((await countOpen(path)) ?? 0).toBe(0);
}

describe('reading past broken places', () => {
  test.each([
    ['a quote that is not closed', '"300', /line 302: .*a quote that is not closed/],
    ['a quote within a quoted cell', '"30"0"', /line 302: .*a quote in it that is not doubled/],
    ['a quote within a cell', '30"0', /line 302: .*a quote in it and is not quoted/],
  ])('delivers all records before %s, then fails with the line', async (_, cell, message) => {
    const text = csvOf(600).replace('\n300,', `\n${cell},`);
    for (const sizes of [[1000], [64 * 1024]]) {
      const { records, error } = await readText(text, { sizes });
      expect(records.map(({ cells }) => cells[0])).toEqual(
        Array.from({ length: 300 }, (_, index) => String(index)),
      );
      expect(error).toMatchObject({ name: 'FatalError' });
      expect(String(error)).toMatch(message);
    }
  });

  test('opens a manifest whose sample ends at a broken record, and fails when it comes to it', async () => {
    const path = await folder.write('broken.csv', csvOf(20).replace('\n7,', '\n"7,'));
    for (const manifest of [
      await openManifest({ path }),
      await openText(csvOf(20).replace('\n7,', '\n"7,')),
    ]) {
      expect(manifest.sample).toHaveLength(7);
      const { records, error } = await readAll(manifest);
      expect(records).toHaveLength(7);
      expect(String(error)).toContain('line 9: cannot be read past the record that begins here');
    }
    await expectClosed(path);
  });

  test('does not read a tsv cell on over the next lines when it begins with an ordinary quote', async () => {
    const text = 'id\ttitle\turl\n1\tx\tu1\n2\t"Sunset\tu2\n3\t"Dawn\tu3\n4\ty\tu4\n';
    const { records, error } = await readText(text, { format: 'tsv' });
    expect(records.map(({ cells }) => cells[0])).toEqual(['1']);
    expect(String(error)).toContain('line 3: cannot be read past the record that begins here');
  });

  test('does not hold more than 16 MB of a record', async () => {
    const megabyte = `${'x'.repeat(1023)}\n`.repeat(1024);
    async function* endless() {
      yield 'id,url\n1,a\n2,"';
      for (let count = 0; count < 64; count++) yield await Promise.resolve(megabyte);
      throw new Error('read on');
    }
    for (const format of ['csv', 'tsv'] as const) {
      const text = async function* () {
        for await (const part of endless()) yield format === 'tsv' ? part.replaceAll(',', '\t') : part;
      };
      const manifest = await openManifest({
        path: '-',
        format,
        input: Readable.from(text()),
      });
      const { records, error } = await readAll(manifest);
      expect(records).toHaveLength(1);
      expect(String(error)).toMatch(/^FatalError: stdin, line 3: .*longer than 16 MB/);
    }
  });

  test('fails on a line of more than 16 MB in a list', async () => {
    const { records, error } = await readText(`a\n${'x'.repeat(17 * 1024 * 1024)}`, { format: 'list' });
    expect(cellsOf(records)).toEqual([['a']]);
    expect(String(error)).toMatch(/^FatalError: stdin, line 2: longer than 16 MB/);
  });

  test('delivers all that is before the place where gzip data breaks off, however slowly it is read', async () => {
    const packed = gzipSync(csvOf(20_000));
    for (const length of [packed.length - 3, packed.length / 2, packed.length / 3]) {
      const path = await folder.write('slow.csv.gz', packed.subarray(0, length));
      const whole = spawnSync('gzip', ['-dc', path]).stdout.toString().split('\n').length - 2;
      const records: unknown[] = [];
      const manifest = await openManifest({ path });
      const reading = (async () => {
        for await (const batch of manifest.batches()) {
          records.push(...batch);
          await nextTurn();
        }
      })();
      await expect(reading).rejects.toThrow(/the gzip data is damaged or incomplete/);
      // Nobody can tell whether the last line went on.
      expect([whole - 1, whole]).toContain(records.length);
    }
  });

  test('fails with the place where gzip data breaks off', async () => {
    const packed = gzipSync(csvOf(200_000));
    const path = await folder.write('cut.csv.gz', packed.subarray(0, packed.length / 2));
    const { records, error } = await readAll(await openManifest({ path }));
    expect(records.length).toBeGreaterThan(10_000);
    expect(error).toMatchObject({ name: 'FatalError' });
    const line = records.at(-1)?.line ?? 0;
    expect(String(error)).toContain(
      `cannot be read past the record at line ${line}: the gzip data is damaged`,
    );
    await expectClosed(path);
  });

  test.each(['url,id', 'id,id', 'https://images.example/1.jpg,2'])(
    'fails when the header has changed to %s since the manifest was opened',
    async (header) => {
      const path = await folder.write('changing.csv', 'id,url\n1,a\n');
      const manifest = await openManifest({ path });
      await folder.write('changing.csv', `${header}\na,1\n`);
      const { records, error } = await readAll(manifest);
      expect(records).toEqual([]);
      expect(String(error)).toContain('its header has changed');
    },
  );

  test('fails when the file has gone since', async () => {
    const path = await folder.write('gone.csv', 'id,url\n1,a\n');
    const manifest = await openManifest({ path });
    await rm(path);
    expect(String((await readAll(manifest)).error)).toContain('gone.csv: no such file');
  });
});

describe('ending early', () => {
  test('closes the file at a break', async () => {
    const path = await folder.write('break.csv', csvOf(20_000));
    const manifest = await openManifest({ path });
    await expectClosed(path);
    for await (const batch of manifest.batches()) {
      expect(batch[0]?.cells[0]).toBe('0');
      expect((await countOpen(path)) ?? 1).toBe(1);
      break;
    }
    await expectClosed(path);
  });

  test('closes a packed file at a break', async () => {
    const path = await folder.write('break.csv.gz', gzipSync(csvOf(200_000)));
    const manifest = await openManifest({ path });
    for await (const batch of manifest.batches()) {
      expect(batch.length).toBeGreaterThan(0);
      break;
    }
    await expectClosed(path);
  });

  test('ends without an error at an abort, and closes the file', async () => {
    const path = await folder.write('abort.csv', csvOf(20_000));
    const manifest = await openManifest({ path });
    const controller = new AbortController();
    let batches = 0;
    for await (const batch of manifest.batches(controller.signal)) {
      batches += batch.length > 0 ? 1 : 0;
      controller.abort();
    }
    expect(batches).toBe(1);
    await expectClosed(path);
    expect((await readAll(manifest, controller.signal)).records).toEqual([]);
    expect((await readAll(manifest)).records).toHaveLength(20_000);
  });

  test.each(['abort', 'close'])('ends on %s while it waits for more of a pipe', async (how) => {
    const input = new PassThrough();
    input.write('id,url\n1,a\n');
    const opening = openManifest({ path: '-', format: 'csv', input });
    // 100 records are read before it is open.
    input.write(csvOf(200).slice('id,url\n'.length));
    const manifest = await opening;
    const controller = new AbortController();
    const reading = readAll(manifest, controller.signal);
    await vi.waitFor(() => expect(input.readableLength).toBe(0));
    if (how === 'abort') controller.abort();
    else await manifest.close();
    const { error } = await reading;
    expect(error).toBeUndefined();
    expect(input.destroyed).toBe(true);
  });

  test('does not give the half of a record that was read when it was aborted', async () => {
    const input = new PassThrough();
    input.write(`${csvOf(150)}150,http://ho`);
    const manifest = await openManifest({ path: '-', format: 'csv', input });
    const controller = new AbortController();
    const ids: (string | undefined)[] = [];
    for await (const batch of manifest.batches(controller.signal)) {
      ids.push(...batch.map(({ cells }) => cells[0]));
      controller.abort();
    }
    expect(ids).not.toContain('150');
  });

  test('closes a pipe that nobody has read from', async () => {
    const input = streamOf(csvOf(1000), [100]);
    const manifest = await openManifest({ path: '-', format: 'csv', input });
    await manifest.close();
    expect(input.destroyed).toBe(true);
    expect(await readAll(manifest)).toEqual({ records: [], error: undefined });
  });

  test('closes the file that it refuses', async () => {
    const path = await folder.write('refused.csv', 'id,id\n1,2\n');
    await expect(openManifest({ path })).rejects.toThrow('several columns');
    await expectClosed(path);
  });
});

describe('a pipe', () => {
  test('is read once, from the first record, those of the sample included', async () => {
    for (const bytes of [csvOf(1000), gzipSync(csvOf(1000))]) {
      const manifest = await openText(bytes, { sizes: [777] });
      expect(manifest).toMatchObject({ replayable: false, sizeBytes: undefined, name: 'stdin', path: '-' });
      expect(manifest.sample).toHaveLength(100);
      const { records, error } = await readAll(manifest);
      expect(error).toBeUndefined();
      expect(records.map(({ number }) => number)).toEqual(
        Array.from({ length: 1000 }, (_, index) => index + 1),
      );
      expect(String((await readAll(manifest)).error)).toContain('stdin can be read only once');
    }
  });

  test('is not read faster than its records are taken', async () => {
    let delivered = 0;
    async function* lines() {
      yield 'id,url\n';
      for (; delivered < 1000; delivered++) yield await Promise.resolve(csvOf(500).slice('id,url\n'.length));
    }
    const manifest = await openManifest({ path: '-', format: 'csv', input: Readable.from(lines()) });
    let taken = 0;
    for await (const batch of manifest.batches()) {
      taken += batch.length;
      expect(delivered).toBeLessThan(taken / 500 + 40);
      if (taken > 100_000) break;
    }
    expect(delivered).toBeLessThan(300);
  });

  test('passes on that it broke', async () => {
    const input = new PassThrough();
    input.write(csvOf(200));
    const manifest = await openManifest({ path: '-', format: 'csv', input });
    input.destroy(new Error('the pipe burst'));
    const { error } = await readAll(manifest);
    expect(String(error)).toMatch(/^FatalError: stdin cannot be read.*: the pipe burst/);
  });
});
