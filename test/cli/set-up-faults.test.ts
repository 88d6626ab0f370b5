import { beforeAll, expect, onTestFinished, test } from 'vitest';
import { answering, serve } from '../describe-api/http-server.js';
import { runCommand, startCli } from '../helpers/cli.js';
import { type QueueFixture, describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';

describeOnRedis('an API that cannot work', (openQueue) => {
  let queue: QueueFixture;
  beforeAll(async () => {
    queue = await openQueue();
  });

  const workspaceOf = (rows: number) => Workspace.forTest(manifestOf(rows));
  const args = (api: string, ...more: string[]) => {
    const openai = ['--api', api, '--dialect', 'openai', '--model', 'any', '--rate', '20/s'];
    return ['run', 'm.csv', '--queue', queue.url, ...openai, ...more];
  };

  test('ends the run with exit code 3, the words of the service and what to try; no image is marked', async () => {
    const workspace = await workspaceOf(12);
    const wrong = await serve(answering(400, { error: { message: 'invalid image input' } }));
    const stopped = await runCommand(args(wrong.url), { cwd: workspace.path });
    expect(stopped.code).toBe(3);
    expect(stopped.stdout).toMatch(/^\d+ rows( read)?: 0 described, \d+ remaining$/m);
    expect(stopped.stdout).toMatch(
      /^stopped {3}the API describes nothing: .*--model.*\): invalid image input$/m,
    );
    expect(stopped.stdout).toMatch(/^resume {4}bulk-describe run m\.csv/m);
    expect(stopped.stdout).not.toContain('paid twice');
    expect(await workspace.files()).not.toContain('m.prompts.failed.csv');
    const content = JSON.stringify(['a', 'b', 'c', 'd'].map((prompt) => `${prompt}, a barn`));
    const right = await serve(answering(200, { choices: [{ message: { content } }] }));
    const resumed = await runCommand(args(right.url), { cwd: workspace.path });
    expect([resumed.code, right.requests.length]).toEqual([0, 12]);
    expect(resumed.stdout).toContain('12 rows: 12 described');
  });

  test.each([
    ['a page', '<!doctype html><title>Sign in</title>', 'expected JSON', false],
    ['chatter', JSON.stringify({ choices: [{ message: { content: 'Hello!' } }] }), 'Hello!', true],
  ])(
    'that answers each image with %s stops the run after the first few; paid answers are kept',
    async (_, body, words, isKept) => {
      const workspace = await workspaceOf(30);
      const useless = await serve(answering(200, body));
      const stopped = await runCommand(args(useless.url), { cwd: workspace.path });
      expect(stopped.code).toBe(3);
      expect(stopped.stdout).toMatch(new RegExp(`^stopped .*no answer can be read .*${words}`, 'm'));
      // Five decide, and those in flight then end; without a stop there would be 60.
      expect(useless.requests.length).toBeLessThan(30);
      const failures = await workspace.read('m.prompts.failed.csv').catch(() => '');
      expect(failures.includes('Hello!')).toBe(isKept);
    },
  );

  test('says why it cannot be reached, on the progress line and in the log', async () => {
    const workspace = await workspaceOf(3);
    const run = startCli(args('http://describe.invalid/v1'), { cwd: workspace.path });
    onTestFinished(() => void run.child.kill('SIGKILL'));
    await waitUntil('it has begun', () => run.stderr().includes('to submit'));
    const why = String.raw`the API cannot be reached: (there is no host|no name server answers for) describe\.invalid`;
    await waitUntil('the progress line says so', () => new RegExp(`^.*0/3.*${why}`, 'm').test(run.stderr()));
    await waitUntil('the log says so', () => new RegExp(`"msg":"${why}`).test(run.stderr()));
    run.child.kill('SIGINT');
    expect((await run.ended).code).toBe(130);
  });

  test('names --retry-rejected, which tries again what it has rejected', async () => {
    const workspace = await workspaceOf(2);
    const flagged = await serve(answering(403, { error: { message: 'Your input was flagged for "x"' } }));
    const first = await runCommand(args(flagged.url), { cwd: workspace.path });
    expect([first.code, flagged.requests.length]).toEqual([2, 2]);
    expect(first.stdout).toContain('rejected  2, which --retry-rejected tries again as well');
    await runCommand(args(flagged.url), { cwd: workspace.path });
    expect(flagged.requests).toHaveLength(2);
    await runCommand(args(flagged.url, '--retry-rejected'), { cwd: workspace.path });
    expect(flagged.requests).toHaveLength(4);
  });
});
