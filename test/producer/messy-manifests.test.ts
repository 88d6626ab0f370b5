import { describe, expect, test } from 'vitest';
import { findUrlColumn } from '../../src/producer/columns.js';
import { type ManifestOptions, openManifest } from '../../src/producer/manifest.js';
import { type Row, readRows } from '../../src/producer/row-reader.js';
import { countsOf } from '../helpers/preview.js';

const IMG = 'https://img.example.org';

async function read(name: string, options: Omit<ManifestOptions, 'path'> = {}) {
  const manifest = await openManifest({ path: `test/fixtures/manifests/${name}`, ...options });
  try {
    const plan = { urlColumn: findUrlColumn(manifest.columns, manifest.sample) };
    const rows: Row[] = [];
    for await (const batch of readRows(manifest, plan)) rows.push(...batch);
    const counts = await countsOf({ ...options, manifest: manifest.path });
    return {
      columns: manifest.columns,
      unnamedColumns: manifest.unnamedColumns,
      cells: rows.map(({ cells }) => cells),
      outcomes: rows.map(({ url, problem }) => url ?? problem?.reason),
      counts,
    };
  } finally {
    await manifest.close();
  }
}

// Files as people have them: from Excel, pandas, Airtable, a shop, a web page.
describe('a manifest with', () => {
  test.each(['sep-line.csv', 'sep-quoted-bom.csv'])(
    "Excel's sep= line has its delimiter from it (%s)",
    async (name) => {
      const { columns, outcomes } = await read(name);
      expect(columns.slice(0, 2)).toEqual(['id', 'photo']);
      expect(outcomes[0]).toBe(`${IMG}/a.jpg`);
      expect(outcomes).toHaveLength(columns.length - 1);
    },
  );

  test('unnamed columns that are empty, and empty rows, is read without them, and they are counted', async () => {
    const { columns, unnamedColumns, outcomes, counts } = await read('trailing-empty.csv');
    expect([columns, unnamedColumns]).toEqual([['id', 'photo', 'title'], 3]);
    expect(outcomes).toEqual([`${IMG}/a.jpg`, `${IMG}/b.jpg`]);
    expect(counts).toMatchObject({ rows: 2, emptyRecords: 2, badUrls: 0, badRecords: 0 });
    expect((await read('empty-rows.csv')).counts).toMatchObject({ rows: 2, emptyRecords: 3, badUrls: 0 });
  });

  test("a data frame's index keeps it under a name of ours; NaN is no URL", async () => {
    const { columns, outcomes, cells } = await read('pandas-index.csv');
    expect(columns).toEqual(['column_1', 'url', 'caption']);
    expect(outcomes).toEqual([`${IMG}/a.jpg`, 'line 3: no URL', 'line 4: no URL', `${IMG}/b.jpg`]);
    expect(cells[0]).toEqual(['0', `${IMG}/a.jpg`, 'one']);
  });

  test('short rows is filled up; surplus cells count only where they hold text', async () => {
    const { cells, counts } = await read('short-rows.csv');
    expect(counts).toMatchObject({ rows: 4, newImages: 4, badRecords: 0 });
    expect(cells.map((row) => row.length)).toEqual([4, 4, 4, 4]);
  });

  test.each(['headless.csv', 'headless2.csv'])(
    'no header is refused, and read with --no-header (%s)',
    async (name) => {
      await expect(read(name)).rejects.toThrow('its first line holds a URL');
      const { columns, outcomes } = await read(name, { header: false });
      expect(columns.at(-1)).toBe(`c${columns.length}`);
      expect(outcomes).toEqual([1, 2, 3].map((image) => `${IMG}/${image}.jpg`));
    },
  );

  test('invisible characters is read without those around a URL; those inside make it none', async () => {
    const { outcomes } = await read('zwsp.csv');
    expect(outcomes).toEqual([
      `${IMG}/a.jpg`,
      `${IMG}/b.jpg`,
      `line 4: a URL has no line breaks or invisible characters: ${IMG}/<U+200B>p/c.jpg`,
      `${IMG}/d.jpg`,
      `${IMG}/e.jpg`,
      `${IMG}/f.jpg`,
    ]);
    expect((await read('zwsp-all.csv')).counts).toMatchObject({ rows: 2, newImages: 2 });
  });

  test('several URLs in a cell has nothing paid for them', async () => {
    const { outcomes } = await read('two-urls-in-a-cell.csv');
    expect(outcomes.slice(0, 4).every((outcome) => outcome?.includes('holds 2 URLs'))).toBe(true);
    expect(outcomes[4]).toBe('https://shop.example/a.jpg');
  });

  test('`name.jpg (https://...)` has its URLs from between the parentheses', async () => {
    const { outcomes } = await read('airtable.csv');
    expect(outcomes[0]).toBe('https://v5.airtableusercontent.example/v3/u/1/aaa/photo1.jpg');
    expect(outcomes[1]).toContain('holds 2 URLs');
  });

  test('keys that first come late has no failed rows for them, and they are named', async () => {
    const { counts } = await read('late-keys.jsonl');
    expect(counts).toMatchObject({ rows: 120, newImages: 120, badRecords: 0 });
    expect([...counts.unknownKeys]).toHaveLength(1);
  });

  test('URLs in many dresses is read where the meaning is plain, and refused with the reason where not', async () => {
    const { outcomes } = await read('urls.csv');
    expect(outcomes.filter((outcome) => !/^https?:/.test(outcome ?? ''))).toEqual([
      'line 5: not an http(s) URL: s3://bucket/a.jpg',
      'line 6: not an http(s) URL: gs://bucket/a.jpg',
      'line 17: not an absolute URL: www.example.org/a.jpg',
      'line 22: 3 cells where the header has 2',
      'line 26: not a URL: https://https://img.example.org/dd.jpg',
      'line 28: not an http(s) URL: C:\\images\\a.jpg',
    ]);
    for (const path of ['a.jpg?w=1&h=2', 'esc.jpg', 'angle.jpg', 'dq.jpg', 'sq.jpg', 'md.jpg']) {
      expect(outcomes).toContain(`${IMG}/${path}`);
    }
  });
});
