import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { parse } from 'csv-parse/sync';
import { parquetReadObjects } from 'hyparquet';
import { asyncBufferFromFile } from 'hyparquet/src/node.js';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { expect, test } from 'vitest';
import { z } from 'zod';
import type { RunOptions } from '../../src/run/run-options.js';
import { describeOnRedis } from '../helpers/queues.js';
import { RunFixture } from '../helpers/run-fixture.js';

const PAGE = fileURLToPath(new URL('../../docs/formats.md', import.meta.url));
const MARKERS = /(?<=<!-- formats:[^\n]*-->\n\n)[^]*(?=\n\n<!-- \/formats -->)/;
const OUTPUTS = ['.csv', '.tsv', '.jsonl', '.parquet'] as const;

const HOSTILE = [
  ...[
    'plain',
    'say "hi", and; more|pipe\ttab',
    'line\nbreak\r\nand\rCR',
    '\u0001\u001b[31m\u007f',
    '""',
    '"',
  ],
  ...[
    '😀 👩‍👩‍👧 é e\u0301',
    '\u202eשלום עולם',
    '=1+1',
    '@SUM(A1)',
    '+1',
    '-1',
    "'=quoted",
    '  around  ',
    '\ttab',
  ],
  ...['{"a": [1, 2]}', '[1, 2]', 'null', 'true', '12345678901234567890', '007', '1e5', '-0', 'NaN', '\\n'],
  ...['\ufeffmark', 'a\u2028b\u2029c', 'x'.repeat(70_000)],
];
/** What is no string, as its JSON; null is empty. */
interface Typed {
  readonly json: string;
}
/** Cells by column; the first one tells rows apart. */
type Row = Readonly<Record<string, string | Typed>>;

const urlOf = (name: string, at: number) => `http://images.test/${name}/${at}.jpg`;
/** Several in each row: a row is an image to describe, and no cell is lost in its row's others. */
const NOTES = ['note', 'second', 'third', 'fourth', 'last'];
const NOTED = Array.from({ length: Math.ceil(HOSTILE.length / NOTES.length) }, (_, at) =>
  NOTES.map((_name, note) => HOSTILE[at * NOTES.length + note] ?? ''),
);
const textRows = (name: string): Row[] =>
  NOTED.map((texts, at) => ({
    id: `0${at}`,
    image: urlOf(name, at),
    ...Object.fromEntries(NOTES.map((note, number) => [note, texts[number] ?? ''])),
    'a "name", of=all': `${at};`,
  }));
const typedRows = (name: string, size: string): Row[] =>
  textRows(name).map((row, at) => ({
    ...row,
    size: { json: at % 3 === 0 ? '' : size },
    ratio: { json: '0.5' },
    tags: { json: JSON.stringify(['a', ...(NOTED[at] ?? []).map((text) => text.slice(0, 100))]) },
    none: { json: '' },
  }));

const jsonOf = (cell: string | Typed) =>
  typeof cell === 'string' ? JSON.stringify(cell) : cell.json === '' ? 'null' : cell.json;
const textOf = (cell: string | Typed) => (typeof cell === 'string' ? cell : cell.json);
const objectsOf = (rows: readonly Row[]) =>
  rows.map((row) => {
    const members = Object.entries(row).map(([name, cell]) => `${JSON.stringify(name)}:${jsonOf(cell)}`);
    return `{${members.join(',')}}`;
  });
const jsonlOf = (rows: readonly Row[]) => objectsOf(rows).join('\n');
/** As most programs write JSON for people, with its lists over several lines. */
const indented = (json: string) => json.replaceAll('"tags":[', '"tags":[\n    ');
const csvOf = (rows: readonly Row[], delimiter = ',') =>
  [Object.keys(rows[0] ?? {}), ...rows.map((row) => Object.values(row).map(textOf))]
    .map((cells) => cells.map((cell) => `"${cell.replaceAll('"', '""')}"`).join(delimiter))
    .join('\n');

function parquetOf(rows: readonly Row[]): Buffer {
  const column = <T>(name: string, read: (json: string) => T) =>
    rows.map((row) => {
      const text = textOf(row[name] ?? '');
      return text === '' ? null : read(text);
    });
  const text = { type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'OPTIONAL' } as const;
  const texts = ['id', 'image', ...NOTES, 'a "name", of=all', 'none'];
  return Buffer.from(
    parquetWriteBuffer({
      schema: [
        { name: 'schema', num_children: texts.length + 3 },
        ...texts.map((name) => ({ name, ...text })),
        { name: 'size', type: 'INT64', repetition_type: 'OPTIONAL' },
        { name: 'ratio', type: 'DOUBLE', repetition_type: 'OPTIONAL' },
        { name: 'tags', repetition_type: 'OPTIONAL', converted_type: 'LIST', num_children: 1 },
        { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
        { name: 'element', ...text },
      ],
      columnData: [
        ...texts.map((name) => ({ name, data: column(name, String) })),
        { name: 'size', data: column('size', BigInt) },
        { name: 'ratio', data: column('ratio', Number) },
        { name: 'tags', data: column('tags', (json): unknown => JSON.parse(json)) },
      ],
    }),
  );
}

interface Manifest {
  readonly name: string;
  readonly file: string;
  readonly rows: readonly Row[];
  /** By the file's name. */
  readonly content: (rows: readonly Row[]) => Readonly<Record<string, string | Buffer>>;
  readonly options?: Partial<RunOptions>;
}

const inFile = (
  name: string,
  file: string,
  rows: readonly Row[],
  format: (rows: readonly Row[]) => string | Buffer,
  options: Partial<RunOptions> = {},
): Manifest => ({ name, file, rows, content: (all) => ({ [file]: format(all) }), options });

const BASE = { baseUrl: 'http://images.test/folder/' };
const NAMED: Row[] = HOSTILE.slice(0, -1).map((note) => ({ file_name: `${note}.jpg`, note }));
const withMetadata = (name: string, format: (rows: readonly Row[]) => string): Manifest => ({
  ...{ name: `folder with \`${name}\``, file: name.replace('.', '-'), rows: NAMED, options: BASE },
  content: (rows) => ({ [`${name.replace('.', '-')}/${name}`]: format(rows) }),
});
const SIZE = '12345678901234567890';

const MANIFESTS: readonly Manifest[] = [
  inFile('`.csv`', 'comma.csv', textRows('comma'), csvOf),
  inFile('`.csv` with `;`', 'semicolon.csv', textRows('semicolon'), (rows) => csvOf(rows, ';')),
  inFile('`.csv.gz`', 'packed.csv.gz', textRows('packed'), (rows) => gzipSync(`\ufeff${csvOf(rows)}`)),
  inFile('`.csv` in UTF-16', 'utf16.csv', textRows('utf16'), (rows) =>
    Buffer.from(`\ufeff${csvOf(rows)}`, 'utf16le'),
  ),
  inFile('`.tsv`', 'tabs.tsv', textRows('tabs'), (rows) => csvOf(rows, '\t')),
  inFile('`.jsonl`', 'lines.jsonl', typedRows('lines', SIZE), jsonlOf),
  inFile('`.json`', 'list.json', typedRows('list', SIZE), (rows) =>
    indented(`[${objectsOf(rows).join(',\n')}]`),
  ),
  inFile(
    '`.json` with `--records`',
    'deep.json',
    typedRows('deep', SIZE),
    (rows) => indented(`{"a":{"b":[${objectsOf(rows).join()}]},"c":[{}]}`),
    { records: 'a.b' },
  ),
  inFile('`.parquet`', 'columns.parquet', typedRows('columns', '1234567890123456789'), parquetOf),
  inFile(
    '`.list`',
    'urls.list',
    HOSTILE.slice(0, -1).map((text) => ({ url: `http://images.test/${encodeURIComponent(text)}?q="'=,` })),
    (rows) => rows.map((row) => textOf(row['url'] ?? '')).join('\r\n'),
  ),
  {
    ...{ name: 'folder', file: 'folder', options: BASE },
    rows: NAMED.map(({ file_name = '' }) => ({ file_name, bytes: '1', width: '', height: '' })),
    content: (rows) =>
      Object.fromEntries(rows.map((row) => [`folder/${textOf(row['file_name'] ?? '')}`, 'x'])),
  },
  withMetadata('metadata.csv', csvOf),
  withMetadata('metadata.jsonl', jsonlOf),
];

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
const anything = z.array(z.record(z.string(), z.unknown()));

/** Reads an output with another reader than the one that is tested. */
async function readOutput(path: string, delimiter: string): Promise<Record<string, unknown>[]> {
  if (path.endsWith('.parquet')) {
    const file = await asyncBufferFromFile(path);
    const parsers = { stringFromBytes: (bytes?: Uint8Array) => bytes && decoder.decode(bytes) };
    return anything.parse(await parquetReadObjects({ file, parsers }));
  }
  const text = await readFile(path, 'utf8');
  if (!path.endsWith('.jsonl')) return anything.parse(parse(text, { columns: true, delimiter }));
  const lines = text.split('\n').slice(0, -1);
  // The digits of a number are compared as they are written.
  const exact = lines.map((line) => line.replace(/("size":)(\d{17,})/, '$1{"digits":"$2"}'));
  return anything.parse(exact.map((line): unknown => JSON.parse(line)));
}

function foundText(value: unknown): string {
  if (typeof value === 'string') return value;
  if (value === null || value === undefined) return '';
  if (typeof value === 'bigint') return String(value);
  return z.object({ digits: z.string() }).safeParse(value).data?.digits ?? JSON.stringify(value);
}

function kindOf(value: unknown): string {
  if (typeof value === 'string') return 'texts';
  return value === null || value === undefined ? 'nulls' : Array.isArray(value) ? 'lists' : 'numbers';
}

/** The page's table, formatted as Prettier does. */
function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = ['', ...OUTPUTS].map((_, at) => Math.max(...rows.map((row) => row[at]?.length ?? 0)));
  const lines = rows.map((row) => `| ${row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(' | ')} |`);
  const rule = `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`;
  return [...lines.slice(0, 1), rule, ...lines.slice(1)].join('\n');
}

describeOnRedis('a manifest of every format', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);

  /** Runs a manifest to an output of each format. @returns what kinds of values the manifest's columns have there */
  async function roundTrip({ file, rows, content, options }: Manifest): Promise<string[]> {
    const { workspace } = fixture;
    for (const [name, text] of Object.entries(content(rows))) {
      await mkdir(dirname(workspace.at(name)), { recursive: true });
      await writeFile(workspace.at(name), text);
    }
    const columns = Object.keys(rows[0] ?? {});
    const byKey = (cells: readonly string[][]) => [...cells].sort(([a = ''], [b = '']) => (a < b ? -1 : 1));
    const expected = byKey(rows.map((row) => Object.values(row).map(textOf)));
    const prompts = new Set<string>();
    const kinds = await Promise.all(
      OUTPUTS.map(async (ending) => {
        const output = workspace.at(`${file}.out${ending}`);
        const about = { manifest: workspace.at(file), output, urlColumn: options?.baseUrl && 'file_name' };
        const { receipt } = await fixture.run({ ...options, ...about });
        expect(receipt.described).toBe(rows.length);
        const delimiter = ending === '.tsv' ? '\t' : file.startsWith('semicolon') ? ';' : ',';
        const found = await readOutput(output, delimiter);
        expect(byKey(found.map((row) => columns.map((name) => foundText(row[name]))))).toEqual(expected);
        const described = found.map((row) => [
          foundText(row[columns[0] ?? '']),
          JSON.stringify(row['prompts'] ?? [1, 2, 3, 4].map((n) => row[`prompt_${n}`])),
        ]);
        prompts.add(JSON.stringify(byKey(described)));
        const values = found.flatMap((row) => columns.map((name) => kindOf(row[name])));
        return ['texts', 'numbers', 'lists', 'nulls'].filter((kind) => values.includes(kind)).join(', ');
      }),
    );
    expect([...prompts].map((text) => text.slice(0, 200))).toHaveLength(1);
    return kinds;
  }

  test('comes out equal, cell by cell, in every format of outputs; with UPDATE_FORMATS=1 this test writes the table of docs/formats.md', async () => {
    fixture.simulator.setOptions({ latencyMs: 1, latencySpread: 0 });
    const table = [['manifest', ...OUTPUTS.map((ending) => `\`${ending}\``)]];
    for (const manifest of MANIFESTS) table.push([manifest.name, ...(await roundTrip(manifest))]);
    const page = await readFile(PAGE, 'utf8');
    const written = page.replace(MARKERS, () => formatTable(table));
    if (process.env['UPDATE_FORMATS'] === '1') await writeFile(PAGE, written);
    else expect(written).toBe(page);
    expect(page).toMatch(MARKERS);
  }, 180_000);
});
