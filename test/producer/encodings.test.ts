import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { openManifest } from '../../src/producer/manifest.js';
import { cellsOf, openText, problemsOf, readAll, readText, useManifestFolder } from './manifest-texts.js';

const folder = useManifestFolder();

const UTF16 = Buffer.from('\ufeffid,url\n1,https://a/日\n', 'utf16le');

describe('encodings', () => {
  test.each([
    ['UTF-16 with a mark by itself', UTF16, undefined, 'https://a/日'],
    ['big-endian UTF-16 too', Buffer.from(UTF16).swap16(), undefined, 'https://a/日'],
    ['a mark before the flag', UTF16, 'latin1', 'https://a/日'],
    ['the mark of UTF-8 before the flag', Buffer.from('\ufeffid,url\n1,ä\n'), 'latin1', 'ä'],
    ['UTF-16 without a mark', UTF16.subarray(2), 'utf-16le', 'https://a/日'],
    ['Latin-1', Buffer.from('id,url\n1,https://a/\xfc\n', 'latin1'), 'latin1', 'https://a/ü'],
    ['Windows', Buffer.from('id,url\n1,\x80\n', 'latin1'), 'windows-1252', '€'],
    ['Shift JIS', Buffer.from('id,url\n1,\x93\xfa\x96\x7b\n', 'latin1'), 'shift_jis', '日本'],
  ])('reads %s, also byte by byte, gzipped, and twice', async (_what, bytes, encoding, url) => {
    const { manifest, records } = await readText(bytes, { encoding, sizes: [1] });
    expect(manifest.columns).toEqual(['id', 'url']);
    expect(cellsOf(records)).toEqual([['1', url]]);
    expect(records[0]?.line).toBe(2);
    const packed = await openManifest({ path: await folder.write('a.csv.gz', gzipSync(bytes)), encoding });
    for (let reading = 0; reading < 2; reading++)
      expect(cellsOf((await readAll(packed)).records)).toEqual([['1', url]]);
  });

  test('reads what comes before bytes that are none of the encoding, and says so', async () => {
    const rows = Array.from({ length: 5000 }, (_, index) => `${index},https://a/${index}\n`).join('');
    const path = await folder.write('a.csv', Buffer.from(`id,url\n${rows}x,\xff\xff\n${rows}`, 'latin1'));
    const { records, error } = await readAll(await openManifest({ path, encoding: 'shift_jis' }));
    expect(records.length).toBeGreaterThan(4500);
    expect(records.length).toBeLessThanOrEqual(5000);
    expect(String(error)).toMatch(/past the record at line \d+: it has bytes that are no shift_jis/);
    const early = openText(Buffer.from('id,url\n1,\xff\xff\n', 'latin1'), { encoding: 'shift_jis' });
    await expect(early).rejects.toThrow('stdin cannot be read: it has bytes that are no shift_jis');
  });

  test.each([
    ['csv', 'id,url\n1,\xfc\n', 'not valid UTF-8 in column url: say --encoding, such as windows-1252'],
    ['list', '\xfc\n', 'not valid UTF-8: say --encoding, such as windows-1252'],
    ['jsonl', '{"url":"a"}\n{"url":"\xfc"}\n', 'not valid UTF-8: say --encoding, such as windows-1252'],
  ] as const)('says the flag for a record of a %s that is not UTF-8', async (format, text, problem) => {
    const { records } = await readText(Buffer.from(text, 'latin1'), { format });
    expect(problemsOf(records)).toContain(problem);
  });
});

describe('delimiters and columns', () => {
  test.each([
    ['pipes', 'id|url\n1|https://a/b,c\n', '|', ['id', 'url']],
    ['quoted pipes', '"id"|"u,r|l"\n1|2\n', '|', ['id', 'u,r|l']],
    ['a comma before pipes', 'id,a|b|c\n1,2\n', ',', ['id', 'a|b|c']],
    ['one column', 'url\na|b\n', ',', ['url']],
  ])('finds %s in a header', async (_what, text, delimiter, columns) => {
    const { manifest, records } = await readText(text);
    expect([manifest.delimiter, manifest.columns]).toEqual([delimiter, columns]);
    expect(problemsOf(records)).toEqual([undefined]);
  });

  test('takes no pipe of a URL for a delimiter where there is no header', async () => {
    const { manifest, records } = await readText('https://a/b|c\nhttps://a/d\n', { header: false });
    expect(manifest.columns).toEqual(['c1']);
    expect(cellsOf(records)).toEqual([['https://a/b|c'], ['https://a/d']]);
  });

  test.each(['csv', 'tsv'] as const)('names the columns of a %s without a header', async (format) => {
    const text = format === 'csv' ? '1,a\n2,b\n' : '1\ta\n2\tb\n';
    const columns = ['id', 'url'];
    const path = await folder.write(`a.${format}`, text);
    const manifest = await openManifest({ path, header: false, columns });
    expect(manifest.columns).toEqual(columns);
    for (let reading = 0; reading < 2; reading++)
      expect(cellsOf((await readAll(manifest)).records)).toEqual([
        ['1', 'a'],
        ['2', 'b'],
      ]);
  });
});
