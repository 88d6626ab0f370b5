import { spawn } from 'node:child_process';
import { stat, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { parquetReadObjects } from 'hyparquet';
import { asyncBufferFromFile } from 'hyparquet/src/node.js';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { verifyOutput } from '../../src/run/receipt.js';
import { runCommand, startCli } from '../helpers/cli.js';
import { describeOnRedis } from '../helpers/queues.js';
import { FAST, FAST_FLAGS, RunFixture } from '../helpers/run-fixture.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { endOf, kill9, killWhile } from './run-process.js';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const ENV = { PATH: process.env['PATH'], DESCRIBE_API_TOKEN: 'any' };
/** So many that packing and unpacking them can be interrupted. */
const HELD = 8000;

// Which queue it is matters to no file.
describeOnRedis('a Parquet output', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);
  const at = (name: string) => fixture.workspace.at(name);
  const isThere = (name: string) =>
    stat(at(name)).then(
      () => true,
      () => false,
    );
  const idsIn = async (name: string) => {
    const rows = await parquetReadObjects({ file: await asyncBufferFromFile(at(name)), columns: ['id'] });
    return z
      .array(z.object({ id: z.string() }))
      .parse(rows)
      .map(({ id }) => Number(id));
  };
  const args = () => {
    const { simulator, queue } = fixture;
    const about = ['--api', simulator.url, '--queue', queue.url, ...FAST_FLAGS];
    return ['run', 'm.csv', '-o', 'out.parquet', ...about, '--json', '--no-progress'];
  };
  const start = () => startCli(args(), { cwd: fixture.workspace.path, env: ENV });
  const again = () => ({ ended: runCommand(args(), { cwd: fixture.workspace.path, env: ENV }) });

  /** The working file of a run that has described so many rows of `manifestOf`. */
  async function writeWorking(count: number): Promise<void> {
    const lines = Array.from({ length: count }, (_, index) => {
      const [id, image] = [String(index + 1), `http://images.test/${index + 1}.jpg`];
      const prompts = [1, 2, 3, 4].map((prompt) => `prompt ${prompt} of ${Math.random()}`);
      const described_at = '2024-05-06T07:08:09.010Z';
      return `${JSON.stringify({ id, image, prompts, message_id: `sim-${id}`, described_at })}\n`;
    });
    await writeFile(at('out.parquet.jsonl'), lines.join(''));
  }

  test('survives kill -9 in mid-run, while it is packed and while it is unpacked, twice each', async () => {
    const { workspace, simulator } = fixture;
    await workspace.write('m.csv', manifestOf(HELD + 20));
    await writeWorking(HELD);
    simulator.setOptions({ latencyMs: 300, latencySpread: 0 });
    for (const rows of [5, 10]) {
      const killed = start();
      await waitUntil(`${rows} rows are paid for`, () => simulator.stats().paid >= rows);
      await kill9(killed);
    }
    simulator.setOptions({ latencyMs: 5 });
    await killWhile(workspace.path, /^out\.parquet\.\w{8}\.tmp$/, start);
    await killWhile(workspace.path, /^out\.parquet\.\w{8}\.tmp$/, start);
    expect([await isThere('out.parquet'), await isThere('out.parquet.jsonl')]).toEqual([false, true]);
    const first = await endOf(again());
    expect(first.receipt).toMatchObject({ rows: HELD + 20, remaining: 0 });
    expect(await isThere('out.parquet.jsonl')).toBe(false);
    await workspace.write('m.csv', manifestOf(HELD + 25));
    await killWhile(workspace.path, /^out\.parquet\.jsonl\.\w{8}\.tmp$/, start);
    await killWhile(workspace.path, /^out\.parquet\.jsonl\.\w{8}\.tmp$/, start);
    expect([await isThere('out.parquet'), await isThere('out.parquet.jsonl')]).toEqual([true, false]);
    const second = await endOf(again());
    expect(second.receipt).toMatchObject({ resumed: HELD + 20, described: 5 });
    const ids = await idsIn('out.parquet');
    expect(ids).toHaveLength(HELD + 25);
    expect(new Set(ids).size).toBe(HELD + 25);
    expect(simulator.stats().paidByUrl.size).toBe(25);
    // What was on the wire when a run was killed.
    expect(simulator.stats().paid - 25).toBeLessThanOrEqual(first.receipt.maybePaidTwice);
  });

  test('is verified, counts for later nights, and is continued; what is interrupted stays in its working file', async () => {
    const { workspace } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(20));
    const output = at('one.parquet');
    const first = await fixture.run({ manifest, output, limit: 4 });
    expect(first.receipt).toMatchObject({ output, described: 4, remaining: 16 });
    const verified = { described: 4, missing: 16, extra: 0 };
    expect(await verifyOutput({ manifest, output })).toMatchObject(verified);
    // With nothing to do the file is left as it is.
    const before = await stat(output);
    await fixture.run({ manifest, output, collectOnly: true });
    expect((await stat(output)).ino).toBe(before.ino);
    const interrupt = new AbortController();
    fixture.simulator.setOptions({ latencyMs: 300, latencySpread: 0 });
    const rate = { count: 2, perMs: 1000 };
    const running = fixture.run({
      ...{ manifest, output, signal: interrupt.signal, limits: { ...FAST, rate } },
      onEvent: (event) => {
        if (event.type === 'progress' && event.progress.described > 0) interrupt.abort();
      },
    });
    const second = await running;
    expect([second.exitCode, second.receipt.output]).toEqual([130, `${output}.jsonl`]);
    expect((await verifyOutput({ manifest, output })).described).toBeGreaterThan(4);
    const night = await workspace.write('n.csv', `${manifestOf(22)}23,http://images.test/1.jpg\n`);
    const later = { manifest: night, output: at('two.parquet'), earlierOutputs: [output] };
    const third = await fixture.run(later);
    expect(third.receipt.described + third.receipt.resumed + third.receipt.copied).toBe(23);
    const fourth = await fixture.run({ manifest, output });
    expect(fourth.receipt).toMatchObject({ output, remaining: 0 });
    expect(new Set(await idsIn('one.parquet')).size).toBe(20);
    const fifth = await fixture.run({ ...later, output: at('three.parquet') });
    expect(fifth.receipt).toMatchObject({ resumed: 20, described: 2, copied: 1 });
    expect(await workspace.files()).not.toContain('three.parquet.jsonl');
  });

  test('that does not fit on the disk stays in its working file, and the next start packs it', async () => {
    const { workspace } = fixture;
    await workspace.write('m.csv', manifestOf(400));
    await writeWorking(400);
    const child = spawn('sh', ['-c', 'ulimit -f 8; exec "$@"', 'sh', process.execPath, MAIN, ...args()], {
      ...{ cwd: workspace.path, env: { ...ENV, HOME: workspace.path } },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let text = '';
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect(code).toBe(1);
    expect(text).toMatch(
      /^stopped: .*out\.parquet cannot be written: .*; its rows are in .*out\.parquet\.jsonl, and the next start goes on with them$/m,
    );
    const before = await stat(at('out.parquet.jsonl'));
    expect(before.size).toBeGreaterThan(50_000);
    expect(await isThere('out.parquet')).toBe(false);
    const { receipt } = await endOf(again());
    expect(receipt).toMatchObject({ resumed: 400, submits: 0 });
    expect(await idsIn('out.parquet')).toHaveLength(400);
  });

  test('that another program has written is refused before anything is paid or unpacked', async () => {
    const { workspace, simulator } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(2));
    const output = await workspace.write('out.parquet', 'PAR1 of somebody else PAR1');
    await expect(fixture.run({ manifest, output })).rejects.toThrow(/is no Parquet file as bulk-describe/);
    await expect(verifyOutput({ manifest, output })).rejects.toThrow(/is no Parquet file as bulk-describe/);
    expect(simulator.stats().paid).toBe(0);
    expect(await workspace.files()).toEqual(['m.csv', 'out.parquet']);
  });

  test('is not forgotten for a working file that another program has written', async () => {
    const { workspace, simulator } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(2));
    const output = at('out.parquet');
    await fixture.run({ manifest, output });
    await workspace.write('out.parquet.jsonl', 'garbage');
    await expect(fixture.run({ manifest, output })).rejects.toThrow(
      /out\.parquet\.jsonl holds no row, and .*out\.parquet does: remove/,
    );
    expect(await workspace.read('out.parquet.jsonl')).toBe('garbage');
    expect(await idsIn('out.parquet')).toEqual([1, 2]);
    expect(simulator.stats().paid).toBe(2);
  });
});
