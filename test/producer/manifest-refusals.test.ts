import { mkdir } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { type ManifestOptions, openManifest } from '../../src/producer/manifest.js';
import { openText, streamOf, useManifestFolder } from './manifest-texts.js';

const folder = useManifestFolder();

async function refusal(opened: Promise<unknown>): Promise<string> {
  const error: unknown = await opened.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toMatchObject({ name: 'UsageError' });
  const message = error instanceof Error ? error.message : '';
  expect(message).not.toContain('\n');
  return message;
}

async function refusalOfFile(
  name: string,
  content: string | Buffer,
  options: Omit<ManifestOptions, 'path'> = {},
): Promise<string> {
  const path = await folder.write(name, content);
  const message = await refusal(openManifest({ path, ...options }));
  return message.replaceAll(path, name);
}

describe('openManifest refuses', () => {
  test('a file that is not there', async () => {
    expect(await refusal(openManifest({ path: folder.path('none.csv') }))).toMatch(/none\.csv: no such file/);
  });

  test('a folder', async () => {
    await mkdir(folder.path('folder.csv'));
    expect(await refusal(openManifest({ path: folder.path('folder.csv') }))).toContain(
      'is a folder without images',
    );
  });

  test.each([
    ['nothing in it', 'a.csv', '', 'a.csv is empty'],
    ['nothing in it when unpacked', 'a.csv.gz', gzipSync(''), 'a.csv.gz is empty'],
    ['only a byte order mark', 'b.csv', '\ufeff', 'b.csv is empty'],
    ['blank lines only', 'b.csv', '\n\r\n\n', 'b.csv has blank lines only'],
    ['only a header', 'c.csv', 'id,url\n\n', 'c.csv has no records'],
    ['no lines', 'c.txt', ' \n\n', 'c.txt has no records'],
    ['no objects', 'c.jsonl', '\n', 'c.jsonl has no records'],
    ['only the mark of UTF-16', 'd.csv', Buffer.from('\ufeff', 'utf16le'), 'd.csv is empty'],
    ['UTF-16 without a mark', 'd.csv', Buffer.from('id,url\n1,2\n', 'utf16le'), 'd.csv is no text'],
    [
      'a header in Latin-1',
      'd.csv',
      Buffer.from('id,größe\n1,2\n', 'latin1'),
      'd.csv: its header is not valid UTF-8: say --encoding',
    ],
    ['binary data', 'd.csv', Buffer.from('PK\x03\x04\x14\0\x06\0\n1', 'latin1'), 'd.csv is no text'],
    ['one name twice', 'e.csv', 'id,url,id,url\n1,2,3,4\n', 'several columns are named id, url'],
    ['a JSON key without a name', 'e.jsonl', '{"id":1," ":2}\n', 'column 2 of 2 has no name'],
    ['a URL in its header', 'e.csv', '1,http://a/b\n2,http://a/c\n', 'it is no header: say --no-header'],
    ['a quote in its header', 'f.csv', 'id,ur"l\n1,2\n', 'f.csv, line 1: cannot be read past'],
    ['a header that does not end', 'f.csv', '"id,url\n1,2\n', 'f.csv, line 1: cannot be read past'],
    [
      'broken quoting in the first record',
      'f.csv',
      'id,url\n1,"2\n3,4',
      'f.csv, line 2: cannot be read past',
    ],
    ['a header of megabytes', 'f.csv', `"${'x'.repeat(2e6)}`, 'its header does not end within 1 MB'],
    ['zstd', 'g.csv.zst', Buffer.from('KLUv/SQAAA==', 'base64'), 'g.csv.zst is zstd data: unpack it first'],
    ['no gzip despite its name', 'g.csv.gz', 'id,url\n1,2\n', 'g.csv.gz is not gzip data'],
    [
      'damaged gzip',
      'g.csv.gz',
      gzipSync('id,url\n1,2\n').subarray(0, 15),
      'the gzip data is damaged or incomplete',
    ],
    ['gzip of one byte', 'g.csv.gz', Buffer.from([0x1f]), 'g.csv.gz is not gzip data'],
    ['damaged gzip without the ending', 'g.csv', gzipSync('id').fill(7, 8), 'the gzip data is damaged'],
    [
      'an unknown ending',
      'h.xlsx',
      'id,url\n1,2\n',
      '(known: .csv .tsv .jsonl .ndjson .json .parquet .txt .list .urls, each also with .gz)',
    ],
    ['no ending', 'manifest', 'id,url\n1,2\n', 'say --format csv|tsv|jsonl|json|parquet|list'],
  ])('a manifest with %s', async (_, name, content, message) => {
    expect(await refusalOfFile(name, content)).toContain(message);
  });

  test('stdin without a format', async () => {
    const opened = openManifest({ path: '-', input: streamOf('id,url\n1,2\n') });
    expect(await refusal(opened)).toBe(
      'the manifest comes from stdin: say what it is with --format csv|tsv|jsonl|json|parquet|list',
    );
  });

  test('damaged gzip from stdin', async () => {
    const opened = openText(gzipSync('id,url\n1,2\n').subarray(0, 15));
    expect(await refusal(opened)).toMatch(/^stdin cannot be read: the gzip data is damaged/);
  });

  test.each([
    ['tsv', ','],
    ['jsonl', ','],
    ['list', '\t'],
  ] as const)('a delimiter for %s', async (format, delimiter) => {
    expect(await refusal(openText('a', { format, delimiter }))).toContain(
      'only csv has a delimiter to choose',
    );
  });

  test.each([
    [
      { encoding: 'utf-99' },
      'a',
      '--encoding utf-99: no such encoding is known: expected one such as windows-1252',
    ],
    [
      { encoding: 'latin1', format: 'parquet' },
      'PAR1',
      "--encoding: only text has one, and the manifest's format is",
    ],
    [
      { columns: ['a'] },
      'x\n1',
      '--columns names the columns of a manifest without a header: say --no-header too',
    ],
    [
      { columns: ['a'], header: false },
      '1,2\n',
      '--columns: stdin has 2 cells in its first record, and 1 names',
    ],
    [{ columns: ['a', 'a'], header: false }, '1,2\n', 'several columns are named a'],
    [{ columns: ['a'], header: false, format: 'list' }, 'x', '--no-header: only csv and tsv have a header'],
  ] as const)('flags that do not fit: %j', async (options, text, message) => {
    expect(await refusal(openText(text, options))).toContain(message);
  });

  test.each(['', ';;', '"', '\n', '\r', 'é', '\0'])('%j as a delimiter', async (delimiter) => {
    expect(await refusal(openText('a', { delimiter }))).toContain('expected one ASCII character');
  });
});

describe('openManifest', () => {
  test.each(['tab', '\\t', '\t'])('takes %j for a tab', async (delimiter) => {
    expect((await openText('a,b\tc\n1\t2\n', { delimiter })).columns).toEqual(['a,b', 'c']);
  });

  test.each([
    ['a.CSV', 'csv'],
    ['a.b.csv.gz', 'csv'],
    ['a.tsv', 'tsv'],
    ['a.ndjson', 'jsonl'],
    ['a.jsonl.gz', 'jsonl'],
    ['a.urls', 'list'],
    ['a.list', 'list'],
  ])('tells by the name of %s that it is %s', async (name, format) => {
    const text = format === 'jsonl' ? '{"url":"http://a/b"}\n' : 'url\nhttp://a/b\n';
    const path = await folder.write(name, name.endsWith('.gz') ? gzipSync(text) : text);
    const manifest = await openManifest({ path });
    expect(manifest.format).toBe(format);
    expect(manifest.name).toBe(path);
  });

  test('believes --format rather than the name', async () => {
    const path = await folder.write('list.csv', 'http://a/b\nhttp://a/c\n');
    const manifest = await openManifest({ path, format: 'list' });
    expect(manifest.sample).toHaveLength(2);
  });

  test('unpacks gzip that its name does not promise', async () => {
    const path = await folder.write('packed.csv', gzipSync('id,url\n1,2\n'));
    const manifest = await openManifest({ path });
    expect(manifest.columns).toEqual(['id', 'url']);
    expect(manifest.sizeBytes).toBeGreaterThan(0);
  });
});
