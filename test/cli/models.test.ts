import { rename } from 'node:fs/promises';
import { json } from 'node:stream/consumers';
import { beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { serve } from '../describe-api/http-server.js';
import { runCommand } from '../helpers/cli.js';
import { type QueueFixture, describeOnRedis } from '../helpers/queues.js';
import { Workspace } from '../helpers/workspace.js';

const partSchema = z.object({ text: z.string().optional() });
const askedSchema = z.looseObject({ messages: z.array(z.object({ content: z.array(partSchema) })) });

const receiptSchema = z.object({ described: z.number(), inputTokens: z.number(), cost: z.number() });

/** A model's server that answers with `content`, and the texts that it was asked. */
async function serveModel(content: (text: string, call: number) => string, end = 'stop') {
  const asked: string[] = [];
  const { url } = await serve((request, response) => {
    void json(request).then((body) => {
      const parts = askedSchema.parse(body).messages.flatMap((message) => message.content);
      const text = parts.map((part) => part.text ?? '').join('');
      asked.push(text);
      const usage = { prompt_tokens: 100, completion_tokens: 20 };
      const choices = [{ finish_reason: end, message: { content: content(text, asked.length) } }];
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ id: `c${asked.length}`, choices, usage }));
    });
  });
  return { url, asked };
}

describeOnRedis('a model', (openQueue) => {
  let queue: QueueFixture;
  beforeAll(async () => {
    queue = await openQueue();
  });

  const args = (api: string, ...more: string[]) => [
    ...['run', 'm.csv', '--queue', queue.url, '--rate', '50/s'],
    ...['--api', api, '--dialect', 'openai', '--model', 'any', ...more],
  ];

  test('fills fields of one’s own, is asked with the row’s columns, and is told what was wrong', async () => {
    const workspace = await Workspace.forTest(
      'id,image,title\n1,https://i.test/a.jpg,Barn\n2,https://i.test/a.jpg,"The ""Mill"""\n3,https://i.test/a.jpg,Barn\n',
    );
    const model = await serveModel((text, call) => {
      if (call === 1) return '{"caption": "no tags"}';
      const about = text.includes('Barn') ? 'a barn' : 'a mill';
      return JSON.stringify({ caption: about, tags: ['x', 'y, z'], n: 2 });
    });
    const fields = ['--prompt', 'About {{title}}:', '--fields', 'caption, tags[], n:integer'];
    const first = await runCommand(args(model.url, ...fields), { cwd: workspace.path });
    expect([first.code, first.stdout]).toEqual([0, expect.stringContaining('3 rows: 2 described, 1 copied')]);
    expect(model.asked).toHaveLength(3);
    expect(model.asked.at(-1)).toMatch(/^About .*could not be used: tags: /s);
    const rows = (await workspace.read('m.prompts.csv')).trim().split('\n');
    expect(rows[0]).toBe('id,image,title,caption,tags,n,message_id,described_at');
    expect(
      rows
        .slice(1)
        .sort()
        .map((row) => row.replace(/,c\d,[^,]*$/, '')),
    ).toEqual([
      '1,https://i.test/a.jpg,Barn,a barn,"x, y, z",2',
      '2,https://i.test/a.jpg,"The ""Mill""",a mill,"x, y, z",2',
      '3,https://i.test/a.jpg,Barn,a barn,"x, y, z",2',
    ]);
    const again = await runCommand(args(model.url, ...fields), { cwd: workspace.path });
    expect([again.code, model.asked.length]).toEqual([0, 3]);
    const verified = await runCommand(['verify', 'm.csv', 'm.prompts.csv'], { cwd: workspace.path });
    expect(verified.code).toBe(0);
  });

  test('says what it has cost; a budget over all starts stops the run, and a higher one goes on', async () => {
    const rows = Array.from({ length: 20 }, (_, row) => `${row},https://i.test/${row}.jpg\n`).join('');
    const workspace = await Workspace.forTest(`id,image\n${rows}`);
    const model = await serveModel(() => JSON.stringify({ prompts: ['a', 'b'] }));
    // 100 tokens in at 1 each, and 20 out at 5: 200 an image, in millionths.
    const asked = ['--count', '2', '--price-in', '1', '--price-out', '5', '--usage', '--max-in-flight', '1'];
    const first = await runCommand(args(model.url, ...asked, '--max-cost', '0.001', '--json'), {
      cwd: workspace.path,
    });
    expect(first.code).toBe(4);
    expect(first.stderr).toContain('of --max-cost 0.001 are spent: give a higher one to go on');
    const receipt = receiptSchema.parse(JSON.parse(first.stdout));
    expect(receipt.described).toBeGreaterThanOrEqual(5);
    expect(receipt.described).toBeLessThanOrEqual(6);
    expect(receipt.inputTokens).toBe(receipt.described * 100);
    expect(receipt.cost).toBeCloseTo(receipt.described * 0.0002);
    const same = await runCommand(args(model.url, ...asked, '--max-cost', '0.001'), { cwd: workspace.path });
    expect([same.code, model.asked.length]).toEqual([4, receipt.described]);
    const calls = await runCommand(args(model.url, ...asked, '--max-calls', '10'), { cwd: workspace.path });
    expect([calls.code, model.asked.length]).toEqual([4, 10]);
    const higher = await runCommand(args(model.url, ...asked, '--max-cost', '1', '--max-calls', '20'), {
      cwd: workspace.path,
    });
    expect([higher.code, model.asked.length]).toEqual([0, 20]);
    expect(higher.stdout).toMatch(/^cost +0\.00 over all starts/m);
    const output = await workspace.read('m.prompts.csv');
    expect(output).toMatch(
      /^id,image,prompt_1,prompt_2,input_tokens,output_tokens,message_id,described_at\n/,
    );
    expect(output.match(/,a,b,100,20,c\d+,/g)).toHaveLength(20);
    const verified = await runCommand(['verify', 'm.csv', 'm.prompts.csv'], { cwd: workspace.path });
    expect(verified.code).toBe(0);
  });

  test('an answer that cannot be used was paid for: it has its place of --limit, and its cost', async () => {
    const rows = Array.from({ length: 9 }, (_, row) => `${row},https://i.test/${row}.jpg\n`).join('');
    const workspace = await Workspace.forTest(`id,image\n${rows}`);
    const model = await serveModel((_, call) => (call === 1 ? '{"text": "fine"}' : '{"text": 1}'));
    const asked = ['--fields', 'text', '--price', '1', '--max-in-flight', '1', '--json'];
    const limited = await runCommand(args(model.url, ...asked, '--limit', '2'), { cwd: workspace.path });
    expect([limited.code, model.asked.length]).toEqual([2, 3]);
    expect(JSON.parse(limited.stdout)).toMatchObject({ described: 1, failed: 1, remaining: 7, cost: 3 });
    const stopped = await runCommand(args(model.url, ...asked, '--max-cost', '7'), { cwd: workspace.path });
    expect([stopped.code, model.asked.length]).toEqual([4, 7]);
    expect(stopped.stderr).toContain('7 of --max-cost 7 are spent');
  });

  test('answers that were kept are read again, unpaid, as other fields', async () => {
    const workspace = await Workspace.forTest('id,image\n1,https://i.test/a.jpg\n2,https://i.test/b.jpg\n');
    const model = await serveModel((_, call) => JSON.stringify({ text: call === 1 ? 'good' : 'a cat' }));
    const failed = await runCommand(args(model.url, '--fields', 'text, tags[]', '-o', 'o.csv'), {
      cwd: workspace.path,
    });
    expect([failed.code, model.asked.length]).toEqual([2, 4]);
    const read = await runCommand(['reparse', 'o.csv', '--fields', 'text'], { cwd: workspace.path });
    expect([read.stderr, read.code, read.stdout]).toEqual([
      '',
      0,
      '2 described from kept answers, 0 left as they are\n',
    ]);
    expect(await workspace.read('o.csv')).toMatch(
      /^id,image,text,message_id,described_at\n(2,.*\n)?1,https:\/\/i\.test\/a\.jpg,a cat,/,
    );
    expect(await workspace.files()).not.toContain('o.failed.csv');
    const again = await runCommand(args(model.url, '--fields', 'text', '-o', 'o.csv'), {
      cwd: workspace.path,
    });
    expect([again.code, model.asked.length]).toEqual([0, 4]);
  });

  test('a reparse leaves what failed by its record, whatever has its key or its image, and ends what a kill has left', async () => {
    const [a, b, c] = ['a', 'b', 'c'].map((name) => `https://i.test/${name}.jpg`);
    const workspace = await Workspace.forTest(`id,image\n1,${a}\n1,${b}\n2,${c}\n2,${c}\n3,\n`);
    const model = await serveModel((_, call) => JSON.stringify({ text: 'a cat', n: call === 1 ? 1 : 'two' }));
    const begun = ['--fields', 'text, n:integer', '--key-column', 'id', '-o', 'o.csv'];
    const run = await runCommand(args(model.url, ...begun, '--max-in-flight', '1'), { cwd: workspace.path });
    expect(run.code).toBe(2);
    const failures = await workspace.read('o.failed.csv');
    const reparse = () => runCommand(['reparse', 'o.csv', '--fields', 'text, n'], { cwd: workspace.path });
    const codes = async () =>
      (await workspace.records('o.failed.csv')).map((row) => `${row['id']} ${row['error_code']}`).sort();
    expect(await codes()).toContain('2 bad-response');
    const left = ['1 duplicate-key', '2 duplicate-key', '3 invalid-url'];
    expect((await reparse()).stdout).toContain('1 described from kept answers');
    expect(await codes()).toEqual(left);
    const output = await workspace.read('o.csv');
    await workspace.write('o.failed.csv', failures);
    expect((await reparse()).stdout).toBe('0 described from kept answers, 0 left as they are\n');
    expect([await codes(), await workspace.read('o.csv')]).toEqual([left, output]);
    const verified = await runCommand(['verify', 'm.csv', 'o.csv', '--json'], { cwd: workspace.path });
    expect(JSON.parse(verified.stdout)).toMatchObject({ described: 2, failed: 3, missing: 0, twice: 0 });
  });

  test('rows that share an image are read again once each, though a kill came between them', async () => {
    const row = (name: string) => `${name},https://i.test/a.jpg\n`;
    const workspace = await Workspace.forTest(`id,image\n${row('1')}${row('2')}`);
    const model = await serveModel(() => '{"text": "a cat", "n": "two"}');
    await runCommand(args(model.url, '--fields', 'text, n:integer', '-o', 'o.csv'), { cwd: workspace.path });
    const failures = await workspace.read('o.failed.csv');
    const reparse = () => runCommand(['reparse', 'o.csv', '--fields', 'text, n'], { cwd: workspace.path });
    expect((await reparse()).stdout).toBe('2 described from kept answers, 0 left as they are\n');
    const lines = (await workspace.read('o.csv')).split('\n');
    await workspace.write('o.csv', `${lines.slice(0, 2).join('\n')}\n`);
    await workspace.write('o.failed.csv', failures);
    expect((await reparse()).stdout).toBe('1 described from kept answers, 0 left as they are\n');
    expect((await workspace.records('o.csv')).map(({ id }) => id)).toEqual(['1', '2']);
  });

  test('an output gets the columns of new fields, loses none, and says which fields it was begun with', async () => {
    const workspace = await Workspace.forTest('id,image\n1,https://i.test/a.jpg\n2,https://i.test/b.jpg\n');
    const model = await serveModel((_, call) =>
      JSON.stringify(call === 1 ? { text: 'good', n: 1 } : { text: 'a cat', n: 'two', mood: 'calm' }),
    );
    const begun = args(model.url, '--fields', 'text, n:integer', '-o', 'o.csv', '--max-in-flight', '1');
    expect((await runCommand(begun, { cwd: workspace.path })).code).toBe(2);
    const output = await workspace.read('o.csv');
    const asked = model.asked.length;
    const others = await runCommand(args(model.url, '--fields', 'text, mood', '-o', 'o.csv'), {
      cwd: workspace.path,
    });
    const fewer = await runCommand(['reparse', 'o.csv', '--fields', 'text'], { cwd: workspace.path });
    expect([others.code, fewer.code]).toEqual([1, 1]);
    expect(others.stderr).toMatch(
      /^bulk-describe: the output .*o\.csv was begun with other fields \(it has "n", it lacks "mood"\): give --count, [^\n]*\n$/,
    );
    expect(fewer.stderr).toMatch(/^bulk-describe: the output .*other fields \(it has "n"\): give [^\n]*\n$/);
    expect([await workspace.read('o.csv'), model.asked.length]).toEqual([output, asked]);
    const fields = ['--fields', 'text, n, mood'];
    const read = await runCommand(['reparse', 'o.csv', ...fields], { cwd: workspace.path });
    expect([read.stderr, read.code, read.stdout]).toEqual([
      '',
      0,
      '1 described from kept answers, 0 left as they are\nnew in the output, and empty in its 1 earlier row: mood\n',
    ]);
    expect((await workspace.read('o.csv')).replaceAll(/,(c\d)?,20.*$/gm, '')).toBe(
      'id,image,text,n,mood,message_id,described_at\n1,https://i.test/a.jpg,good,1,\n2,https://i.test/b.jpg,a cat,two,calm\n',
    );
    const again = await runCommand(args(model.url, ...fields, '-o', 'o.csv'), { cwd: workspace.path });
    expect([again.code, model.asked.length]).toEqual([0, asked]);
    const verified = await runCommand(['verify', 'm.csv', 'o.csv'], { cwd: workspace.path });
    expect(verified.code).toBe(0);
  });

  test('a Parquet output gets the columns of new fields and the rows that are read again, and goes on', async () => {
    const workspace = await Workspace.forTest('id,image\n1,https://i.test/a.jpg\n2,https://i.test/b.jpg\n');
    const model = await serveModel((_, call) =>
      JSON.stringify(call === 1 ? { text: 'good', n: 1 } : { text: 'a cat', n: 'two', mood: 'calm' }),
    );
    const begun = args(model.url, '--fields', 'text, n:integer', '-o', 'o.parquet', '--max-in-flight', '1');
    expect((await runCommand(begun, { cwd: workspace.path })).code).toBe(2);
    const asked = model.asked.length;
    const failures = await workspace.read('o.parquet.failed.csv');
    const fields = ['--fields', 'text, n, mood'];
    const read = await runCommand(['reparse', 'o.parquet', ...fields], { cwd: workspace.path });
    expect([read.stderr, read.code]).toEqual(['', 0]);
    // As a kill leaves it before the output is packed again.
    const rows = ['export', 'o.parquet', '--to', 'jsonl', '-o', 'rows.jsonl'];
    expect((await runCommand(rows, { cwd: workspace.path })).code).toBe(0);
    await rename(workspace.at('rows.jsonl'), workspace.at('o.parquet.jsonl'));
    await workspace.write('o.parquet.failed.csv', failures);
    const ended = await runCommand(['reparse', 'o.parquet', ...fields], { cwd: workspace.path });
    expect([ended.stderr, ended.stdout]).toEqual(['', '0 described from kept answers, 0 left as they are\n']);
    expect(await workspace.files()).toEqual(['m.csv', 'o.parquet', 'o.parquet.run']);
    const again = await runCommand(args(model.url, ...fields, '-o', 'o.parquet'), { cwd: workspace.path });
    expect([again.code, model.asked.length]).toEqual([0, asked]);
    const verified = await runCommand(['verify', 'm.csv', 'o.parquet'], { cwd: workspace.path });
    expect(verified.code).toBe(0);
  });

  test('an output with a line for each prompt gets those of kept answers', async () => {
    const workspace = await Workspace.forTest('id,image\n1,https://i.test/a.jpg\n');
    const model = await serveModel(() => '{"prompts": ["a barn", "a mill"]}');
    const begun = ['--prompts-as', 'rows', '-o', 'o.csv', '--count'];
    expect((await runCommand(args(model.url, ...begun, '3'), { cwd: workspace.path })).code).toBe(2);
    const asked = model.asked.length;
    const read = await runCommand(['reparse', 'o.csv', '--count', '2'], { cwd: workspace.path });
    expect([read.stderr, read.code]).toEqual(['', 0]);
    expect((await workspace.read('o.csv')).replaceAll(/(c\d)?,20.*$/gm, '')).toBe(
      'id,image,prompt_number,prompt,message_id,described_at\n1,https://i.test/a.jpg,1,a barn,\n1,https://i.test/a.jpg,2,a mill,\n',
    );
    const more = await runCommand(['reparse', 'o.csv', '--count', '3'], { cwd: workspace.path });
    expect([more.code, more.stderr]).toEqual([1, expect.stringContaining('no failures file')]);
    const again = await runCommand(args(model.url, '-o', 'o.csv', '--count', '2'), { cwd: workspace.path });
    expect([again.code, model.asked.length]).toEqual([0, asked]);
  });

  test('a text that was cut off is no prompt, neither at once nor when it is read again', async () => {
    const workspace = await Workspace.forTest('id,image\n1,https://i.test/a.jpg\n');
    const model = await serveModel(() => 'A barn in the snow, oil on', 'length');
    expect((await runCommand(args(model.url, '--count', '1'), { cwd: workspace.path })).code).toBe(2);
    expect(await workspace.read('m.prompts.failed.csv')).toContain('"A barn in the snow, oil on"\n');
    const read = await runCommand(['reparse', 'm.prompts.csv', '--count', '1'], { cwd: workspace.path });
    expect([read.code, read.stdout]).toEqual([2, '0 described from kept answers, 1 left as they are\n']);
  });

  test('a list that was cut off is no refusal, whatever its words are, and no prompts when it is read again', async () => {
    const workspace = await Workspace.forTest('id,image\n1,https://i.test/a.jpg\n');
    const said = '1. A beggar who cannot see\n2. A red barn\n3. A blue door\n4. An old man in a re';
    const model = await serveModel(() => said, 'length');
    expect((await runCommand(args(model.url), { cwd: workspace.path })).code).toBe(2);
    expect(model.asked).toHaveLength(2);
    const read = await runCommand(['reparse', 'm.prompts.csv'], { cwd: workspace.path });
    expect([read.code, read.stdout]).toEqual([2, '0 described from kept answers, 1 left as they are\n']);
  });

  test('a prompt that fits the schema may begin with any words but a refusal', async () => {
    const workspace = await Workspace.forTest('id,image\n1,https://i.test/a.jpg\n2,https://i.test/b.jpg\n');
    const model = await serveModel((text) =>
      JSON.stringify({ prompts: [text.includes('of 1') ? 'I am standing by a barn' : "I can't see it"] }),
    );
    const more = ['--count', '1', '--prompt', 'A caption in the first person of {{id}}'];
    expect((await runCommand(args(model.url, ...more), { cwd: workspace.path })).code).toBe(2);
    expect(await workspace.read('m.prompts.csv')).toContain('I am standing by a barn');
    expect(await workspace.read('m.prompts.failed.csv')).toContain("I can't see it");
  });

  test("what a manifest has in a column answer is no answer of a model's", async () => {
    const workspace = await Workspace.forTest(
      'id,image,answer\n1,https://i.test/a.jpg,A barn in the snow.\n',
    );
    const model = await serveModel(() => 'A barn in the snow, oil on', 'length');
    const begun = ['--drop', 'answer', '--count', '1', '-o', 'o.csv'];
    expect((await runCommand(args(model.url, ...begun), { cwd: workspace.path })).code).toBe(2);
    const read = await runCommand(['reparse', 'o.csv', '--count', '1'], { cwd: workspace.path });
    expect([read.stderr, read.stdout]).toEqual(['', '0 described from kept answers, 0 left as they are\n']);
    expect((await workspace.records('o.failed.csv'))[0]).toMatchObject({ answer: 'A barn in the snow.' });
  });

  test.each([
    [['--max-cost', '1'], '--max-cost needs prices'],
    [['--price', 'cheap'], '--price cheap: expected a number'],
    [['--prompt', '{{titel}}'], '--prompt titel: the manifest has no such column'],
    [['--prompt', 'About {{}}'], '--prompt: "{{}}" names no column: write {{name}}'],
    [['--prompt', 'About {{title'], '--prompt: "{{title" names no column: write {{name}}'],
    [['--system', 'Of {{title}}'], '--system: "{{title}}" would be sent as it stands'],
    [['--fields', 'title'], 'the output adds a column named title of its own'],
    [['--fields', 'a,a'], '--fields: a is there twice'],
    [['--fields', 'a', '--count', '2'], '--count, --fields and --schema: give one of them'],
    [['--count', '99'], '--count 99: expected a whole number from 1 to 16'],
    [['--schema', 'm.csv'], '--schema: the file is no JSON'],
    [['--param', 'messages=[]'], '--param messages: this field is not yours to set'],
    [['--param', 'temperature'], '--param temperature: expected name=value'],
  ])('is not asked anything with %j', async (more, message) => {
    const workspace = await Workspace.forTest('id,image,title\n1,https://i.test/a.jpg,Barn\n');
    const model = await serveModel(() => '');
    const refused = await runCommand(args(model.url, ...more), { cwd: workspace.path });
    expect([refused.code, model.asked]).toEqual([1, []]);
    expect(refused.stderr).toContain(message);
    expect(refused.stderr.trim().split('\n')).toHaveLength(1);
    expect(await workspace.files()).toEqual(['m.csv']);
  });
});
