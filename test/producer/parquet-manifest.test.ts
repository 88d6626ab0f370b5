import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { queryObjects } from 'node:v8';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import type { SchemaElement } from 'hyparquet';
import { type ParquetWriteOptions, parquetWriteBuffer } from 'hyparquet-writer';
import { describe, expect, test } from 'vitest';
import { openManifest } from '../../src/producer/manifest.js';
import { cellsOf, openText, readAll, useManifestFolder } from './manifest-texts.js';

const folder = useManifestFolder();
const TYPES = fileURLToPath(new URL('../fixtures/manifests/types.parquet', import.meta.url));

const compressors: NonNullable<ParquetWriteOptions['compressors']> = {
  GZIP: (input) => gzipSync(input),
  BROTLI: (input) => brotliCompressSync(input),
};

/** A Parquet file of texts, in row groups of so many rows. */
function textsOf(
  columns: Readonly<Record<string, readonly (string | null)[]>>,
  options: Partial<ParquetWriteOptions> = {},
): Buffer {
  const columnData = Object.entries(columns).map(([name, data]) => ({
    ...{ name, data: [...data], type: 'STRING' as const, nullable: true },
  }));
  return Buffer.from(parquetWriteBuffer({ columnData, compressors, ...options }));
}

function oneColumn(element: SchemaElement, data: unknown[]): Buffer {
  const schema: SchemaElement[] = [
    { name: 'schema', num_children: 1 },
    { ...element, repetition_type: 'OPTIONAL' },
  ];
  return Buffer.from(parquetWriteBuffer({ schema, columnData: [{ name: element.name, data }] }));
}

const urls = (count: number) => Array.from({ length: count }, (_, at) => `https://img.example.org/${at}.jpg`);

describe('a Parquet manifest', () => {
  test('makes cells of every type: texts as they are, numbers exactly, times in ISO 8601, the rest as JSON', async () => {
    const manifest = await openManifest({ path: TYPES });
    const { records } = await readAll(manifest);
    expect(manifest.columns).toEqual('url,i64,dec,date,local,utc,time,list,image,map,hf'.split(','));
    expect(records.map(({ cells, isJson }) => cells.map((cell, at) => [cell, isJson?.[at]]))).toEqual([
      [
        ['https://img.example.org/1.jpg', false],
        ['9007199254740993', true],
        ['1.50', true],
        ['2024-01-02', false],
        ['2024-01-02T03:04:05.678', false],
        ['1970-01-01T00:00:00.000000001Z', false],
        ['00:00:00.001', false],
        ['["x",null]', true],
        ['{"url":"https://e.org/1.jpg","price":1.10}', true],
        ['{"k":1,"j":null}', true],
        ['{"bytes":null,"path":"a.jpg"}', true],
      ],
      [
        ['https://img.example.org/2.jpg', false],
        ['-1', true],
        ['-12345678901234567890.01', true],
        ['1969-12-31', false],
        ['1969-12-31T23:59:59.000001', false],
        ['1969-12-31T23:59:59.999999999Z', false],
        ['23:59:59.999', false],
        ['[]', true],
        ['{"url":null,"price":null}', true],
        ['{}', true],
        ['{"bytes":"text","path":"b.jpg"}', true],
      ],
      Array.from({ length: 11 }, () => ['', true]),
    ]);
    expect(records.map(({ binary }) => binary)).toEqual([['hf.bytes'], undefined, undefined]);
  });

  test.each(['UNCOMPRESSED', 'SNAPPY', 'GZIP', 'BROTLI'] as const)(
    'is read when packed with %s',
    async (codec) => {
      const url = urls(2500);
      const path = await folder.write(`${codec}.parquet`, textsOf({ url }, { codec, rowGroupSize: 700 }));
      const manifest = await openManifest({ path });
      for (let pass = 0; pass < 2; pass++) {
        const { records } = await readAll(manifest);
        expect(cellsOf(records)).toEqual(url.map((text) => [text]));
        expect(records.map(({ number }) => number)).toEqual(url.map((_, at) => at + 1));
      }
    },
  );

  test.each<[string, Omit<SchemaElement, 'name'>, unknown, string]>([
    [
      'DECIMAL(20,0)',
      { type: 'FIXED_LEN_BYTE_ARRAY', type_length: 9, converted_type: 'DECIMAL', precision: 20 },
      12345678901234567891n,
      '12345678901234567891',
    ],
    ['DECIMAL(10,2)', { type: 'INT64', converted_type: 'DECIMAL', precision: 10, scale: 2 }, 1234n, '12.34'],
    ['DATE', { type: 'INT32', converted_type: 'DATE' }, new Date('2024-01-02'), '2024-01-02'],
  ])(
    'reads a %s exactly from a column that is called key, as the keys of maps are',
    async (_, type, value, cell) => {
      const path = await folder.write('key.parquet', oneColumn({ name: 'key', ...type }, [value]));
      const { records } = await readAll(await openManifest({ path }));
      expect(cellsOf(records)).toEqual([[cell]]);
    },
  );

  test('has JSON in one line, and its strings and nulls as such', async () => {
    const texts = [' {\n  "a": [\r\n    "b"\n  ]\n}\n', '"text"', 'null', '{'].map((text) =>
      Buffer.from(text),
    );
    const path = await folder.write(
      'json.parquet',
      oneColumn({ name: 'info', type: 'BYTE_ARRAY', logical_type: { type: 'JSON' } }, texts),
    );
    const { records } = await readAll(await openManifest({ path }));
    expect(records.map(({ cells, isJson }) => [cells[0], isJson?.[0]])).toEqual([
      ['{"a": ["b"]}', true],
      ['text', false],
      ['', true],
      ['{', false],
    ]);
  });

  test('holds nothing that it has read ahead once it is open', async () => {
    const url = urls(4000);
    const path = await folder.write('large.parquet', textsOf({ url }, { rowGroupSize: url.length }));
    // A text that is still as it was decoded is one; other tests of this process may hold some.
    const countBytes = () => queryObjects(Uint8Array, { format: 'count' });
    const before = countBytes();
    const manifest = await openManifest({ path });
    expect(countBytes() - before).toBeLessThan(url.length / 2);
    expect(manifest.sample).toHaveLength(100);
  });

  test('gives any strings back', async () => {
    const text = fc.option(fc.string({ unit: 'binary' }));
    const column = fc.array(text, { minLength: 1, maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(column, fc.integer({ min: 1, max: 9 }), async (cells, rowGroupSize) => {
        const path = await folder.write('strings.parquet', textsOf({ cells }, { rowGroupSize }));
        const { records } = await readAll(await openManifest({ path }));
        expect(records.map((record) => [record.cells[0], record.isJson?.[0]])).toEqual(
          cells.map((cell) => [cell ?? '', cell === null]),
        );
      }),
      { numRuns: 50 },
    );
  });

  test('is done up to the row group that is damaged, which one line says', async () => {
    const bytes = textsOf({ url: urls(900) }, { codec: 'GZIP', rowGroupSize: 300 });
    bytes.fill(0xee, Math.floor(bytes.length * 0.45), Math.floor(bytes.length * 0.5));
    const path = await folder.write('hole.parquet', bytes);
    const { records, error } = await readAll(await openManifest({ path }));
    expect(records).toHaveLength(300);
    expect(String(error)).toMatch(
      /cannot be read past the record at line 300: its data is damaged.*make or fetch/,
    );
    expect(String(error)).not.toContain('\n');
  });

  test('is refused wherever it is cut off', async () => {
    const whole = textsOf({ url: urls(60) }, { codec: 'SNAPPY', rowGroupSize: 20 });
    for (let length = 1; length < whole.length; length += 7) {
      const path = await folder.write('cut.parquet', whole.subarray(0, length));
      await expect(openManifest({ path })).rejects.toThrow(
        /^\S*cut\.parquet is (no|a damaged or incomplete) Parquet file/,
      );
    }
  });

  test.each([
    ['rubbish', 'rubbish.parquet', Buffer.from('these are no rows'), /is no Parquet file$/],
    [
      'a file that is cut off',
      'cut.parquet',
      textsOf({ url: urls(9) }).subarray(0, 80),
      /damaged or incomplete Parquet/,
    ],
    [
      'one that is packed again',
      'a.parquet.gz',
      gzipSync(textsOf({ url: urls(9) })),
      /is gzip data: unpack it first/,
    ],
    [
      'no footer',
      'bare.parquet',
      Buffer.from('PAR1\0\0\0\0PAR1'),
      /\(it has no footer\): make or fetch it again$/,
    ],
    ['four bytes', 'four.parquet', Buffer.from('PAR1'), /\(it has no footer\): make or fetch it again$/],
    ['no rows', 'none.parquet', textsOf({ url: [] }), /has no records/],
    [
      'one column twice',
      'twice.parquet',
      Buffer.from(
        parquetWriteBuffer({
          columnData: [
            { name: 'a', data: ['x'] },
            { name: 'a', data: ['y'] },
          ],
        }),
      ),
      /several columns are named a/,
    ],
  ])('that is %s is refused in one line', async (_, name, bytes, message) => {
    const path = await folder.write(name, bytes);
    await expect(openManifest({ path })).rejects.toThrow(message);
  });

  test('cannot come from stdin', async () => {
    await expect(openText(await readFile(TYPES), { format: 'parquet' })).rejects.toThrow(
      /stdin: Parquet begins at its end.*save it/,
    );
  });

  test('refuses a codec that cannot be unpacked', async () => {
    const packed = textsOf({ url: urls(3) }, { codec: 'LZO', compressors: { LZO: (input) => input } });
    const path = await folder.write('lzo.parquet', packed);
    await expect(openManifest({ path })).rejects.toThrow(/is packed with LZO, which cannot be read/);
  });
});
