import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { columnAt, findUrlColumn, nameOfColumn } from '../../src/producer/columns.js';
import { openManifest } from '../../src/producer/manifest.js';
import { parsePromptTemplate } from '../../src/producer/prompt-template.js';
import { nameOf, toRow } from '../../src/producer/row-reader.js';
import { cellAt } from '../../src/shared/json-cells.js';
import { openText } from './manifest-texts.js';

const NESTED = 'test/fixtures/manifests/nested.jsonl';

describe('what is in the objects of a column', () => {
  test('is the URL where no column is, and the row keeps the column as it is', async () => {
    const { columns, sample } = await openManifest({ path: NESTED });
    const url = findUrlColumn(columns, sample);
    expect(nameOfColumn(columns, url)).toBe('image.url');
    const [record] = sample;
    if (record === undefined) throw new Error('no record');
    const plan = { urlColumn: url };
    const row = toRow(record, plan);
    expect(row.url).toBe('https://img.example.org/a.jpg');
    expect(row.cells).toEqual(['1', '{"url":"https://img.example.org/a.jpg","w":3}']);
    expect(nameOf(row.cells, plan).image).toBe(row.image);
  });

  test('is named by its path as a flag, as a key and in a prompt, in csv too', async () => {
    const lines = ['id,image', '1,"{""url"":""https://a/b.jpg"",""meta"":{""id"":12345678901234567890}}"'];
    const { columns, sample } = await openText(lines.join('\n'));
    const key = columnAt('--key-column', columns, 'image.meta.id', sample);
    expect(key).toEqual({ index: 1, path: ['meta', 'id'] });
    const prompt = parsePromptTemplate('{{id}}: {{image.meta.id}} at {{ image.url }}', columns, sample);
    const [record] = sample;
    if (record === undefined) throw new Error('no record');
    const plan = { urlColumn: { index: 1, path: ['url'] }, keyColumn: key, prompt };
    expect(toRow(record, plan)).toMatchObject({
      key: '12345678901234567890',
      url: 'https://a/b.jpg',
      prompt: '1: 12345678901234567890 at https://a/b.jpg',
    });
    for (const name of ['image.ulr', 'image.meta.id.x', 'id.x'])
      expect(() => columnAt('--url-column', columns, name, sample)).toThrow(/has no such column/);
    expect(() => parsePromptTemplate('{{image.ulr}}', columns, sample)).toThrow(/did you mean image\.url\?/);
  });

  test('is asked for where several could be the URL', async () => {
    const { columns, sample } = await openText('{"a":{"x":"https://a/1","y":"https://a/2"}}', {
      format: 'jsonl',
    });
    expect(() => findUrlColumn(columns, sample)).toThrow(
      'more than one column holds http(s) URLs in the first records: say --url-column <name>: a.x (https://a/1), a.y (https://a/2)',
    );
  });

  test('cannot be an image as bytes, which one line says', async () => {
    const { columns, sample } = await openManifest({ path: 'test/fixtures/manifests/types.parquet' });
    expect(nameOfColumn(columns, findUrlColumn(columns, sample))).toBe('url');
    const without = columns.map((name) => (name === 'url' ? 'link' : name));
    const bytesOnly = sample.map((record) => ({
      ...record,
      cells: record.cells.map((cell, at) => (columns[at] === 'hf' ? cell : '')),
    }));
    expect(() => findUrlColumn(without, bytesOnly)).toThrow(
      /hf\.bytes holds bytes.*into a folder and run that/,
    );
  });

  test('is found again in what any cell holds', () => {
    fc.assert(
      fc.property(fc.array(fc.string(), { minLength: 1, maxLength: 5 }), fc.jsonValue(), (path, value) => {
        const cell = JSON.stringify(path.reduceRight((inner: unknown, key) => ({ [key]: inner }), value));
        const expected = value === null ? '' : typeof value === 'string' ? value : JSON.stringify(value);
        // The one key that JavaScript writes elsewhere.
        fc.pre(!path.includes('__proto__'));
        expect(cellAt(cell, path)).toBe(expected);
      }),
    );
    for (const cell of ['', 'x', '[1]', '{', '{"a":1}', 'null']) expect(cellAt(cell, ['b'])).toBe('');
  });
});
