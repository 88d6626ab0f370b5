import { spawnSync } from 'node:child_process';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { DIALECT_NAMES } from '../../src/describe-api/dialects/index.js';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { MAIN, runCli, runCommand, startCli } from '../helpers/cli.js';
import { type QueueFixture, describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';

const receiptSchema = z.strictObject({
  run: z.string(),
  manifest: z.string(),
  output: z.string(),
  failures: z.string(),
  rows: z.number(),
  described: z.number(),
  resumed: z.number(),
  copied: z.number(),
  failed: z.number(),
  remaining: z.number(),
  extra: z.number(),
  twice: z.number(),
  submits: z.number(),
  polls: z.number(),
  inputTokens: z.number(),
  outputTokens: z.number(),
  reattached: z.number(),
  maybePaidTwice: z.number(),
  rescued: z.number(),
  seconds: z.number(),
  complete: z.boolean(),
  balanced: z.boolean(),
});

describeOnRedis('bulk-describe run', (openQueue) => {
  let workspace: Workspace;
  let simulator: Simulator;
  let queue: QueueFixture;

  beforeAll(async () => {
    queue = await openQueue();
  });
  afterAll(() => queue.cleanup());
  beforeEach(async () => {
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 50, token: 'secret-token' });
  });
  afterEach(async () => {
    await simulator.close();
    await workspace.remove();
  });

  function args(...more: string[]): string[] {
    const limits = ['--rate', '200/s', '--poll-rate', '400/s', '--max-in-flight', '20'];
    return ['run', 'm.csv', '--api', simulator.url, '--queue', queue.url, ...limits, ...more];
  }
  const env = { DESCRIBE_API_TOKEN: 'secret-token' };

  test('prints the preview on stderr and the account on stdout', async () => {
    await workspace.write('m.csv', manifestOf(3));
    const end = await runCli(args(), { cwd: workspace.path, env });
    expect(end.code).toBe(0);
    expect(end.stderr).toContain('m.csv: 3 rows, 3 images');
    expect(end.stdout).toMatch(/^3 rows: 3 described\ncalls {5}3 submits/);
    expect(await workspace.files()).toEqual(['m.csv', 'm.prompts.csv', 'm.prompts.csv.run']);
  });

  test('prints exactly one JSON object on stdout with --json, with the fields of the contract', async () => {
    await workspace.write('m.csv', manifestOf(3));
    const end = await runCommand(args('--json', '--quiet'), { cwd: workspace.path, env });
    expect(end.stderr).toBe('');
    const receipt = receiptSchema.parse(JSON.parse(end.stdout));
    expect(receipt).toMatchObject({ rows: 3, described: 3, complete: true, balanced: true });
  });

  test('--dry-run prints the preview, exits 0, creates nothing and pays nothing', async () => {
    await workspace.write('m.csv', manifestOf(3));
    const end = await runCommand(args('--dry-run'), { cwd: workspace.path });
    expect([end.code, end.stdout]).toEqual([0, '']);
    expect(end.stderr).toContain('3 images to submit, at most 200/s');
    expect(await workspace.files()).toEqual(['m.csv']);
    expect(simulator.stats().submits).toBe(0);
  });

  test('reads the manifest from stdin, and resumes it', async () => {
    const stdin = ['run', '-', '--format', 'csv', '-o', 'o.csv', ...args().slice(2), '--json'];
    const options = { cwd: workspace.path, env, input: manifestOf(5) };
    const first = receiptSchema.parse(JSON.parse((await runCli(stdin, options)).stdout));
    expect(first).toMatchObject({ rows: 5, described: 5, complete: true, balanced: true });
    const again = receiptSchema.parse(JSON.parse((await runCli(stdin, options)).stdout));
    expect(again).toMatchObject({ rows: 5, resumed: 5, submits: 0, balanced: true });
  });

  test('a second process with the same output ends at once with exit 5 and names the first', async () => {
    simulator.setOptions({ latencyMs: 600_000 });
    await workspace.write('m.csv', manifestOf(2));
    const first = startCli(args(), { cwd: workspace.path, env });
    await waitUntil('the first has submitted', () => simulator.stats().paid === 2);
    const second = await runCommand(args(), { cwd: workspace.path, env });
    expect(second.code).toBe(5);
    expect(second.stderr).toContain(`pid ${first.child.pid ?? ''}`);
    first.child.kill('SIGTERM');
    expect((await first.ended).code).toBe(130);
  });

  test('takes the token from a file', async () => {
    await workspace.write('m.csv', manifestOf(1));
    await workspace.write('token.txt', 'secret-token\n');
    const end = await runCommand(args('--token-file', 'token.txt'), { cwd: workspace.path });
    expect(end.code).toBe(0);
  });

  test('with --accept, failures of that code do not make exit 2', async () => {
    await workspace.write('m.csv', `${manifestOf(1)}2,\n`);
    expect((await runCommand(args(), { cwd: workspace.path, env })).code).toBe(2);
    expect((await runCommand(args('--accept', 'invalid-url'), { cwd: workspace.path, env })).code).toBe(0);
  });

  test('verify recounts: 0 when all is described, 2 when something is missing or twice', async () => {
    await workspace.write('m.csv', manifestOf(3));
    await runCommand(args(), { cwd: workspace.path, env });
    const verify = () => runCommand(['verify', 'm.csv', 'm.prompts.csv', '--json'], { cwd: workspace.path });
    const end0 = await verify();
    expect(end0.code).toBe(0);
    expect(end0.stdout).toContain('"described":3');
    await workspace.write('m.csv', manifestOf(4));
    const end2 = await verify();
    expect(end2.code).toBe(2);
    expect(end2.stdout).toContain('"missing":1');
    const output = await workspace.read('m.prompts.csv');
    await workspace.write('m.prompts.csv', output + output.slice(output.indexOf('\n') + 1));
    expect((await verify()).stdout).toContain('"twice":3');
  });

  test('verify counts failures with the codes of --accept as accepted, and exits 0 when nothing else is left', async () => {
    await workspace.write('m.csv', `${manifestOf(1)}2,\n3,\n`);
    await runCommand(args(), { cwd: workspace.path, env });
    const verify = (...more: string[]) =>
      runCommand(['verify', 'm.csv', 'm.prompts.csv', ...more], { cwd: workspace.path });
    expect((await verify()).code).toBe(2);
    expect((await verify('--accept', 'rejected', '--json')).stdout).toContain('"failed":2,"accepted":0');
    const accepted = await verify('--accept', 'invalid-url');
    expect([accepted.code, accepted.stdout]).toEqual([0, expect.stringMatching(/^ +2 accepted$/m)]);
    await workspace.write('m.csv', `${manifestOf(1)}2,\n3,\n4,http://images.test/4.jpg\n`);
    expect((await verify('--accept', 'invalid-url')).code).toBe(2);
  });
});

describe('bulk-describe simulate', () => {
  test('prints its base URL as the first line, answers, and exits 0 when it is told to stop', async () => {
    const simulate = startCli(['simulate', '--latency', '10ms']);
    await waitUntil('it prints its URL', () => simulate.stdout().includes('\n'));
    const url = simulate.stdout().trim();
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/v2$/);
    const answer = await fetch(`${url}/message/unknown`);
    expect(answer.status).toBe(404);
    simulate.child.kill('SIGTERM');
    expect((await simulate.ended).code).toBe(0);
  });
});

describe('help', () => {
  test.each([
    [['--help'], /run <manifest\.\.\.>.*verify <manifest\.\.\.> <output>.*simulate/s],
    [['run', '--help'], /--max-in-flight.*Exit codes/s],
    [['verify', '-h'], /Recounts/],
    [['simulate', '--help'], /--latency/],
  ])('%j exits 0 and shows it on stdout', async (helpArgs, text) => {
    const end = await runCommand(helpArgs);
    expect([end.code, end.stderr]).toEqual([0, '']);
    expect(end.stdout).toMatch(text);
  });
  test('names every dialect', async () => {
    const { stdout } = await runCommand(['run', '--help']);
    for (const name of DIALECT_NAMES) expect(stdout).toMatch(new RegExp(`--dialect <name> .*\\b${name}\\b`));
  });
  test('is a program that can be executed, however it came to be built', () => {
    expect(spawnSync(MAIN, ['--version'], { encoding: 'utf8' }).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
  test('prints the version', async () => {
    expect((await runCli(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});
