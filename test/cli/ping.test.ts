import { beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest';
import { startSimulator } from '../helpers/simulator.js';
import { runCommand } from '../helpers/cli.js';
import { type QueueFixture, describeOnAnyQueue } from '../helpers/queues.js';
import { startMonitor } from '../helpers/monitor.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { FAST_FLAGS } from '../helpers/run-fixture.js';

let workspace: Workspace;

beforeEach(async () => {
  workspace = await Workspace.forTest(manifestOf(2));
});

async function run(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const simulator = await startSimulator({ latencyMs: 10 });
  onTestFinished(() => simulator.close());
  const api = ['--api', simulator.url, ...FAST_FLAGS];
  const { code, stderr } = await runCommand(['run', 'm.csv', ...api, ...args], {
    cwd: workspace.path,
    env: { DESCRIBE_API_TOKEN: 'secret-token', XDG_STATE_HOME: workspace.at('state'), ...env },
  });
  return { code, stderr };
}

describeOnAnyQueue('a monitor', (openQueue) => {
  let queue: QueueFixture;
  beforeAll(async () => {
    queue = await openQueue();
  });

  test('a run pings when its files are open, and when it has ended, with what has become of it', async () => {
    const monitor = await startMonitor();
    await workspace.write('m.csv', `${manifestOf(2)}3,nowhere\n`);
    expect((await run(['--queue', queue.url, '--ping', monitor.url])).code).toBe(2);
    const output = workspace.at('m.prompts.csv');
    expect(monitor.pings).toEqual([
      ['/start', `m.csv -> ${output}`],
      ['/2', `${output}: 2 described, 1 failed`],
    ]);
    expect((await run(['--queue', queue.url], { BULK_DESCRIBE_PING: `${monitor.url}?create=1` })).code).toBe(
      2,
    );
    expect(monitor.pings.at(-1)).toEqual(['/2?create=1', `${output}: 0 described, 2 resumed, 1 failed`]);
  });

  test('a run whose monitor hangs ends as it would, and says so on one line without the path', async () => {
    const monitor = await startMonitor(() => undefined);
    const { code, stderr } = await run(['--queue', queue.url, '--ping', monitor.url, '--quiet']);
    expect(code).toBe(0);
    expect(stderr).toMatch(
      /^--ping: 127\.0\.0\.1:\d+ does not answer: it does not know of the end of this run\n$/m,
    );
    expect(stderr).not.toContain('secret');
  });
});

test.each<[string, string[], RegExp]>([
  ['a column that is not there', ['--url-column', 'none'], /none/],
  ['a token that is not there', ['--token-file', 'none'], /--token-file none cannot be read/],
  ['a value that is none', ['--limit', 'few'], /--limit few: expected/],
])('%s is a failed run, which had no start', async (_title, args, why) => {
  const monitor = await startMonitor();
  const { code, stderr } = await run([...args, '--ping', monitor.url], { DESCRIBE_API_TOKEN: undefined });
  expect(code).toBe(1);
  expect(stderr).toMatch(why);
  expect(monitor.pings).toEqual([['/1', expect.stringMatching(why)]]);
  expect(JSON.stringify(monitor.pings)).not.toContain('secret-token');
});

test('a dry run pings nobody', async () => {
  const monitor = await startMonitor();
  expect((await run(['--dry-run', '--ping', monitor.url])).code).toBe(0);
  expect(monitor.pings).toEqual([]);
});

test.each([
  ['hc-ping.com/secret', /^bulk-describe: --ping: expected the http\(s\) URL of a check/],
  ['https://hc-ping.com/secret/{schedule}', /^bulk-describe: --ping: \{schedule\} is for serve/],
])('%s is refused in one line that does not show it', async (url, line) => {
  const { code, stderr } = await run(['--ping', url]);
  expect(code).toBe(1);
  expect(stderr).toMatch(line);
  expect(stderr.split('\n')).toHaveLength(2);
  expect(stderr).not.toContain('secret/');
});
