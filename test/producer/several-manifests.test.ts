import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { describe, expect, test } from 'vitest';
import { readRows } from '../../src/producer/row-reader.js';
import { findManifests, openManifests } from '../../src/producer/several-manifests.js';
import { cellsOf, readAll, useManifestFolder } from './manifest-texts.js';

const folder = useManifestFolder();

async function make(name: string, content: string | Uint8Array = 'id,url\n1,https://a/b\n'): Promise<string> {
  const path = folder.path(name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, content);
  return path;
}

async function open(names: readonly string[], options: Parameters<typeof openManifests>[1] = {}) {
  return await openManifests(await findManifests(names, []), options);
}

describe('patterns', () => {
  test.each([
    [['p/part-*.csv'], ['p/part-1.csv', 'p/part-2.csv', 'p/part-10.csv']],
    [['p/part-?.csv'], ['p/part-1.csv', 'p/part-2.csv']],
    [
      ['p/part-10.csv', 'p/part-*'],
      ['p/part-10.csv', 'p/part-1.csv', 'p/part-2.csv'],
    ],
    [['p/**/*.csv'], ['p/a/deep/x.csv', 'p/a/y.csv', 'p/part-1.csv', 'p/part-2.csv', 'p/part-10.csv']],
    [['p/*/*.csv'], ['p/a/y.csv']],
    [['p/**'], ['p/a/deep/x.csv', 'p/a/y.csv', 'p/part-1.csv', 'p/part-2.csv', 'p/part-10.csv']],
    [
      ['p/part-2.csv', './p/part-1.csv', 'p/../p/part-2.csv', 'p/part-1*'],
      ['p/part-2.csv', './p/part-1.csv', 'p/part-10.csv'],
    ],
    [['p/.h*'], ['p/.hidden.csv']],
    [['odd/what?.tsv'], ['odd/what?.tsv']],
    [['p/none.csv'], ['p/none.csv']],
  ])('%j name files in natural order, each once', async (names, files) => {
    for (const name of ['part-10', 'part-2', 'part-1', '.hidden', 'a/y', 'a/deep/x'])
      await make(`p/${name}.csv`);
    await make('odd/what?.tsv');
    await make('odd/whats.tsv');
    const own = [folder.path('p/own.csv')];
    await make('p/own.csv');
    await symlink(folder.path('p'), folder.path('p/a/deep/loop')).catch(() => undefined);
    await symlink('part-2.csv', folder.path('p/tonight.csv')).catch(() => undefined);
    const absolute = (name: string) => folder.path(name);
    expect(await findManifests(names, own, folder.path('.'))).toEqual(files);
    expect(await findManifests(names.map(absolute), own)).toEqual(files.map(absolute));
  });

  test.each([
    [['p/x*.csv'], 'p/x*.csv: no file matches: check the pattern'],
    [['none/*/x.csv'], 'none/*/x.csv: no file matches'],
    [['p/part-1.csv', '-'], '- is stdin: only files can be run together: run it by itself'],
    [['p/part-1.csv', 'p'], 'p is a folder: only files can be run together'],
  ])('%j are refused', async (names, message) => {
    await make('p/part-1.csv');
    await expect(findManifests(names, [], folder.path('.'))).rejects.toThrow(message);
  });
});

describe('several manifests', () => {
  test('of different formats are one, in order, and twice', async () => {
    const parquet = parquetWriteBuffer({
      columnData: [
        { name: 'id', data: [3], type: 'INT32' },
        { name: 'url', data: ['https://a/3'], type: 'STRING' },
      ],
    });
    const manifest = await open([
      await make('1.csv', 'id;url\n1;https://a/1\n\n;\n'),
      await make('2.jsonl.gz', gzipSync('{"id":2,"url":"https://a/2"}\n')),
      await make('3.parquet', new Uint8Array(parquet)),
    ]);
    expect([manifest.format, manifest.delimiter, manifest.columns]).toEqual(['csv', ';', ['id', 'url']]);
    expect([manifest.replayable, manifest.sample.length]).toEqual([true, 4]);
    for (let reading = 0; reading < 2; reading++) {
      const { records, error } = await readAll(manifest);
      expect(error).toBeUndefined();
      expect(records.map(({ number }) => number)).toEqual([1, 2, 3, 4]);
      expect(cellsOf(records.filter(({ isEmpty }) => isEmpty !== true))).toEqual([
        ['1', 'https://a/1'],
        ['2', 'https://a/2'],
        ['3', 'https://a/3'],
      ]);
    }
    await manifest.close();
  });

  test('name the file in what is wrong with a row', async () => {
    const manifest = await open([await make('1.csv'), await make('2.csv', 'id,url\n1,\n')]);
    const rows = [];
    for await (const batch of readRows(manifest, { urlColumn: { index: 1, path: [] } })) rows.push(...batch);
    expect(rows.map(({ problem }) => problem?.reason)).toEqual([
      undefined,
      `${folder.path('2.csv')}, line 2: no URL`,
    ]);
  });

  test.each([
    ['id,uri\n1,2\n', 'lacks url and adds uri'],
    ['id,url,x\n1,2,3\n', 'adds x'],
    ['id\n1\n', 'lacks url'],
    ['url,id\n1,2\n', 'has them in another order'],
  ])('with other columns %j are refused in one line that names both', async (text, difference) => {
    const [one, other] = [await make('1.csv'), await make('2.csv', text)];
    await expect(open([one, other])).rejects.toThrow(
      `the columns of ${one} and ${other} differ: the second ${difference}: say --union for all of them`,
    );
  });

  test('have all columns with --union: what one has not is empty, or null', async () => {
    const one = await make('1.csv', 'id,url\n1,https://a/1\n');
    const other = await make('2.jsonl', '{"n":[2],"url":"https://a/2"}\n');
    const manifest = await open([one, other], { union: true });
    expect(manifest.columns).toEqual(['id', 'url', 'n']);
    const { records } = await readAll(manifest);
    expect(cellsOf(records)).toEqual([
      ['1', 'https://a/1', ''],
      ['', 'https://a/2', '[2]'],
    ]);
    expect(records.map(({ isJson }) => isJson)).toEqual([undefined, [true, false, true]]);
  });

  test('give what comes before a place that cannot be read, and name the file', async () => {
    const packed = gzipSync(`id,url\n${'2,https://a/b\n'.repeat(50_000)}`);
    const broken = await make('2.csv.gz', packed.subarray(0, packed.length - 20));
    const manifest = await open([await make('1.csv'), broken, await make('3.csv')]);
    const { records, error } = await readAll(manifest);
    expect(records.length).toBeGreaterThan(1);
    expect(String(error)).toContain(`${broken} cannot be read past the record at line`);
  });

  test('end with an abort, and close what was opened when one cannot be', async () => {
    const manifest = await open([await make('1.csv'), await make('2.csv')]);
    const ended = new AbortController();
    const read = [];
    for await (const batch of manifest.batches(ended.signal)) {
      read.push(...batch);
      ended.abort();
    }
    expect(read).toHaveLength(1);
    await expect(open([await make('1.csv'), join(folder.path('.'), 'none.csv')])).rejects.toThrow(
      'no such file',
    );
  });
});
