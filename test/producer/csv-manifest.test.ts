import { gzipSync } from 'node:zlib';
import { stringify } from 'csv-stringify/sync';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { openManifest } from '../../src/producer/manifest.js';
import { cellsOf, problemsOf, readAll, readText, useManifestFolder } from './manifest-texts.js';

const folder = useManifestFolder();

/** Cells with what makes csv hard, more often than chance would. */
const cell = fc.oneof(
  fc.string({ unit: fc.constantFrom('"', ',', ';', '\t', '\r', '\n', ' ', 'a', 'é', '😀', '\ufeff') }),
  fc.string({ unit: 'binary' }).map((text) => text.replaceAll('\0', '0')),
);

const table = fc.integer({ min: 1, max: 4 }).chain((width) =>
  fc.record({
    suffixes: fc.array(cell, { minLength: width, maxLength: width }),
    rows: fc.array(fc.array(cell, { minLength: width, maxLength: width }), { minLength: 1, maxLength: 12 }),
  }),
);

const layout = fc.record({
  dialect: fc.constantFrom<{ format: 'csv' | 'tsv'; delimiter: string; given: boolean }>(
    { format: 'csv', delimiter: ',', given: false },
    { format: 'csv', delimiter: ';', given: false },
    { format: 'csv', delimiter: '\t', given: false },
    { format: 'csv', delimiter: '|', given: true },
    { format: 'tsv', delimiter: '\t', given: false },
  ),
  lineEnd: fc.constantFrom('\n', '\r\n', '\r\r\n'),
  allQuoted: fc.boolean(),
  bom: fc.boolean(),
  gzip: fc.boolean(),
  sizes: fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 5 }),
});

describe('a csv or tsv manifest', () => {
  test('reads back any table unchanged, however it is written and wherever the pieces end', async () => {
    await fc.assert(
      fc.asyncProperty(
        table,
        layout,
        async ({ suffixes, rows }, { dialect, lineEnd, allQuoted, bom, gzip, sizes }) => {
          // A delimiter can be found where it is most frequent in the header, and not within quotes only.
          const columns = suffixes.map((suffix, index) => `c${index}${suffix}`);
          fc.pre(
            columns.length > 1 || dialect.delimiter === ',' || dialect.format === 'tsv' || dialect.given,
          );
          const text = stringify([columns, ...rows], {
            delimiter: dialect.delimiter,
            record_delimiter: lineEnd,
            quoted: allQuoted,
            quoted_empty: true,
            quoted_match: /[\r\n;,\t]/,
            bom,
          });
          const { format, delimiter, given } = dialect;
          const bytes = gzip ? gzipSync(text) : Buffer.from(text);
          const { manifest, records, error } = await readText(bytes, {
            format,
            sizes,
            ...(given ? { delimiter } : {}),
          });
          expect(error).toBeUndefined();
          expect(manifest.columns).toEqual(columns);
          expect(manifest.delimiter).toBe(delimiter);
          expect(cellsOf(records)).toEqual(rows);
          expect(problemsOf(records).every((problem) => problem === undefined)).toBe(true);
          expect(records.map(({ number }) => number)).toEqual(rows.map((_, index) => index + 1));
        },
      ),
      { numRuns: 150 },
    );
  });

  test('says in which line each record begins, over blank lines and line breaks within quotes', async () => {
    const text = '\r\nid,url\r\n1,a\r\n\r\n2,"b\r\nb\r\n"\r\n\n3,"c\nc"\n4,d';
    for (const sizes of [[1], [2], [7], [1000]]) {
      const { records } = await readText(text, { sizes });
      expect(records.map(({ line }) => line)).toEqual([3, 5, 9, 11]);
      expect(cellsOf(records)).toEqual([
        ['1', 'a'],
        ['2', 'b\r\nb\r\n'],
        ['3', 'c\nc'],
        ['4', 'd'],
      ]);
    }
  });

  test('takes a byte order mark behind a blank line for a part of the first name', async () => {
    const { manifest, records, error } = await readText('\n\ufeffid,url\n1,a\n');
    expect(error).toBeUndefined();
    expect(manifest.columns).toEqual(['\ufeffid', 'url']);
    expect(cellsOf(records)).toEqual([['1', 'a']]);
  });

  test.each([
    ['id,url\r1,"a\rb"\r2,c\r', [2, 4]],
    ['id,url\r\r1,"a\rb"\r2,c\r', [3, 5]],
  ])('reads lines that end in CR alone: %j', async (text, lines) => {
    const { records, manifest } = await readText(text, { sizes: [1] });
    expect(manifest.columns).toEqual(['id', 'url']);
    expect(cellsOf(records)).toEqual([
      ['1', 'a\rb'],
      ['2', 'c'],
    ]);
    expect(records.map(({ line }) => line)).toEqual(lines);
  });

  test('reads lines that end in two CRs and LF, as Python writes them on Windows', async () => {
    for (const sizes of [[1], [1000]]) {
      const { records, manifest } = await readText('id,url\r\r\n1,a\r\r\n2,"b"\r\r\n', { sizes });
      expect(manifest.columns).toEqual(['id', 'url']);
      expect(records.map(({ line, cells }) => [line, ...cells])).toEqual([
        [2, '1', 'a'],
        [3, '2', 'b'],
      ]);
    }
  });

  test.each([
    ['id,url\n1,2', ','],
    ['id;url\n1;2', ';'],
    ['id\turl\n1\t2', '\t'],
    ['"id,with,commas";url\n1;2', ';'],
    ['"say ""a,b,c""";url\n1;2', ';'],
    ['"two\nlines,,";url\n1;2', ';'],
    ['url\nhttp://a/b;c', ','],
  ])('finds the delimiter of %j in its header', async (text, delimiter) => {
    const { manifest, records } = await readText(text, { sizes: [3] });
    expect(manifest.delimiter).toBe(delimiter);
    expect(records[0]?.problem).toBeUndefined();
  });

  test('takes the given delimiter and not the one that the header suggests', async () => {
    const { manifest } = await readText('a,b;c\n1,2;3', { delimiter: ';' });
    expect(manifest.columns).toEqual(['a,b', 'c']);
  });

  test('fills up missing last cells, cuts surplus empty ones, and gives records with surplus text as bad ones', async () => {
    const { records, error } = await readText('a,b,c\n1,2\n1,2,3,4\nx\n1,2,3,,\n1,2,3,,5\n');
    expect(error).toBeUndefined();
    expect(problemsOf(records)).toEqual([
      undefined,
      '4 cells where the header has 3',
      undefined,
      undefined,
      '5 cells where the header has 3',
    ]);
    expect(cellsOf(records)).toEqual([
      ['1', '2', ''],
      ['1', '2', '3'],
      ['x', '', ''],
      ['1', '2', '3'],
      ['1', '2', '3'],
    ]);
  });

  test('gives a record that is not UTF-8 as a bad one, and keeps a U+FFFD that is in the file', async () => {
    const bytes = Buffer.concat([
      Buffer.from('id,title\n1,caf'),
      Buffer.from([0xe9]),
      Buffer.from('\n2,\ufffd\n'),
    ]);
    const { records } = await readText(bytes);
    expect(problemsOf(records)).toEqual([
      'not valid UTF-8 in column title: say --encoding, such as windows-1252',
      undefined,
    ]);
    expect(records[1]?.cells).toEqual(['2', '\ufffd']);
  });

  test('takes quotes within a tsv cell for ordinary characters', async () => {
    const text = 'id\ttitle\n1\tA 5" disc\n2\t"Sunset" by Monet\n3\t"a ""b""\tc"\n4\t"""x\ty"""\n';
    const { records } = await readText(text, { format: 'tsv' });
    expect(cellsOf(records)).toEqual([
      ['1', 'A 5" disc'],
      ['2', '"Sunset" by Monet'],
      ['3', 'a "b"\tc'],
      ['4', '"x\ty"'],
    ]);
  });

  test('reads the example, with its line breaks in cells as they are', async () => {
    const manifest = await openManifest({ path: 'examples/paintings.csv' });
    const { records } = await readAll(manifest);
    expect(records).toHaveLength(24);
    expect(problemsOf(records).filter((problem) => problem !== undefined)).toEqual([]);
    expect(records[0]?.cells[6]).toBe('support: 305 x 229 mm\r\nframe: 563 x 487 x 83 mm');
    const urls = records.map(({ cells }) => cells[8]).filter((url) => url !== '');
    expect(urls).toHaveLength(23);
    expect(new Set(urls).size).toBe(22);
    await manifest.close();
  });

  test('gives each record once, and the first 100 as a sample', async () => {
    const lines = Array.from({ length: 5000 }, (_, index) => `${index},x`);
    const path = await folder.write('many.csv', `id,url\n${lines.join('\n')}\n`);
    const manifest = await openManifest({ path });
    expect(manifest.sample.map(({ cells }) => cells[0])).toEqual(
      lines.slice(0, 100).map((line) => line.split(',')[0]),
    );
    for (let pass = 0; pass < 2; pass++) {
      const ids: (string | undefined)[] = [];
      for await (const batch of manifest.batches()) {
        ids.push(...batch.map(({ cells }) => cells[0]));
      }
      expect(ids).toEqual(lines.map((line) => line.split(',')[0]));
    }
    await manifest.close();
  });
});
