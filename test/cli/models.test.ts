import { json } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { serve } from '../describe-api/http-server.js';
import { runCli } from '../helpers/cli.js';
import { type QueueFixture, embeddedFixture } from '../helpers/queues.js';
import { Workspace } from '../helpers/workspace.js';

const partSchema = z.object({ text: z.string().optional() });
const askedSchema = z.looseObject({ messages: z.array(z.object({ content: z.array(partSchema) })) });

/** A model's server that answers with `content`, and the texts that it was asked. */
async function serveModel(content: (text: string, call: number) => string) {
  const asked: string[] = [];
  const { url } = await serve((request, response) => {
    void json(request).then((body) => {
      const parts = askedSchema.parse(body).messages.flatMap((message) => message.content);
      const text = parts.map((part) => part.text ?? '').join('');
      asked.push(text);
      const usage = { prompt_tokens: 100, completion_tokens: 20 };
      const choices = [{ message: { content: content(text, asked.length) } }];
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ id: `c${asked.length}`, choices, usage }));
    });
  });
  return { url, asked };
}

describe('a model', () => {
  let queue: QueueFixture;
  beforeAll(async () => {
    queue = await embeddedFixture();
  });
  afterAll(() => queue.cleanup());

  async function workspaceOf(manifest: string): Promise<Workspace> {
    const workspace = await Workspace.create();
    onTestFinished(() => workspace.remove());
    await workspace.write('m.csv', manifest);
    return workspace;
  }
  const args = (api: string, ...more: string[]) => [
    ...['run', 'm.csv', '--queue', queue.url, '--rate', '50/s'],
    ...['--api', api, '--dialect', 'openai', '--model', 'any', ...more],
  ];

  test('fills fields of one’s own, is asked with the row’s columns, and is told what was wrong', async () => {
    const workspace = await workspaceOf(
      'id,image,title\n1,https://i.test/a.jpg,Barn\n2,https://i.test/a.jpg,"The ""Mill"""\n3,https://i.test/a.jpg,Barn\n',
    );
    const model = await serveModel((text, call) => {
      if (call === 1) return '{"caption": "no tags"}';
      const about = text.includes('Barn') ? 'a barn' : 'a mill';
      return JSON.stringify({ caption: about, tags: ['x', 'y, z'], n: 2 });
    });
    const fields = ['--prompt', 'About {{title}}:', '--fields', 'caption, tags[], n:integer'];
    const first = await runCli(args(model.url, ...fields), { cwd: workspace.path });
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
    const again = await runCli(args(model.url, ...fields), { cwd: workspace.path });
    expect([again.code, model.asked.length]).toEqual([0, 3]);
    const verified = await runCli(['verify', 'm.csv', 'm.prompts.csv'], { cwd: workspace.path });
    expect(verified.code).toBe(0);
  });

  test.each([
    [['--prompt', '{{titel}}'], '--prompt titel: the manifest has no such column'],
    [['--fields', 'title'], 'the output adds a column named title of its own'],
    [['--fields', 'a,a'], '--fields: a is there twice'],
    [['--fields', 'a', '--count', '2'], '--count, --fields and --schema: give one of them'],
    [['--count', '99'], '--count 99: expected a whole number from 1 to 16'],
    [['--schema', 'm.csv'], '--schema: expected a JSON Schema'],
    [['--param', 'temperature'], '--param temperature: expected name=value'],
  ])('is not asked anything with %j', async (more, message) => {
    const workspace = await workspaceOf('id,image,title\n1,https://i.test/a.jpg,Barn\n');
    const model = await serveModel(() => '');
    const refused = await runCli(args(model.url, ...more), { cwd: workspace.path });
    expect([refused.code, model.asked]).toEqual([1, []]);
    expect(refused.stderr).toContain(message);
    expect(refused.stderr.trim().split('\n')).toHaveLength(1);
    expect(await workspace.files()).toEqual(['m.csv']);
  });
});
