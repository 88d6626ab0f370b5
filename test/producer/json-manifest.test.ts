import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { openManifest } from '../../src/producer/manifest.js';
import { cellsOf, problemsOf, readAll, readText, useManifestFolder } from './manifest-texts.js';

const folder = useManifestFolder();
const COCO = fileURLToPath(new URL('../fixtures/manifests/coco.json', import.meta.url));

async function readFileOf(name: string, content: string | Buffer, records?: string) {
  const manifest = await openManifest({ path: await folder.write(name, content), records });
  return { manifest, ...(await readAll(manifest)) };
}

async function refusalOf(content: string | Buffer, records?: string): Promise<string> {
  const refused = await readFileOf('refused.json', content, records).catch((error: unknown) => String(error));
  return typeof refused === 'string' ? refused : String(refused.error);
}

describe('a JSON manifest', () => {
  const format = 'json';

  test('is a list of objects, whose values are as those of JSON Lines', async () => {
    const text =
      '[ {"id": 12345678901234567890, "t": "a\\"],[{b"},\n\n  {"t":null,"l":[1.50, {"x":"}"}]}\n]\n';
    const { manifest, records } = await readText(text, { format, sizes: [1] });
    expect(manifest.columns).toEqual(['id', 't', 'l']);
    expect(cellsOf(records)).toEqual([
      ['12345678901234567890', 'a"],[{b', ''],
      ['', '', '[1.50, {"x":"}"}]'],
    ]);
    expect(records.map(({ line, number }) => [line, number])).toEqual([
      [1, 1],
      [3, 2],
    ]);
  });

  test('is the one list of objects in an object, in each of its readings', async () => {
    const manifest = await openManifest({ path: COCO });
    expect(manifest.columns).toEqual(['id', 'file_name', 'coco_url', 'flickr_url']);
    for (let pass = 0; pass < 2; pass++) {
      const { records } = await readAll(manifest);
      expect(records[0]?.cells.slice(0, 2)).toEqual(['1', '1.jpg']);
    }
  });

  test('is the list that --records names', async () => {
    const text =
      '{"images":[{"u":1}],"data":{"a\\u0062c":[{"u":2,"images":[{"u":9}]},{"u":3}],"n":[[{"u":4}]]}}';
    for (const [records, cells] of [
      ['images', [['1']]],
      [
        'data.abc',
        [
          ['2', '[{"u":9}]'],
          ['3', ''],
        ],
      ],
    ] as const) {
      expect(cellsOf((await readFileOf('two.json', text, records)).records)).toEqual(cells);
      expect(cellsOf((await readText(text, { format, records, sizes: [7, 1] })).records)).toEqual(cells);
    }
    expect(await refusalOf(text)).toMatch(
      /several lists of objects: say --records <path>: images, data\.abc$/,
    );
    expect(await refusalOf(text, 'image')).toMatch(/has no list at "image", as --records says/);
  });

  test('may be packed', async () => {
    const { records } = await readFileOf('packed.json.gz', gzipSync('{"rows":[{"u":"a"},{"u":"b"}]}'));
    expect(cellsOf(records)).toEqual([['a'], ['b']]);
  });

  test('is JSON Lines where the first line is a whole object and more follow', async () => {
    const { records } = await readText('{"u":"a","l":[{"x":1}]}\n{"u":"b"}\n', { format, sizes: [3] });
    expect(cellsOf(records)).toEqual([
      ['a', '[{"x":1}]'],
      ['b', ''],
    ]);
  });

  test('gives any records back, however they are written and cut into pieces', async () => {
    const record = fc.dictionary(
      fc.string({ unit: 'binary' }).map((text) => `k${text}`),
      fc.oneof(fc.string({ unit: 'binary' }), fc.jsonValue()),
      { minKeys: 1, noNullPrototype: true },
    );
    const all = fc.array(record, { minLength: 1, maxLength: 5 });
    const sizes = fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1 });
    await fc.assert(
      fc.asyncProperty(
        all,
        fc.integer({ min: 0, max: 2 }),
        fc.boolean(),
        sizes,
        async (rows, indent, isInside, cuts) => {
          const text = JSON.stringify(isInside ? { info: [{}], 'a.b': { c: rows } } : rows, null, indent);
          const options = { format, sizes: cuts, ...(isInside && { records: 'a.b.c' }) } as const;
          const { manifest, records } = await readText(text, options);
          const found = records.map(({ cells, isJson }) =>
            cells.map((cell, at) => (isJson?.[at] ? cell && normal(cell) : cell)),
          );
          expect(found).toEqual(
            rows.map((row) =>
              manifest.columns.map((column) => {
                const value = Object.hasOwn(row, column) ? row[column] : null;
                return value === null ? '' : typeof value === 'string' ? value : JSON.stringify(value);
              }),
            ),
          );
        },
      ),
    );
  });

  test('goes on behind records that are none', async () => {
    const { records } = await readText('[{"u":"a"},null,{"u":NaN},,"x",{"u":"b"},]', { format });
    expect(cellsOf(records)).toEqual([['a'], [''], [''], [''], [''], ['b']]);
    expect(problemsOf(records)).toEqual([
      undefined,
      'JSON, but no object',
      expect.stringContaining('no JSON'),
      expect.stringContaining('no JSON'),
      'JSON, but no object',
      undefined,
    ]);
  });

  test.each([
    [
      'a bracket too many',
      '[{"u":1},\n{"u":2}},\n{"u":3}]',
      1,
      /line 2: no JSON from here on: its brackets do not match/,
    ],
    [
      'a quote too few',
      '[{"u":1},\n{"u":"2},\n{"u":"3"}]',
      1,
      /line 2: no JSON from here on: it is not closed/,
    ],
    ['an early end', '[{"u":1},\n{"u":2},', 2, /line 2: no JSON from here on: it is not closed/],
    [
      'more behind it',
      '[{"u":1}]\n\n[{"u":2}]',
      1,
      /line 3: no JSON from here on: something follows its end/,
    ],
  ])('with %s is done up to there, which one line says', async (_, text, count, message) => {
    const { records, error } = await readText(text, { format });
    expect(records).toHaveLength(count);
    expect(String(error)).toMatch(message);
    expect(String(error)).not.toContain('\n');
  });

  test('refuses a record of more than 16 MB', async () => {
    const { records, error } = await readText(`[{"u":"a"},\n{"u":"${'x'.repeat(17 << 20)}"}]`, { format });
    expect(records).toHaveLength(1);
    expect(String(error)).toMatch(/line 2: .*what begins here is longer than 16 MB/);
  });

  test.each([
    ['no JSON at all', '<html>', /is no JSON: it begins with <html>/],
    ['a list of texts', '["a","b"]', /is no list of objects: its first record is JSON, but no object/],
    ['an empty list', '[]', /has no records/],
    ['an object without a list', '{"u":"a"}', /is a JSON object without a list of objects in it/],
    ['an object that is cut off', '{"a":[{"u":1}', /line 1: no JSON from here on: it is not closed/],
  ])('that is %s is refused in one line', async (_, text, message) => {
    expect(await refusalOf(text)).toMatch(message);
  });

  test('that is an object from stdin needs --records', async () => {
    await expect(readText('{"images":[{"u":1}]}', { format })).rejects.toThrow(
      /stdin is a JSON object: name the list/,
    );
    await expect(readText('u\n1\n', { records: 'a' })).rejects.toThrow(/--records: only a json/);
  });
});

function normal(json: string): string {
  return JSON.stringify(JSON.parse(json));
}
