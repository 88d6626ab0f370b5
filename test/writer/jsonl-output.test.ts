import { readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import { UsageError } from '../../src/shared/errors.js';
import { type AnswerValue, PROMPT_COLUMNS } from '../../src/shared/jobs.js';
import { OutputFile } from '../../src/writer/output-file.js';
import { type OutputOptions, inspectOutput } from '../../src/writer/output-table.js';
import { DESCRIBED_AT, imageOf, makeFolder, outputOptions } from './fixtures.js';

const PROMPTS = ['one', 'two', 'three', 'four'];

async function makePath(): Promise<string> {
  return join(await makeFolder(), 'out.jsonl');
}

async function openOutput(path: string, options: Partial<OutputOptions> = {}) {
  const all = { ...outputOptions(path), ...options };
  const output = await OutputFile.open(all);
  onTestFinished(() => output.close());
  return { output, index: all.index };
}

function row(
  id: string,
  image: string,
  { prompts = PROMPTS, isJson }: { prompts?: readonly AnswerValue[]; isJson?: boolean[] } = {},
) {
  const url = `https://${image}`;
  return {
    row: { cells: [id, url], isJson, image: imageOf(url) },
    outcome: { status: 'described', prompts, messageId: `message-${id}`, describedAt: DESCRIBED_AT },
  } as const;
}

async function readRows(path: string): Promise<unknown[]> {
  const text = await readFile(path, 'utf8');
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown);
}

test('writes an object a row, with the prompts as a list', async () => {
  const path = await makePath();
  const { output } = await openOutput(path);
  await output.append([row('1', 'a')]);
  expect(await readRows(path)).toEqual([
    { id: '1', url: 'https://a', prompts: PROMPTS, message_id: 'message-1', described_at: DESCRIBED_AT },
  ]);
});

test.each([
  [['id', 'url', 'prompt_5'], PROMPT_COLUMNS],
  [['prompt_0', 'url'], PROMPT_COLUMNS],
  [
    ['prompt_3', 'url'],
    ['prompt_1', 'prompt_2'],
  ],
  [['prompt_1', 'url', 'title', 'prompt_2'], ['caption']],
  [
    ['id', 'url'],
    ['caption', 'prompt_2'],
  ],
])(
  'the columns %j stay what they are beside the answers %j, and the output goes on',
  async (columns, answerColumns) => {
    const path = await makePath();
    const prompts = answerColumns.map((name) => `answered ${name}`);
    const cells = columns.map((name) => (name === 'url' ? 'https://a' : `own ${name}`));
    const given = { ...row('1', 'a', { prompts }), row: { cells, image: imageOf('https://a') } };
    for (const rows of [1, 2]) {
      const { output, index } = await openOutput(path, { columns, answerColumns });
      await output.append([given]);
      expect(index.rows).toBe(rows);
      expect(await output.readDescribed(index.placeOf(given.row.image)?.offset ?? -1)).toMatchObject({
        prompts,
      });
    }
    const own = Object.fromEntries(columns.map((name, at) => [name, cells[at]]));
    const answers = answerColumns.includes('prompt_1') ? { prompts } : { caption: 'answered caption' };
    expect(await readRows(path)).toMatchObject([
      { ...own, ...answers },
      { ...own, ...answers },
    ]);
  },
);

test('keeps numbers, lists, nulls and truths of manifest and answers as such, to the last digit', async () => {
  const path = await makePath();
  const answerColumns = ['tags', 'nsfw', 'mood'];
  const { output, index } = await openOutput(path, { answerColumns, usage: true });
  const prompts = [['a', 'b'], false, null];
  const isJson = [true, false];
  await output.append([
    { ...row('12345678901234567890', 'a', { prompts, isJson }), usage: { inputTokens: 7 } },
  ]);
  expect(await readFile(path, 'utf8')).toBe(
    `{"id":12345678901234567890,"url":"https://a","tags":["a","b"],"nsfw":false,"mood":null,"input_tokens":7,` +
      `"output_tokens":null,"message_id":"message-12345678901234567890","described_at":"${DESCRIBED_AT}"}\n`,
  );
  // What a row that shares the image copies.
  const copied = await output.readDescribed(index.placeOf(imageOf('https://a'))?.offset ?? -1);
  expect(copied.prompts).toEqual(prompts);
});

test('goes on after any cut, and holds each row that was whole once', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.string({ unit: 'grapheme' }), { minLength: 1, maxLength: 5 }),
      fc.nat(),
      async (ids, cut) => {
        const path = await makePath();
        const { output } = await openOutput(path);
        await output.append(ids.map((id, index) => row(id, `image-${index}`)));
        const whole = await readFile(path);
        await truncate(path, cut % (whole.length + 1));
        const left = ids.filter((_, index) => {
          const end = whole
            .toString('latin1')
            .split('\n')
            .slice(0, index + 1)
            .join('\n').length;
          return cut % (whole.length + 1) >= end;
        });
        const again = await openOutput(path);
        expect(again.index.rows).toBe(left.length);
        await again.output.append([row('last', 'last')]);
        const wanted = [...left, 'last'].map((id): unknown => expect.objectContaining({ id }));
        expect(await readRows(path)).toEqual(wanted);
      },
    ),
    { numRuns: 60 },
  );
});

test('an output without rows is an empty file that goes on', async () => {
  const path = await makePath();
  const { output } = await openOutput(path);
  await output.close();
  expect((await stat(path)).size).toBe(0);
  const again = await openOutput(path);
  await again.output.append([row('1', 'a')]);
  expect(await readRows(path)).toHaveLength(1);
});

test('rewrites an output for new columns, and keeps what its values are', async () => {
  const path = await makePath();
  const { output } = await openOutput(path);
  await output.append([row('7', 'a', { isJson: [true, false] })]);
  const columns = ['id', 'url', 'more'];
  await openOutput(path, { columns, newColumns: true });
  expect(await readRows(path)).toMatchObject([{ id: 7, more: null, prompts: PROMPTS }]);
});

test("leaves prompts what they are when a manifest's new column is called so", async () => {
  const path = await makePath();
  const { output } = await openOutput(path);
  await output.append([row('1', 'a')]);
  const named = Object.fromEntries(PROMPTS.map((prompt, index) => [`prompt_${index + 1}`, prompt]));
  for (const rows of [1, 2]) {
    const again = await openOutput(path, { columns: ['id', 'url', 'prompts'], newColumns: true });
    expect(again.index.rows).toBe(rows);
    if (rows === 1) {
      const given = row('2', 'b');
      const cells = [...given.row.cells, '["own"]'];
      await again.output.append([{ ...given, row: { ...given.row, cells, isJson: [false, false, true] } }]);
    }
  }
  expect(await readRows(path)).toMatchObject([
    { id: '1', prompts: null, ...named },
    { id: '2', prompts: ['own'], ...named },
  ]);
});

const whole = (id: string) =>
  JSON.stringify({ id, url: 'https://a', prompts: PROMPTS, message_id: 'm', described_at: DESCRIBED_AT });

test.each([
  ['id,url,prompt_1\n', 'is no output of bulk-describe'],
  ['[1]\n', 'is no output of bulk-describe'],
  ['{"my":"only record"}', 'is no output of bulk-describe'],
  ['{"id":"1","url":"https://a"}', 'is no output of bulk-describe'],
  ['{"my":"only rec', 'is no output of bulk-describe'],
  ['rubbish', 'is no output of bulk-describe'],
  [`${whole('1')}\n{"my":"record"}`, 'no "id" in the record at line 2'],
  [`${whole('1')}\n{"id":1}\n${whole('2')}\n`, 'no "url" in the record at line 2'],
  [`${whole('1')}\nrubbish\n`, 'no JSON'],
  [`${whole('1')}\n${whole('2').replace('{', '{"other":1,')}\n`, 'a "other" that others lack'],
  [Buffer.from(`${whole('1')}\n${whole('\u00e9')}\n`, 'latin1'), 'bytes that are not UTF-8'],
])('refuses what another program has made of it: %j', async (content, message) => {
  const path = await makePath();
  await writeFile(path, content);
  await expect(openOutput(path)).rejects.toThrow(UsageError);
  await expect(inspectOutput(outputOptions(path))).rejects.toThrow(
    expect.toSatisfy((error) => error instanceof UsageError && error.message.includes(message)),
  );
  expect(await readFile(path)).toEqual(Buffer.from(content));
});

test.each([1, 2])('keeps the last of %i rows whose line end an editor has removed', async (count) => {
  const path = await makePath();
  const lines = ['1', '2'].slice(0, count).map(whole);
  await writeFile(path, lines.join('\n'));
  const { output, index } = await openOutput(path);
  expect(index.rows).toBe(count);
  await output.append([row('last', 'last')]);
  expect((await readFile(path, 'utf8')).split('\n').slice(0, count)).toEqual(lines);
  expect(await readRows(path)).toHaveLength(count + 1);
});
