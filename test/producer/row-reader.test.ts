import { describe, expect, test } from 'vitest';
import { imageHash, parseBaseUrl } from '../../src/producer/image-url.js';
import { type Row, type RowPlan, readRows } from '../../src/producer/row-reader.js';
import { openText } from './manifest-texts.js';

async function rowsOf(text: string, plan: RowPlan, signal?: AbortSignal): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const batch of readRows(await openText(text), plan, signal)) rows.push(...batch);
  return rows;
}

describe('readRows', () => {
  test('gives each record its absolute URL and image', async () => {
    const url = 'https://host/b.jpg';
    expect(
      await rowsOf('id,file\n1, b.jpg\n', {
        urlColumn: { index: 1, path: [] },
        baseUrl: parseBaseUrl('https://host'),
      }),
    ).toEqual([{ number: 1, line: 2, cells: ['1', ' b.jpg'], url, image: imageHash(url) }]);
  });

  test('gives rows without a usable URL as invalid-url, with the line', async () => {
    const rows = await rowsOf('id,url\n1,\n2,ftp://a/b\n', {
      urlColumn: { index: 1, path: [] },
      keyColumn: { index: 0, path: [] },
    });
    expect(rows).toEqual([
      {
        number: 1,
        line: 2,
        cells: ['1', ''],
        key: '1',
        problem: { code: 'invalid-url', reason: 'line 2: no URL' },
      },
      {
        number: 2,
        line: 3,
        cells: ['2', 'ftp://a/b'],
        key: '2',
        problem: { code: 'invalid-url', reason: 'line 3: not an http(s) URL: ftp://a/b' },
      },
    ]);
  });

  test('gives bad records and rows without a key as bad-record, with the line', async () => {
    const rows = await rowsOf('id,url\n1,2,3\n,http://a/b\n', {
      urlColumn: { index: 1, path: [] },
      keyColumn: { index: 0, path: [] },
    });
    expect(rows.map(({ problem }) => problem)).toEqual([
      { code: 'bad-record', reason: 'line 2: 3 cells where the header has 2' },
      { code: 'bad-record', reason: 'line 3: no key' },
    ]);
    expect(rows.some(({ url, image }) => url !== undefined || image !== undefined)).toBe(false);
  });

  test('has no keys without a key column', async () => {
    expect(
      (await rowsOf('id,url\n,http://a/b\n', { urlColumn: { index: 1, path: [] } }))[0]?.key,
    ).toBeUndefined();
  });

  test('ends at an abort without an error', async () => {
    expect(
      await rowsOf('id,url\n1,http://a/b\n', { urlColumn: { index: 1, path: [] } }, AbortSignal.abort()),
    ).toEqual([]);
  });
});
