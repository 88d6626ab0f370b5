import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { EarlierOutputs } from '../../src/writer/earlier-outputs.js';
import { OutputFile } from '../../src/writer/output-file.js';
import { type OutputOptions, inspectOutput } from '../../src/writer/output-table.js';
import { packOutput, unpackOutput } from '../../src/writer/parquet-output.js';
import { DESCRIBED_AT, imageOf, makeFolder, outputOptions } from './fixtures.js';

const ROWS = { promptsAs: 'rows' } as const;
const linesSchema = z.array(z.record(z.string(), z.json()));

const pathOf = async (name: string) => join(await makeFolder(), name);

async function openOutput(path: string, options: Partial<OutputOptions> = ROWS) {
  const all = { ...outputOptions(path), ...options };
  const output = await OutputFile.open(all);
  onTestFinished(() => output.close());
  return { output, index: all.index };
}

const promptsOf = (id: string) => [1, 2, 3, 4].map((number) => `prompt, ${number} "of"\n${id}`);

function row(id: string, image = `image-${id}`, prompts: readonly string[] = promptsOf(id)) {
  const url = `https://${image}`;
  return {
    row: { cells: [id, url], image: imageOf(url) },
    outcome: { status: 'described', prompts, messageId: `m-${id}`, describedAt: DESCRIBED_AT },
    usage: { inputTokens: 7, outputTokens: 9 },
  } as const;
}

async function linesIn(path: string) {
  const text = await readFile(path, 'utf8');
  const lines: unknown = path.endsWith('.csv')
    ? parse(text, { columns: true })
    : text
        .split('\n')
        .filter((line) => line !== '')
        .map((line): unknown => JSON.parse(line));
  return linesSchema.parse(lines);
}

test('a row has a line for each prompt, and what it has cost in the first alone', async () => {
  const [csv, jsonl] = [await pathOf('out.csv'), await pathOf('out.jsonl')];
  for (const path of [csv, jsonl]) {
    const { output } = await openOutput(path, { ...ROWS, usage: true });
    await output.append([row('1', 'a', ['one', 'two', 'three', 'four'])]);
  }
  const url = 'https://a';
  expect(await readFile(csv, 'utf8')).toBe(
    'id,url,prompt_number,prompt,input_tokens,output_tokens,message_id,described_at\n' +
      `1,${url},1,one,7,9,m-1,${DESCRIBED_AT}\n` +
      `1,${url},2,two,,,m-1,${DESCRIBED_AT}\n` +
      `1,${url},3,three,,,m-1,${DESCRIBED_AT}\n` +
      `1,${url},4,four,,,m-1,${DESCRIBED_AT}\n`,
  );
  expect((await linesIn(jsonl)).slice(0, 2)).toMatchObject([
    { id: '1', prompt_number: 1, prompt: 'one', input_tokens: 7, message_id: 'm-1' },
    { id: '1', prompt_number: 2, prompt: 'two', input_tokens: null },
  ]);
});

test("a manifest's columns that are called like prompts stay what they are in JSON Lines", async () => {
  const path = await pathOf('out.jsonl');
  const columns = ['id', 'url', 'prompts', 'prompt_5'];
  for (const rows of [1, 2]) {
    const { output, index } = await openOutput(path, { ...ROWS, columns });
    const given = row(String(rows));
    const cells = [...given.row.cells, '["own"]', 'x'];
    await output.append([{ ...given, row: { ...given.row, cells, isJson: [false, false, true, false] } }]);
    expect(index.rows).toBe(rows);
  }
  const lines = await linesIn(path);
  expect(
    lines.filter(({ prompts, prompt_5 }) => JSON.stringify([prompts, prompt_5]) === '[["own"],"x"]'),
  ).toHaveLength(8);
});

test.each(['out.csv', 'out.jsonl'])('%s goes on after any cut, and holds whole rows once', async (name) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.string({ unit: 'grapheme', minLength: 1 }), { minLength: 1, maxLength: 3 }),
      fc.nat(),
      async (texts, cut) => {
        const path = await pathOf(name);
        const ids = texts.map((text, index) => `${index}${text}`);
        const { output, index } = await openOutput(path);
        const ends: number[] = [];
        for (const [number, id] of ids.entries()) {
          await output.append([row(id, `image-${number}`)]);
          ends.push((await readFile(path)).length);
        }
        for (const [number, id] of ids.entries()) {
          const place = index.placeOf(imageOf(`https://image-${number}`));
          expect((await output.readDescribed(place?.offset ?? -1)).prompts).toEqual(promptsOf(id));
        }
        const at = cut % ((ends.at(-1) ?? 0) + 1);
        await truncate(path, at);
        // A row that lacks no more than its line end is whole.
        const left = ids.filter((_, number) => at >= (ends[number] ?? 0) - 1);
        const again = await openOutput(path);
        expect(again.index.rows).toBe(left.length);
        await again.output.append([row('last')]);
        const wanted = [...left, 'last'].flatMap((id) =>
          promptsOf(id).map((prompt, number) => ({ id, prompt, prompt_number: number + 1 })),
        );
        const found = (await linesIn(path)).map(({ id, prompt, prompt_number }) => ({
          ...{ id, prompt, prompt_number: Number(prompt_number) },
        }));
        expect(found).toEqual(wanted);
      },
    ),
    { numRuns: 60 },
  );
});

test('Parquet holds the lines, and gives the rows back', async () => {
  const path = await pathOf('out.parquet');
  const working = `${path}.jsonl`;
  const options = { ...outputOptions(working), ...ROWS };
  const { output } = await openOutput(working);
  await output.append([row('1'), row('2')]);
  const before = await readFile(working, 'utf8');
  await packOutput(options, path);
  expect((await inspectOutput({ ...options, path }))?.end).toBe(8);
  expect(options.index.rows).toBe(2);
  await unpackOutput(options, path);
  expect(await readFile(working, 'utf8')).toBe(before);
});

test('what lacks a line in its midst, or has its prompts otherwise, is refused', async () => {
  const path = await pathOf('out.csv');
  const { output } = await openOutput(path);
  await output.append([row('1', 'a', ['one', 'two', 'three', 'four']), row('2')]);
  const inspect = (options: Partial<OutputOptions>) => inspectOutput({ ...outputOptions(path), ...options });
  await expect(inspect({})).rejects.toThrow(
    'was begun with --prompts-as rows: go on with that, or name another output with -o',
  );
  const five = [...outputOptions(path).answerColumns, 'prompt_5'];
  const asked = { ...ROWS, answerColumns: five, newColumns: true };
  const answerColumnsBefore = outputOptions(path).answerColumns;
  await expect(inspect({ ...asked, answerColumnsBefore })).rejects.toThrow('it lacks "prompt_5"');
  const text = await readFile(path, 'utf8');
  await writeFile(path, text.replace(/^.*,2,two,.*\n/m, ''));
  await expect(inspect(ROWS)).rejects.toThrow('has the prompt_number "3" at byte 99, where 2 belongs');
  const other = await pathOf('out.csv');
  await (await openOutput(other, {})).output.append([row('1')]);
  await expect(inspectOutput({ ...outputOptions(other), ...ROWS })).rejects.toThrow(
    'was begun with --prompts-as columns',
  );
});

test('new columns of the manifest are added, and earlier outputs may be of either kind', async () => {
  const path = await pathOf('out.csv');
  const { output } = await openOutput(path);
  await output.append([row('1'), row('2')]);
  const columns = ['id', 'url', 'more'];
  const { index } = await openOutput(path, { ...ROWS, columns, newColumns: true });
  expect(index.rows).toBe(2);
  expect((await linesIn(path))[5]).toMatchObject({ id: '2', more: '', prompt_number: '2' });
  const inColumns = await pathOf('columns.csv');
  await (await openOutput(inColumns, {})).output.append([row('3')]);
  for (const promptsAs of ['rows', 'columns'] as const) {
    const options = { ...outputOptions(await pathOf('new.csv')), promptsAs };
    const earlier = await EarlierOutputs.read([path, inColumns], options);
    expect(options.index.earlierRows).toBe(3);
    for (const id of ['2', '3']) {
      const place = options.index.placeOf(imageOf(`https://image-${id}`));
      expect((await earlier.readDescribed(place ?? { file: 0, offset: 0 })).prompts).toEqual(promptsOf(id));
    }
  }
});
