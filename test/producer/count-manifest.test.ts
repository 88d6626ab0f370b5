import { describe, expect, test } from 'vitest';
import { type IsKnown, countManifest } from '../../src/producer/count-manifest.js';
import { type Manifest, openManifest } from '../../src/producer/manifest.js';
import { OutputIndex } from '../../src/writer/output-index.js';
import { openText, useManifestFolder } from './manifest-texts.js';

const folder = useManifestFolder();
const allNew: IsKnown = () => 'new';

async function openCsv(text: string): Promise<Manifest> {
  return openManifest({ path: await folder.write('manifest.csv', text) });
}

describe('countManifest', () => {
  test('counts the example: one row without a URL, two that share an image', async () => {
    const manifest = await openManifest({ path: 'examples/paintings.csv' });
    expect(await countManifest(manifest, { urlColumn: 8 }, { isKnown: allNew })).toEqual({
      sampled: false,
      rows: 24,
      images: 22,
      resumed: 0,
      copied: 1,
      failedBefore: 0,
      failedImages: 0,
      newImages: 22,
      localImages: 0,
      signed: [],
      left: 0,
      badUrls: 1,
      badRecords: 0,
      duplicateKeys: 0,
      emptyRecords: 0,
      unknownKeys: new Set(),
      firstUrl: 'http://www.tate.org.uk/art/images/work/N/N01/N01523_8.jpg',
    });
  });

  test('asks for each row with a URL once, in order, and adds up what it is told', async () => {
    const manifest = await openCsv(
      'id,url\n1,http://a/1\n2,http://a/1\n3,\n4,http://a/2\n5,,x\n6,http://a/3\n7,http://a/3\n',
    );
    const asked: string[] = [];
    const answers = ['resumed', 'copied', 'copied', 'new', 'new'] as const;
    const counts = await countManifest(
      manifest,
      { urlColumn: 1 },
      {
        isKnown: ({ url, key, image }) => {
          expect(key).toBeUndefined();
          expect(image).toHaveLength(22);
          return answers[asked.push(url) - 1] ?? 'new';
        },
      },
    );
    expect(asked).toEqual(['http://a/1', 'http://a/1', 'http://a/2', 'http://a/3', 'http://a/3']);
    expect(counts).toMatchObject({
      rows: 7,
      images: 3,
      resumed: 1,
      copied: 3,
      newImages: 1,
      badUrls: 1,
      badRecords: 1,
    });
  });

  test('counts an image as new once, even when some of its rows are copied from the output', async () => {
    const manifest = await openCsv('id,url\n1,http://a/1\n2,http://a/1\n3,http://a/1\n');
    const counts = await countManifest(manifest, { urlColumn: 1 }, { isKnown: allNew });
    expect(counts).toMatchObject({ rows: 3, images: 1, newImages: 1, copied: 2 });
  });

  test('counts rows with a key seen before as duplicates, and not their images', async () => {
    const manifest = await openCsv('id,url\na,http://a/1\nb,\na,http://a/2\n,http://a/3\nb,http://a/4\n');
    const index = new OutputIndex({ keyed: true });
    const asked: (string | undefined)[] = [];
    const counts = await countManifest(
      manifest,
      { urlColumn: 1, keyColumn: 0 },
      {
        isKnown: (row) => {
          asked.push(row.key);
          return index.markSeen(row) ? 'new' : 'repeated';
        },
      },
    );
    // The first b has no URL, so that its key is not taken.
    expect(asked).toEqual(['a', 'a', 'b']);
    expect(counts).toMatchObject({
      ...{ rows: 5, images: 2, newImages: 2 },
      ...{ badUrls: 1, badRecords: 1, duplicateKeys: 1 },
    });
  });

  test('always balances: every row is counted in one place', async () => {
    const lines = Array.from(
      { length: 3000 },
      (_, row) => `${row % 900},${['http://a/', '', 'x', 'http://b/'][row % 4]}${row % 70}`,
    );
    const manifest = await openCsv(`id,url\n${lines.join('\n')}\nbad\n`);
    const answers = ['new', 'resumed', 'copied', 'failed'] as const;
    for (const keyColumn of [undefined, 0]) {
      const counts = await countManifest(
        manifest,
        { urlColumn: 1, keyColumn },
        { isKnown: ({ url }) => answers[Number(url.at(-1))] ?? 'new' },
      );
      const { rows, resumed, copied, failedBefore, newImages, badUrls, badRecords, duplicateKeys } = counts;
      expect(rows).toBe(3001);
      expect(resumed + copied + failedBefore + newImages + badUrls + badRecords + duplicateKeys).toBe(rows);
      expect(failedBefore).toBeGreaterThan(0);
    }
  });

  test('counts the first records only of a pipe, which stays readable, and of what is over 1 GB', async () => {
    const text = `id,url\n${Array.from({ length: 300 }, (_, row) => `${row},http://a/${row}`).join('\n')}\n`;
    const pipe = await openText(text);
    expect(await countManifest(pipe, { urlColumn: 1 }, { isKnown: allNew })).toMatchObject({
      sampled: true,
      rows: 100,
    });
    let rows = 0;
    for await (const batch of pipe.batches()) rows += batch.length;
    expect(rows).toBe(300);
    const huge = { ...(await openCsv(text)), sizeBytes: 1024 ** 3 + 1 };
    expect(await countManifest(huge, { urlColumn: 1 }, { isKnown: allNew })).toMatchObject({
      sampled: true,
      rows: 100,
    });
  });

  test('counts up to a place that cannot be read past, and says so', async () => {
    const manifest = await openCsv('id,url\n1,http://a/1\n2,http://a/2\n"3,http://a/3\n');
    const counts = await countManifest(manifest, { urlColumn: 1 }, { isKnown: allNew });
    expect(counts.rows).toBe(2);
    expect(counts.unreadable).toContain('line 4: cannot be read past');
  });
});
