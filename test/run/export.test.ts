import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { beforeEach, expect, test, afterEach } from 'vitest';
import { exportOutput, type ExportOptions } from '../../src/run/export.js';
import { openToRead, readFailuresOf } from '../../src/run/read-output.js';
import { formatCsv } from '../../src/shared/csv.js';
import { writeRunFile, type RunFile } from '../../src/writer/run-file.js';
import { DESCRIBED_AT } from '../writer/fixtures.js';
import { describeOnAnyQueue } from '../helpers/queues.js';
import { RunFixture } from '../helpers/run-fixture.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';

const RUN: RunFile = {
  ...{ version: 1, run: 'a23456789012', queue: 'embedded:', account: 'any', simulator: true, open: false },
  ...{ urlColumn: 'image', createdAt: DESCRIBED_AT },
};

let workspace: Workspace;
beforeEach(async () => {
  workspace = await Workspace.create();
});
afterEach(() => workspace.remove());

/** An output with a row an image: its id, its image, and four prompts or what else is answered. */
async function writeOutput(
  rows: readonly (readonly string[])[],
  {
    answers = ['prompt_1', 'prompt_2', 'prompt_3', 'prompt_4'],
    ...more
  }: Partial<RunFile> & { answers?: string[] } = {},
): Promise<string> {
  const header = ['id', 'image', ...answers, 'message_id', 'described_at'];
  const cells = rows.map((row) => [
    ...row,
    ...answers.slice(row.length - 2).map((name) => name),
    'sim-1',
    DESCRIBED_AT,
  ]);
  const output = await workspace.write('out.csv', formatCsv([header, ...cells], ','));
  await writeRunFile(`${output}.run`, { ...RUN, answerColumns: answers, ...more });
  return output;
}

const to = (output: string, format: ExportOptions['to'], dest: string, more: Partial<ExportOptions> = {}) =>
  exportOutput({ output, to: format, dest: workspace.at(dest), ...more });

test('a caption is named as its image, without --ar where that is not wanted; what is there is kept', async () => {
  const output = await writeOutput([
    ['1', 'https://a.test/x/one%20%C3%A9.jpg?sign=1', 'a cat\nsleeps --ar 16:9'],
    ['2', 'https://a.test/two', 'a dog --ar 1:1 --v 6'],
    ['3', 'https://a.test/x/one%20%C3%A9.jpg?sign=1', 'a cat\nsleeps --ar 16:9'],
    ['4', 'https://a.test/three.png', ' '],
  ]);
  expect(await to(output, 'sidecar', 'side', { ar: false })).toEqual({ written: 2, kept: 0, empty: 1 });
  expect(await workspace.read('side/one é.txt')).toBe('a cat sleeps\n');
  expect(await workspace.read('side/two.txt')).toBe('a dog --ar 1:1 --v 6\n');
  expect(await to(output, 'sidecar', 'side')).toEqual({ written: 0, kept: 2, empty: 1 });
  const again = { overwrite: true, promptColumn: 'prompt_2' };
  expect(await to(output, 'sidecar', 'side', again)).toEqual({ written: 3, kept: 0, empty: 0 });
  expect(await workspace.read('side/two.txt')).toBe('prompt_2\n');
});

test('local images keep their folders, and --sidecar-name names them otherwise', async () => {
  const rows = [
    ['7', 'a/x.jpg', 'one'],
    ['8', 'b/x.jpg', 'two'],
  ];
  const output = await writeOutput(rows, { imageRoot: workspace.path });
  await to(output, 'sidecar', '.');
  expect([await workspace.read('a/x.txt'), await workspace.read('b/x.txt')]).toEqual(['one\n', 'two\n']);
  await to(output, 'sidecar', 'ids', { sidecarName: 'n{{id}}' });
  expect(await workspace.read('ids/n8.txt')).toBe('two\n');
  await to(output, 'kohya', 'meta.json');
  expect(JSON.parse(await workspace.read('meta.json'))).toEqual({
    [workspace.at('a/x.jpg')]: { caption: 'one' },
    [workspace.at('b/x.jpg')]: { caption: 'two' },
  });
  await to(output, 'hf', 'a');
  expect((await workspace.read('a/metadata.jsonl')).split('\n').map((line) => line.slice(0, 24))).toEqual([
    '{"file_name":"a/x.jpg","',
    '{"file_name":"b/x.jpg","',
    '',
  ]);
});

test.each<[string, string, Partial<ExportOptions>, RegExp]>([
  [
    'collide',
    'https://b.test/other/ONE.png',
    {},
    /row 2 of .*: another image is named "ONE.txt" too: name images by a column/,
  ],
  ['are none', 'https://b.test/folder/', {}, /"\.txt" cannot be a file's name \(there is no name\)/],
  ['leave the folder', 'https://b.test/..%2Fx.jpg', {}, /"\.\.\/x\.txt" cannot be .* \(slashes/],
  ['are too long', `https://b.test/${'x'.repeat(240)}`, {}, /over 240 bytes/],
  ['are devices', 'https://b.test/nul.jpg', {}, /"nul\.txt" cannot be/],
  ['are images themselves', 'data:image/png;base64,AAAA', {}, /there is no name/],
  [
    'come from a column that is not unique',
    'https://b.test/x',
    { sidecarName: '{{prompt_4}}' },
    /row 2 .*: another image .*: give --sidecar-name a column/,
  ],
  [
    'climb by a column',
    'https://b.test/x',
    { sidecarName: '{{prompt_1}}' },
    /row 1 .*"\.\.\/\.\.\/x\.txt" cannot be/,
  ],
  ['name no column', 'https://b.test/x', { sidecarName: 'same' }, /gives all images one name/],
])('names that %s are refused before anything is written', async (_, image, more, message) => {
  const output = await writeOutput([
    ['1', 'https://a.test/one.jpg', '../../x'],
    ['2', image, '../../x'],
  ]);
  await expect(to(output, 'sidecar', 'side', more)).rejects.toThrow(message);
  expect(await workspace.files()).toEqual(['out.csv', 'out.csv.run']);
});

test('fields are named, lists are tags, and others columns go along', async () => {
  const rows = [
    { id: 1, image: 'https://a.test/one.jpg', text: null, caption: 'a "cat"', tags: ['cat', 'sofa'] },
    { id: 12345678901234567890n, image: 'https://a.test/two.jpg', text: 'x', caption: 'dog', tags: [] },
  ];
  const lines = rows.map((row) =>
    JSON.stringify({ ...row, message_id: 'sim-1', described_at: DESCRIBED_AT }, (_, value: unknown) =>
      typeof value === 'bigint' ? 'BIG' : value,
    ).replace('"BIG"', '12345678901234567890'),
  );
  const output = await workspace.write('out.jsonl', `${lines.join('\n')}\n{"id":3,"ima`);
  await writeRunFile(`${output}.run`, { ...RUN, answerColumns: ['caption', 'tags'] });
  await expect(to(output, 'kohya', 'k.json')).rejects.toThrow('--prompt-column caption|tags');
  await expect(to(output, 'kohya', 'k.json', { promptColumn: 'x' })).rejects.toThrow(
    /no such column \(it has id,/,
  );
  expect(await to(output, 'kohya', 'k.json', { promptColumn: 'tags' })).toEqual({
    written: 1,
    kept: 0,
    empty: 1,
  });
  expect(JSON.parse(await workspace.read('k.json'))).toEqual({ one: { tags: 'cat, sofa' } });
  await to(output, 'hf', 'hf', { promptColumn: 'caption' });
  const [first, second = ''] = (await workspace.read('hf/metadata.jsonl')).split('\n');
  expect(JSON.parse(first ?? '')).toEqual({
    ...{ file_name: 'one.jpg', text: 'a "cat"', id: 1, image: 'https://a.test/one.jpg', _text: null },
    ...{ tags: ['cat', 'sofa'], message_id: 'sim-1', described_at: DESCRIBED_AT },
  });
  expect(second).toContain('"id":12345678901234567890,');
});

test('an output becomes another format and itself again, byte by byte', async () => {
  const hostile = ['=1+1', ' "quoted"\n😀 ', '{"a": 1}', '12345678901234567890'];
  const output = await writeOutput([
    ['01', 'https://a.test/one.jpg', ...hostile],
    ['', 'https://a.test/2', '\ufeffx'],
  ]);
  await to(output, 'jsonl', 'one.jsonl');
  await to(workspace.at('one.jsonl'), 'parquet', 'two.parquet');
  await to(workspace.at('two.parquet'), 'csv', 'three.csv');
  expect(await readFile(workspace.at('three.csv'))).toEqual(await readFile(output));
  expect(await workspace.files()).not.toContain('two.parquet.jsonl');
});

test('what tells rows apart keeps its very digits in Parquet', async () => {
  const row = `{"id":1001.0,"size":1.50,"image":"https://a.test/1.jpg","prompts":["a","b","c","d"]`;
  const lines = `${row},"message_id":"sim-1","described_at":"${DESCRIBED_AT}"}\n`;
  const output = await workspace.write('one.jsonl', lines);
  await writeRunFile(`${output}.run`, { ...RUN, keyColumn: 'id', prompt: 'about {{size}}' });
  await to(output, 'parquet', 'two.parquet');
  await to(workspace.at('two.parquet'), 'jsonl', 'three.jsonl');
  expect(await workspace.read('three.jsonl')).toBe(lines);
});

test('prompts are a list in JSON Lines, without what the manifest and the tokens have beside them', async () => {
  const prompts = ['prompt_1', 'prompt_2', 'prompt_3', 'prompt_4'];
  const answers = ['prompt_5', ...prompts, 'input_tokens', 'output_tokens'];
  const output = await writeOutput([['1', 'https://a.test/one.jpg', 'own']], { answers });
  await writeRunFile(`${output}.run`, { ...RUN, answerColumns: prompts, usage: true });
  await to(output, 'jsonl', 'one.jsonl');
  expect(JSON.parse(await workspace.read('one.jsonl'))).toEqual({
    ...{ id: '1', image: 'https://a.test/one.jpg', prompt_5: 'own', prompts },
    ...{ input_tokens: 'input_tokens', output_tokens: 'output_tokens' },
    ...{ message_id: 'sim-1', described_at: DESCRIBED_AT },
  });
});

test.each<[string, Partial<RunFile>, Readonly<Record<string, unknown>>]>([
  ['prompts', { answerColumns: ['prompt_1'] }, { prompt_1: 'a cat' }],
  ['a caption', { answerColumns: ['caption'] }, { caption: 'a cat' }],
  [
    'a line for each prompt',
    { answerColumns: ['prompt_1'], promptsAs: 'rows' },
    { prompt_number: 1, prompt: 'a cat' },
  ],
])("a manifest's lists that are called prompts stay what they are beside %s", async (_, run, answer) => {
  const lists = [['own'], ['own', 'more']];
  const lines = lists.map((prompts) => {
    const row = { image: 'https://a.test/1.jpg', prompts, ...answer };
    return `${JSON.stringify({ ...row, message_id: 'sim-1', described_at: DESCRIBED_AT })}\n`;
  });
  const output = await workspace.write('out.jsonl', lines.join(''));
  await writeRunFile(`${output}.run`, { ...RUN, ...run });
  await to(output, 'jsonl', 'again.jsonl');
  const found = (await workspace.read('again.jsonl')).trim().split('\n');
  const text = { [run.answerColumns?.[0] ?? '']: 'a cat' };
  expect(found.map((line): unknown => JSON.parse(line))).toMatchObject(
    lists.map((prompts) => ({ prompts, ...text })),
  );
});

test('an output of which a kill has left some of its first row has no rows yet', async () => {
  const output = await workspace.write('out.jsonl', '{"id":"1","ima');
  await expect(to(output, 'csv', 'out.csv')).rejects.toThrow('is no output of bulk-describe');
  await writeRunFile(`${output}.run`, RUN);
  await expect(to(output, 'csv', 'out.csv')).rejects.toThrow('has no rows yet');
});

test('rows that are written as they are take no flag of captions', async () => {
  const output = await writeOutput([['1', 'https://a.test/1.jpg', 'a cat --ar 1:1']]);
  const flags = [{ sidecarName: '{{id}}' }, { promptColumn: 'prompt_2' }, { ar: false }];
  for (const flag of flags) {
    await expect(to(output, 'jsonl', 'rows.jsonl', flag)).rejects.toThrow(
      /^--\S+ is for captions, and --to jsonl writes the rows as they are: leave one of the two away$/,
    );
  }
  expect(await to(output, 'jsonl', 'rows.jsonl', { ar: true })).toMatchObject({ written: 1 });
});

test('what is there, is the output itself, or has another ending is not written over', async () => {
  const output = await writeOutput([['1', 'https://a.test/one.jpg']]);
  await workspace.write('there.jsonl', 'x');
  await expect(to(output, 'jsonl', 'there.jsonl')).rejects.toThrow('--overwrite');
  await expect(to(output, 'csv', 'out.csv', { overwrite: true })).rejects.toThrow('belongs to the output');
  await expect(to(output, 'jsonl', 'x.csv')).rejects.toThrow('--to jsonl writes a .jsonl or .ndjson');
  await expect(to(workspace.at('no.csv'), 'csv', 'x.csv')).rejects.toThrow('there is no output');
  const other = await workspace.write('other.csv', 'a,b\n1,2\n');
  await expect(to(other, 'csv', 'x.csv')).rejects.toThrow('is no output of bulk-describe');
  expect(await workspace.read('there.jsonl')).toBe('x');
});

test('no caption takes the place of the output, even with --overwrite', async () => {
  const written = await writeOutput([['1', 'https://a.test/out.jpg']]);
  const output = workspace.at('out.txt');
  await rename(written, output);
  await rename(`${written}.run`, `${output}.run`);
  const before = await workspace.read('out.txt');
  await expect(to(output, 'sidecar', '.', { overwrite: true })).rejects.toThrow(
    /^row 1 of .*out\.txt would be a caption's file: name another folder$/,
  );
  expect(await workspace.read('out.txt')).toBe(before);
});

test('columns that are named like those of Hugging Face are kept, each by a name of its own', async () => {
  const line = {
    ...{ image: 'https://a.test/1.jpg', text: 'a', _text: 'b', file_name: 'c', prompt_1: 'd' },
    ...{ message_id: 'sim-1', described_at: DESCRIBED_AT },
  };
  const output = await workspace.write('out.jsonl', `${JSON.stringify(line)}\n`);
  await writeRunFile(`${output}.run`, { ...RUN, answerColumns: ['prompt_1'] });
  await to(output, 'hf', 'hf');
  const [first = ''] = (await workspace.read('hf/metadata.jsonl')).split('\n');
  expect(JSON.parse(first)).toMatchObject({
    ...{ file_name: '1.jpg', text: 'd', __text: 'a', _text: 'b', _file_name: 'c' },
  });
});

describeOnAnyQueue('a run with --sidecar', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);

  test('writes captions at its end, and refuses names that collide before anything is paid', async () => {
    const { workspace: place, simulator } = fixture;
    const manifest = await place.write('m.csv', manifestOf(3));
    const sidecar = { folder: place.at('side'), ar: false };
    const notices: string[] = [];
    const first = await fixture.run({
      ...{ manifest, sidecar, limit: 2 },
      onEvent: (event) => event.type === 'notice' && notices.push(event.text),
    });
    expect(first.exitCode).toBe(0);
    expect(notices).toEqual([`2 captions written to ${sidecar.folder}, 0 that were there kept`]);
    await fixture.run({ manifest, sidecar });
    const [row] = await place.records('out.csv');
    const name = row?.['image']?.slice(-5, -4) ?? '';
    expect(await place.read(`side/${name}.txt`)).toBe(
      `${row?.['prompt_1']?.replace(/ --ar \S+$/, '') ?? ''}\n`,
    );
    const paid = simulator.stats().paid;
    const lists = await Promise.all(
      ['1', '2'].map((name) => place.write(`${name}.txt`, `http://images.test/${name}.jpg\n`)),
    );
    const [one = '', ...more] = lists;
    const beside = { folder: place.path, overwrite: true };
    await expect(
      fixture.run({ manifest: one, moreManifests: more, output: place.at('lists.csv'), sidecar: beside }),
    ).rejects.toThrow(/1\.txt would be a caption's file: name another folder$/);
    await writeFile(manifest, `${manifestOf(3)}9,http://images.test/x/1.jpg\n`);
    const refused = fixture.run({ manifest, sidecar });
    await expect(refused).rejects.toThrow(/^line 5 of .*: another image is named "1.txt" too: name images/);
    await expect(fixture.run({ manifest, sidecar: { ...sidecar, promptColumn: 'no' } })).rejects.toThrow(
      '--prompt-column no',
    );
    expect(simulator.stats().paid).toBe(paid);
    await mkdir(place.at('side/n9.txt'));
    const named = await fixture.runAnyhow({
      manifest,
      sidecar: { ...sidecar, sidecarName: 'n{{id}}', overwrite: true },
    });
    expect(named.stop?.reason).toMatch(/^captions could not be written: .*n9\.txt cannot be written/);
    expect([named.exitCode, named.receipt.described]).toEqual([1, 1]);
  });

  test.each(['|', '^'])(
    'an output has the delimiter of its manifest, and is read back by that: %s',
    async (delimiter) => {
      const { workspace: place } = fixture;
      const records = [
        ['id', 'image', 'title'],
        ['1', 'http://images.test/1.jpg', 'a, b; c'],
        ['2', '', 'no image'],
      ];
      const manifest = await place.write('m.csv', formatCsv(records, delimiter));
      const sidecar = { folder: place.at('side') };
      const given = delimiter === '|' ? undefined : delimiter;
      const { exitCode, failedByCode } = await fixture.run({ manifest, sidecar, delimiter: given });
      expect([exitCode, ...failedByCode]).toEqual([2, ['invalid-url', 1]]);
      expect(await place.read('side/1.txt')).not.toBe('');
      const read = await openToRead(place.at('out.csv'));
      await read.handle.close();
      expect(read.table.columns.slice(0, 3)).toEqual(['id', 'image', 'title']);
      const { columns, failures } = await readFailuresOf(read, 10);
      expect([columns, ...failures.map(({ row }) => row.cells)]).toEqual([records[0], records[2]]);
    },
  );
});
