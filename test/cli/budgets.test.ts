import { json } from 'node:stream/consumers';
import { beforeAll, expect, test } from 'vitest';
import { serve } from '../describe-api/http-server.js';
import { type CliProcess, runCommand, startCli } from '../helpers/cli.js';
import { type QueueFixture, describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace } from '../helpers/workspace.js';

/** A model's server that answers the first submits, as many as `answers` says, and keeps the others waiting. */
async function serveModel(
  answers: { count: number },
  says: (submit: number) => string = () => '{"prompts": ["a"]}',
) {
  let submits = 0;
  const { url } = await serve((request, response) => {
    void json(request).then(() => {
      submits++;
      if (submits > answers.count) return;
      const usage = { prompt_tokens: 100, completion_tokens: 20 };
      const choices = [{ message: { content: says(submits) } }];
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ id: `c${submits}`, choices, usage }));
    });
  });
  return { url, submits: () => submits };
}

describeOnRedis('a budget over all starts', (openQueue) => {
  let queue: QueueFixture;
  beforeAll(async () => {
    queue = await openQueue();
  });

  const workspaceOf = (rows: number) => {
    const urls = Array.from({ length: rows }, (_, row) => `${row},https://i.test/${row}.jpg\n`);
    return Workspace.forTest(`id,image\n${urls.join('')}`);
  };
  const args = (api: string, ...more: string[]) => [
    ...['run', 'm.csv', '--queue', queue.url, '--rate', '50/s', '--no-progress'],
    ...['--api', api, '--dialect', 'openai', '--model', 'any', '--count', '1', ...more],
  ];
  async function kill9(run: CliProcess): Promise<void> {
    run.child.kill('SIGKILL');
    expect((await run.ended).signal).toBe('SIGKILL');
  }

  test('--max-calls counts the submits that were on the wire at a kill', async () => {
    const workspace = await workspaceOf(30);
    const answers = { count: 2 };
    const model = await serveModel(answers);
    const asked = ['--max-in-flight', '3', '--max-calls', '8'];
    const run = startCli(args(model.url, ...asked), { cwd: workspace.path });
    await waitUntil('three wait for their answers', () => model.submits() === 5);
    await kill9(run);
    answers.count = Infinity;
    const last = await runCommand(args(model.url, ...asked), { cwd: workspace.path });
    expect([last.code, model.submits()], last.stderr).toEqual([4, 8]);
    expect(last.stdout).toContain('8 of --max-calls 8 are made: give a higher one to go on');
  });

  test('--max-calls counts each submit of images that expire again and again', async () => {
    const workspace = await workspaceOf(40);
    let submits = 0;
    const api = await serve((request, response) => {
      const isSubmit = request.url?.startsWith('/describe') === true;
      if (isSubmit) submits++;
      response.writeHead(200, { 'content-type': 'application/json' });
      const answer = isSubmit ? { success: true, messageId: `m${submits}` } : { progress: 'incomplete' };
      response.end(JSON.stringify(answer));
    });
    const run = await runCommand(
      [
        ...['run', 'm.csv', '--queue', queue.url, '--rate', '50/s', '--no-progress', '--max-in-flight', '20'],
        ...['--api', api.url, '--dialect', 'thenextleg', '--max-calls', '30', '--stop-failing', '100'],
      ],
      { cwd: workspace.path, env: { DESCRIBE_API_TOKEN: 'any' } },
    );
    expect([run.code, submits], run.stderr).toEqual([4, 30]);
  });

  test('--max-cost counts the price of answers that cannot be used', async () => {
    const workspace = await workspaceOf(10);
    // Each image is asked for twice, once the first is described.
    const says = (submit: number) => (submit % 2 === 0 ? '{"prompts": []}' : '{"prompts": ["a"]}');
    const model = await serveModel({ count: Infinity }, says);
    const asked = ['--max-in-flight', '1', '--price', '1', '--max-cost', '5', '--json'];
    const run = await runCommand(args(model.url, ...asked), { cwd: workspace.path });
    expect(run.code, run.stderr).toBe(4);
    // What is under way near the end was let go by what images had cost until then: one more, which may be asked for twice.
    expect(model.submits()).toBeGreaterThanOrEqual(5);
    expect(model.submits()).toBeLessThanOrEqual(7);
    expect(JSON.parse(run.stdout)).toMatchObject({
      described: Math.ceil(model.submits() / 2),
      cost: model.submits(),
    });
  });

  test('a start without prices that was killed has spent what a later --max-cost counts', async () => {
    const workspace = await workspaceOf(20);
    const answers = { count: 5 };
    const model = await serveModel(answers);
    const asked = ['--max-in-flight', '1'];
    const run = startCli(args(model.url, ...asked), { cwd: workspace.path });
    await waitUntil('the sixth waits for its answer', () => model.submits() === 6);
    const lines = async () => (await workspace.read('m.prompts.csv').catch(() => '')).split('\n');
    await waitUntil('the fifth row is on disk', async () => (await lines()).length === 1 + 5 + 1);
    await kill9(run);
    answers.count = Infinity;
    // 100 tokens in at 1 each, and 20 out at 5: 200 an image, in millionths.
    const prices = ['--price-in', '1', '--price-out', '5', '--max-cost', '0.001'];
    const priced = await runCommand(args(model.url, ...asked, ...prices, '--json'), { cwd: workspace.path });
    expect([priced.code, model.submits()], priced.stderr).toEqual([4, 6]);
    expect(JSON.parse(priced.stdout)).toMatchObject({ described: 0, resumed: 5, cost: 0.001 });
  });
});
