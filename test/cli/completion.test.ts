import { execFile, spawnSync } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { runCommand } from '../helpers/cli.js';
import { Workspace } from '../helpers/workspace.js';

const execute = promisify(execFile);

let workspace: Workspace;

beforeAll(async () => {
  workspace = await Workspace.create();
  await workspace.write('my table.csv', '');
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { code, stdout, stderr } = await runCommand(['completion', shell], { cwd: workspace.path });
    expect([code, stderr]).toEqual([0, '']);
    await workspace.write(`script.${shell}`, stdout);
  }
});
afterAll(() => workspace.remove());

/** The rest of a line, and what completes its last word. */
const LINES: readonly (readonly [string, readonly string[]])[] = [
  ['verif', ['verify']],
  ['schedule ', ['add', 'list', 'remove', 'run']],
  ['schedule add --cro', ['--cron']],
  ['run --forma', ['--format']],
  ['run --prompts-as ', ['columns', 'rows']],
  ['worker --log-level si', ['silent']],
  ['completion ', ['bash', 'fish', 'zsh']],
  ['help enq', ['enqueue']],
  ['schedule run --cro', []],
];

function isInstalled(shell: string): boolean {
  return spawnSync(shell, ['--version']).status === 0;
}

async function inShell(shell: string, ...args: string[]): Promise<string[]> {
  const env = { PATH: process.env['PATH'], HOME: workspace.path };
  const { stdout } = await execute(shell, args, { cwd: workspace.path, env, timeout: 60_000 });
  return stdout.split('\n').filter((line) => line !== '');
}

const BASH = `source ./script.bash
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_bulk_describe
printf '%s\\n' "\${COMPREPLY[@]}"`;

function inBash(...words: string[]): Promise<string[]> {
  return inShell('bash', '-uc', BASH, 'bash', 'bulk-describe', ...words);
}

test.each(LINES)('bash completes `%s`', async (line, words) => {
  expect((await inBash(...line.split(' '))).sort()).toEqual(words);
});

test('bash completes what follows a =, and leaves paths and free values to itself', async () => {
  expect(await inBash('run', '--send', '=', 'da')).toEqual(['data']);
  expect(await inBash('run', '--send', '=')).toEqual(['url', 'data', 'auto']);
  expect(await inBash('run', '--token-file', 'a')).toEqual([]);
  expect(await inBash('run', '--rate', '')).toEqual([]);
  expect(await inBash('run', 'my')).toEqual([]);
});

test
  .skipIf(!isInstalled('fish'))
  .each([...LINES, ['run my', ['my table.csv']] as const, ['run -o my', ['my table.csv']] as const])(
  'fish completes `%s`',
  async (line, words) => {
    const found = await inShell(
      'fish',
      '-c',
      'source script.fish; complete -C $argv[1]',
      `bulk-describe ${line}`,
    );
    expect(found.map((each) => each.split('\t')[0]).sort()).toEqual(words);
  },
);

const ZSH = `zmodload zsh/zpty
zpty -b shell zsh -f -i
expect() {
  local got= part
  local -i tries=200
  while (( tries-- )); do
    while zpty -r -t shell part; do got+=$part; done
    [[ $got == *$1* ]] && return 0
    sleep 0.05
  done
  print -r -- "$1 did not come: \${(q)got}"
}
zpty -w shell "PS1=; source ./script.zsh; print rea''dy"
expect ready
zpty -n -w shell $'bulk-describe verif\\t'
expect 'verify'
zpty -n -w shell $'\\C-ubulk-describe schedule add --cro\\t'
expect '--cron'
zpty -n -w shell $'\\C-ubulk-describe run --prompts-as ro\\t'
expect 'rows'
zpty -n -w shell $'\\C-ubulk-describe run -o my\\t'
expect 'table.csv'
zpty -d shell`;

test.skipIf(!isInstalled('zsh'))('zsh completes commands, options, values and paths', async () => {
  expect(await inShell('zsh', '-fc', ZSH)).toEqual([]);
});

test('completion refuses a shell that it does not know, and needs no right configuration file', async () => {
  await workspace.write('bulk-describe.config.yaml', 'broken: [');
  const { code, stderr } = await runCommand(['completion', 'tcsh'], { cwd: workspace.path });
  expect([code, stderr]).toEqual([1, 'bulk-describe: completion tcsh: expected bash, zsh or fish\n']);
  expect((await runCommand(['completion', 'bash'], { cwd: workspace.path })).code).toBe(0);
});
