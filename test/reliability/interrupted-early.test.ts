import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { describeManifest } from '../../src/run/describe-manifest.js';
import { InterruptedEarlyError } from '../../src/shared/errors.js';
import { startCli } from '../helpers/cli.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';

let workspace: Workspace;
beforeEach(async () => {
  workspace = await Workspace.create();
});
afterEach(() => workspace.remove());

test('a run that is interrupted while its files are read ends with 130, one line, and nothing created', async () => {
  const manifest = await workspace.write('m.csv', manifestOf(3));
  const interrupted = describeManifest({
    manifest,
    output: workspace.at('out.csv'),
    api: 'http://127.0.0.1:1/v2',
    token: 'any',
    queue: `embedded:${workspace.at('queue')}`,
    signal: AbortSignal.abort(),
  });
  await expect(interrupted).rejects.toThrow(InterruptedEarlyError);
  await expect(interrupted).rejects.toMatchObject({
    exitCode: 130,
    message: 'interrupted before the first submit',
  });
  expect(await workspace.files()).toEqual(['m.csv']);
});

test.each<[string, string[], number]>([
  ['stdin that gives nothing more: the first Ctrl-C', ['-', '--format', 'csv'], 1],
  ['a named pipe that nobody writes to: the first Ctrl-C', ['pipe.csv'], 1],
  ['a named pipe that nobody writes to: two of them', ['pipe.csv'], 2],
])('ends a run that waits for %s', async (_name, manifest, signals) => {
  spawnSync('mkfifo', [workspace.at('pipe.csv')]);
  const options = [
    '-o',
    'out.csv',
    '--api',
    'http://127.0.0.1:1/v2',
    '--queue',
    'embedded:q',
    '--log-level',
    'debug',
  ];
  const run = startCli(['run', ...manifest, ...options], {
    cwd: workspace.path,
    env: { DESCRIBE_API_TOKEN: 'any' },
    input: null,
  });
  run.child.stdin?.write('id,image\n1,http://images.test/1.jpg\n');
  await waitUntil('it listens for signals', async () => catchesHangup(run.child.pid ?? 0));
  for (let sent = 0; sent < signals; sent++) run.child.kill('SIGINT');
  expect(await run.ended).toMatchObject({ code: 130, stdout: '' });
  expect((await workspace.files()).sort()).toEqual(['pipe.csv']);
});

/** SIGHUP is listened for together with the others; SIGINT is caught by Node.js itself from the beginning. */
async function catchesHangup(pid: number): Promise<boolean> {
  const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '0';
  return (BigInt(`0x${caught}`) & 1n) !== 0n;
}
