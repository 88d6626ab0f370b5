import { readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { parquetMetadataAsync, parquetReadObjects } from 'hyparquet';
import { asyncBufferFromFile } from 'hyparquet/src/node.js';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { expect, test } from 'vitest';
import type { AnswerValue } from '../../src/shared/jobs.js';
import { OutputFile } from '../../src/writer/output-file.js';
import { type OutputOptions, inspectOutput } from '../../src/writer/output-table.js';
import { packOutput, unpackOutput } from '../../src/writer/parquet-output.js';
import { typesOf } from '../../src/writer/parquet-table.js';
import { DESCRIBED_AT, imageOf, makeFolder, outputOptions } from './fixtures.js';

type Given = readonly (readonly [id: string, isJson: boolean, prompts?: readonly AnswerValue[]])[];

/** A run's working file with these rows, and how it is opened. */
async function makeWorking(rows: Given, more: Partial<OutputOptions> = {}) {
  const output = join(await makeFolder(), 'out.parquet');
  const options = { ...outputOptions(`${output}.jsonl`), ...more };
  const file = await OutputFile.open(options);
  await file.append(
    rows.map(([id, isJson, prompts = ['1', '2', '3', '4']], index) => ({
      row: { cells: [id, `https://${index}`], isJson: [isJson, false], image: imageOf(`https://${index}`) },
      outcome: { status: 'described', prompts, messageId: `m-${index}`, describedAt: DESCRIBED_AT },
    })),
  );
  await file.close();
  return { output, options, text: await readFile(options.path, 'utf8') };
}

const readPacked = async (path: string) => parquetReadObjects({ file: await asyncBufferFromFile(path) });

test.each([
  ['true', 'boolean'],
  ['0', 'int'],
  ['-9223372036854775808', 'int'],
  ['9223372036854775807', 'int'],
  ['9223372036854775808', 'json'],
  ['-0', 'json'],
  ['1.0', 'json'],
  ['1.5', 'double'],
  ['0.1', 'double'],
  ['1e400', 'json'],
  ['123456789.12345678901234567890', 'json'],
  ['["a","b"]', 'list'],
  ['["a", "b"]', 'json'],
  ['[1]', 'json'],
  ['{"a":1}', 'json'],
])('%s is read back to the letter from a column of %s', (cell, type) => {
  expect(typesOf({ cell, isJson: true }, true)[0]).toBe(type);
});

test.each([
  ['1.0', 'double'],
  ['-1.50E1', 'double'],
  ['-0', 'double'],
  ['0.30000000000000001', 'json'],
  ['["a", "\\u00e9"]', 'list'],
])('%s means what a column of %s has', (cell, type) => {
  expect(typesOf({ cell, isJson: true }, false)[0]).toBe(type);
});

test('gives the same rows as went in, whatever they are', async () => {
  const json = fc.oneof(
    fc.maxSafeInteger().map((value) => [JSON.stringify(value), true] as const),
    fc
      .double({ noNaN: true, noDefaultInfinity: true })
      .map((value) => [JSON.stringify(value), true] as const),
    fc.bigInt().map((value) => [String(value), true] as const),
    fc.json().map((value) => [value === 'null' ? '' : value.startsWith('"') ? '1' : value, true] as const),
    fc.string({ unit: 'binary' }).map((value) => [value, false] as const),
    fc.constantFrom(['"', false] as const, ['', false] as const, ['', true] as const),
  );
  const texts = fc.array(fc.string({ unit: 'grapheme' }), { minLength: 4, maxLength: 4 });
  const row = fc.tuple(json, texts).map(([[id, isJson], prompts]) => [id, isJson, prompts] as const);
  await fc.assert(
    fc.asyncProperty(fc.array(row, { maxLength: 6 }), async (rows) => {
      const { output, options, text } = await makeWorking(rows, { keyColumn: { index: 0, path: [] } });
      await packOutput(options, output);
      await expect(stat(options.path)).rejects.toThrow('ENOENT');
      await unpackOutput(options, output);
      expect(await readFile(options.path, 'utf8')).toBe(text);
      await rm(options.path);
      const index = await inspectOutput({ ...options, path: output });
      expect(index?.end).toBe(rows.length);
      expect(options.index.rows).toBe(rows.length);
    }),
    { numRuns: 60 },
  );
});

test('has typed columns, and the prompts as a list', async () => {
  const answerColumns = ['score', 'nsfw', 'tags', 'raw'];
  const answer = (score: number | null, raw: AnswerValue): AnswerValue[] => [score, true, ['a', 'é'], raw];
  const { output, options } = await makeWorking(
    [
      ['1', true, answer(1, 'x')],
      ['2', true, answer(0.5, 7)],
      ['', true, answer(null, null)],
    ],
    { answerColumns },
  );
  await packOutput(options, output);
  expect(await readPacked(output)).toMatchObject([
    { id: 1n, score: 1, nsfw: true, tags: ['a', 'é'], raw: '"x"', message_id: 'm-0' },
    { id: 2n, score: 0.5, nsfw: true, tags: ['a', 'é'], raw: '7' },
    { id: null, score: null, nsfw: true, tags: ['a', 'é'], raw: null },
  ]);
  const four = await makeWorking([['1', false]]);
  await packOutput(four.options, four.output);
  expect(await readPacked(four.output)).toMatchObject([{ id: '1', prompts: ['1', '2', '3', '4'] }]);
});

test("a manifest's column that is named like a prompt is packed and unpacked as one of its own", async () => {
  const { output, options, text } = await makeWorking([['1', false]], { columns: ['prompt_5', 'url'] });
  await packOutput(options, output);
  expect(await readPacked(output)).toMatchObject([{ prompt_5: '1', prompts: ['1', '2', '3', '4'] }]);
  await unpackOutput(options, output);
  expect(await readFile(options.path, 'utf8')).toBe(text);
});

test('has row groups of 10,000 rows, and finds a row in each', async () => {
  const rows = Array.from({ length: 10_500 }, (_, id) => [String(id), false] as const);
  const { output, options, text } = await makeWorking(rows);
  await packOutput(options, output);
  const metadata = await parquetMetadataAsync(await asyncBufferFromFile(output));
  expect(metadata.row_groups.map((group) => Number(group.num_rows))).toEqual([10_000, 500]);
  const again = { ...options, ...outputOptions(output) };
  await inspectOutput(again);
  for (const row of [9999, 10_000]) expect(again.index.placeOf(imageOf(`https://${row}`))?.offset).toBe(row);
  await unpackOutput(options, output);
  expect(await readFile(options.path, 'utf8')).toBe(text);
});

test('a working file that is there counts, and one that nobody has changed is discarded', async () => {
  const { output, options, text } = await makeWorking([['1', false]]);
  await packOutput(options, output);
  const discard = await unpackOutput(options, output);
  await discard();
  expect(await readdir(join(output, '..'))).toEqual(['out.parquet']);
  const keep = await unpackOutput(options, output);
  await writeFile(options.path, `${text}${text}`);
  await keep();
  await unpackOutput(options, output);
  expect(await readFile(options.path, 'utf8')).toBe(`${text}${text}`);
});

test.each<[string, (packed: Buffer) => Buffer | string, RegExp]>([
  ['is none', () => 'id,url\n1,2\n', /is no Parquet file as bulk-describe writes it/],
  ['is cut short', (packed) => packed.subarray(0, -20), /is no Parquet file as bulk-describe writes it/],
  ['has damaged rows', (packed) => packed.fill(0, 4, 60), /is no Parquet file as bulk-describe writes it/],
  [
    'another program has written',
    () => Buffer.from(parquetWriteBuffer({ columnData: [{ name: 'id', data: ['1'] }] })),
    /\(written by hyparquet\): put its own back, or name another output with -o$/,
  ],
])('a Parquet output that %s is refused in one line, and left as it is', async (_title, spoil, message) => {
  const { output, options } = await makeWorking([['1', false]]);
  await packOutput(options, output);
  const spoilt = spoil(await readFile(output));
  await writeFile(output, spoilt);
  await expect(unpackOutput(options, output)).rejects.toThrow(message);
  await expect(unpackOutput(options, output)).rejects.not.toThrow(/\n/);
  expect(await readFile(output)).toEqual(Buffer.from(spoilt));
  expect(await readdir(join(output, '..'))).toEqual(['out.parquet']);
});

test('one with other columns than the manifest is refused before it is unpacked', async () => {
  const { output, options } = await makeWorking([['1', false]]);
  await packOutput(options, output);
  await expect(unpackOutput({ ...options, columns: ['id', 'url', 'more'] }, output)).rejects.toThrow(
    'out.parquet lacks columns that the manifest has: "more"',
  );
});
