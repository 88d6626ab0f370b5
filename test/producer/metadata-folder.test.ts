import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openManifest } from '../../src/producer/manifest.js';
import { cellsOf, readAll } from './manifest-texts.js';

let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bulk-describe-metadata-'));
  for (const name of ['a.jpg', 'b.jpg', 'c.jpg']) await writeFile(join(folder, name), name);
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const parquet = parquetWriteBuffer({
  columnData: [
    { name: 'file_name', data: ['b.jpg', 'a.jpg'] },
    { name: 'text', data: ['B;', 'A'] },
  ],
});

test.each([
  ['metadata.csv', 'file_name;text\nb.jpg;"B;"\na.jpg;A\n'],
  ['metadata.jsonl', '{"file_name":"b.jpg","text":"B;"}\n{"file_name":"a.jpg","text":"A"}\n'],
  ['metadata.parquet', new Uint8Array(parquet)],
])('a folder with %s is read by it, and images that it does not name are left out', async (name, content) => {
  await writeFile(join(folder, name), content);
  const manifest = await openManifest({ path: folder });
  expect(manifest).toMatchObject({ format: 'folder', columns: ['file_name', 'text'] });
  for (let pass = 0; pass < 2; pass++) {
    expect(cellsOf((await readAll(manifest)).records)).toEqual([
      ['b.jpg', 'B;'],
      ['a.jpg', 'A'],
    ]);
  }
});

test('metadata without file names is of something else, and two of them are refused', async () => {
  await writeFile(join(folder, 'metadata.csv'), 'key,value\nx,y\n');
  const manifest = await openManifest({ path: folder });
  for (let pass = 0; pass < 2; pass++) expect((await readAll(manifest)).records).toHaveLength(3);
  await writeFile(join(folder, 'metadata.jsonl'), '{"file_name":"a.jpg"}\n');
  await expect(openManifest({ path: folder })).rejects.toThrow(
    /has metadata\.csv and metadata\.jsonl: run the one that counts, with --image-root/,
  );
});
