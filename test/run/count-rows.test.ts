import { describe, expect, test } from 'vitest';
import { countsOf } from '../helpers/preview.js';
import { Workspace } from '../helpers/workspace.js';
import { streamOf } from '../producer/manifest-texts.js';

const DESCRIBED = ',p1,p2,p3,p4,m1,2026-01-02T03:04:05.000Z';
const REJECTED = ',rejected,no image,1,m1';

/** Counts a manifest of `id` and `url`. @param rows those of the output and of its failures file, without our columns */
async function countCsv(
  text: string,
  {
    keyColumn,
    described = [],
    rejected = [],
  }: {
    readonly keyColumn?: string;
    readonly described?: readonly string[];
    readonly rejected?: readonly string[];
  } = {},
) {
  const workspace = await Workspace.forTest(`id,url\n${text}`);
  if (described.length > 0) {
    const header = 'id,url,prompt_1,prompt_2,prompt_3,prompt_4,message_id,described_at\n';
    await workspace.write('o.csv', header + described.map((row) => `${row}${DESCRIBED}\n`).join(''));
  }
  if (rejected.length > 0) {
    const header = 'id,url,error_code,error,attempts,message_id\n';
    await workspace.write('o.failed.csv', header + rejected.map((row) => `${row}${REJECTED}\n`).join(''));
  }
  return await countsOf({
    ...{ manifest: workspace.at('m.csv'), output: workspace.at('o.csv'), urlColumn: 'url', keyColumn },
  });
}

describe('the rows of a manifest', () => {
  test('are counted in the example: one without a URL, two that share an image', async () => {
    expect(await countsOf({ manifest: 'examples/paintings.csv' })).toEqual({
      sampled: false,
      rows: 24,
      images: 22,
      described: 0,
      toCopy: 1,
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
      unreadable: undefined,
    });
  });

  test('are described, copied, new or bad, by what the output holds', async () => {
    const counts = await countCsv(
      '1,http://a/1\n2,http://a/1\n3,\n4,http://a/2\n5,,x\n6,http://a/3\n7,http://a/3\n',
      { described: ['1,http://a/1', '9,http://a/2'] },
    );
    expect(counts).toMatchObject({
      ...{ rows: 7, images: 3, described: 2, toCopy: 2, newImages: 1 },
      ...{ badUrls: 1, badRecords: 1 },
    });
  });

  test('share an image that is new once, even when some of them are copied', async () => {
    const counts = await countCsv('1,http://a/1\n2,http://a/1\n3,http://a/1\n');
    expect(counts).toMatchObject({ rows: 3, images: 1, newImages: 1, toCopy: 2 });
  });

  test('with a key seen before are duplicates, and their images are not counted', async () => {
    const text = 'a,http://a/1\nb,\na,http://a/2\n,http://a/3\nb,http://a/4\n';
    // The first b has no URL, so that its key is not taken.
    expect(await countCsv(text, { keyColumn: 'id' })).toMatchObject({
      ...{ rows: 5, images: 2, newImages: 2 },
      ...{ badUrls: 1, badRecords: 1, duplicateKeys: 1 },
    });
  });

  test('always balance: every row is counted in one place', async () => {
    const lines = Array.from(
      { length: 3000 },
      (_, row) => `${row % 900},${['http://a/', '', 'x', 'http://b/'][row % 4]}${row % 70}`,
    );
    for (const keyColumn of [undefined, 'id']) {
      const { rows, described, toCopy, failedBefore, newImages, ...counts } = await countCsv(
        `${lines.join('\n')}\nbad\n`,
        {
          keyColumn,
          described: lines.slice(0, 100).filter(hasUrl),
          rejected: lines.slice(100, 160).filter(hasUrl),
        },
      );
      const { badUrls, badRecords, duplicateKeys } = counts;
      expect(rows).toBe(3001);
      expect(described + toCopy + failedBefore + newImages + badUrls + badRecords + duplicateKeys).toBe(rows);
      expect(described).toBeGreaterThan(0);
      expect(failedBefore).toBeGreaterThan(0);
    }
  });

  test('are the first ones only of a pipe, and of what is over 1 GB', async () => {
    const text = `id,url\n${Array.from({ length: 300 }, (_, row) => `${row},http://a/${row}`).join('\n')}\n`;
    const firstOnly = { sampled: true, rows: 100 };
    expect(await countsOf({ manifest: '-', format: 'csv', input: streamOf(text) })).toMatchObject(firstOnly);
    const manifest = (await Workspace.forTest(text)).at('m.csv');
    expect(await countsOf({ manifest })).toMatchObject({ sampled: false, rows: 300 });
    expect(await countsOf({ manifest }, 1024 ** 3 + 1)).toMatchObject(firstOnly);
  });

  test('are counted up to a place that cannot be read past, which is said', async () => {
    const counts = await countCsv('1,http://a/1\n2,http://a/2\n"3,http://a/3\n');
    expect(counts.rows).toBe(2);
    expect(counts.unreadable).toContain('line 4: cannot be read past');
  });
});

function hasUrl(line: string): boolean {
  return line.includes('http');
}
