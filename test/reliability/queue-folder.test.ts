import { rm } from 'node:fs/promises';
import { expect, onTestFinished, test } from 'vitest';
import { runCommand, startCli } from '../helpers/cli.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';

test('a run whose embedded queue is removed ends, and the same command goes on with a new one', async () => {
  const workspace = await Workspace.create();
  onTestFinished(() => workspace.remove());
  await workspace.write('m.csv', manifestOf(60));
  const folder = workspace.at('queue');
  const args = ['run', 'm.csv', '--api', 'simulator', '--queue', `embedded:${folder}`, '--rate', '10/s'];
  const run = startCli(args, { cwd: workspace.path });
  onTestFinished(() => void run.child.kill('SIGKILL'));
  const written = () => workspace.read('m.simulated.csv').catch(() => '');
  await waitUntil('rows are written', async () => (await written()).split('\n').length > 3);
  // The database writes new files into it meanwhile.
  await rm(folder, { recursive: true, maxRetries: 10 });
  const removedAt = performance.now();
  const { code, stdout, stderr } = await run.ended;
  expect(performance.now() - removedAt).toBeLessThan(30_000);
  expect(code, stderr).toBe(1);
  expect(stdout).toMatch(/^stopped .*the embedded queue's files in .*queue\/pgdata were removed or moved/m);
  expect(stderr).not.toMatch(/defect|could not be tidied up|reports an error/);
  const again = await runCommand([...args.slice(0, -1), '100/s'], { cwd: workspace.path });
  expect([again.code, again.stdout], again.stderr).toEqual([0, expect.stringContaining('60 rows: ')]);
});
