import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { z } from 'zod';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { runCommand, startCli } from '../helpers/cli.js';
import { type QueueFixture, describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace } from '../helpers/workspace.js';

const rows = Array.from({ length: 60 }, (_, id) => ({
  id,
  image: { url: `https://img.example.org/${id}.jpg` },
}));

const limits = ['--rate', '20/s', '--poll-rate', '400/s', '--max-in-flight', '5'];

describeOnRedis('a manifest in another format', (openQueue) => {
  let workspace: Workspace;
  let simulator: Simulator;
  let queue: QueueFixture;
  beforeAll(async () => {
    queue = await openQueue();
  });
  beforeEach(async () => {
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 50, token: 'secret-token' });
  });
  afterEach(async () => {
    await simulator.close();
    await workspace.remove();
  });

  test('shards are one manifest, through a kill and with one that comes later', async () => {
    const shard = (name: string, from: number) => {
      const lines = rows.slice(from, from + 20).map(({ id, image }) => `${id},${image.url}\n`);
      return writeFile(join(workspace.path, name), `id,url\n${lines.join('')}`);
    };
    await Promise.all([shard('part-2.csv', 0), shard('part-10.csv', 20)]);
    const files = ['part-*.csv', '-o', 'part-out.csv'];
    const args = ['run', ...files, '--api', simulator.url, '--queue', queue.url, '--json', ...limits];
    const options = { cwd: workspace.path, env: { DESCRIBE_API_TOKEN: 'secret-token' } };
    const output = () => readFile(join(workspace.path, 'part-out.csv'), 'utf8').catch(() => '');
    const first = startCli(args, options);
    await waitUntil('25 rows', async () => (await output()).split('\n').length > 25);
    first.child.kill('SIGKILL');
    await first.ended;
    const resumed = await runCommand(args, options);
    const submits = simulator.stats().paid;
    expect([resumed.code, resumed.stderr]).toEqual([0, expect.stringContaining('part-*.csv')]);
    await shard('part-11.csv', 40);
    const grown = await runCommand(args, options);
    expect(JSON.parse(grown.stdout)).toMatchObject({ rows: 60, resumed: 40, described: 20, submits: 20 });
    expect(simulator.stats().paid).toBe(submits + 20);
    const found = z
      .array(z.object({ id: z.coerce.number() }))
      .parse(parse(await output(), { columns: true }));
    expect(found.map(({ id }) => id).sort((a, b) => a - b)).toEqual(rows.map(({ id }) => id));
    const shards = ['part-2.csv', 'part-10.csv', 'part-11.csv'];
    for (const names of [['part-*.csv'], shards]) {
      const { code, stdout } = await runCommand(['verify', ...names, 'part-out.csv'], options);
      expect([code, stdout]).toEqual([0, expect.stringContaining('60 rows in the manifest')]);
    }
    const unnamed = await runCommand(['run', ...shards, '--dry-run', '--api', simulator.url], options);
    expect(unnamed.stderr).toContain(
      'several manifests are run as one: say with -o <path> where the output goes',
    );
  });

  test.each([
    ['m.json', JSON.stringify({ info: {}, images: rows }, null, 2)],
    [
      'm.parquet',
      new Uint8Array(
        parquetWriteBuffer({
          columnData: [
            { name: 'id', data: rows.map(({ id }) => id), type: 'INT32' },
            { name: 'image', data: rows.map(({ image }) => image), type: 'JSON' },
          ],
          rowGroupSize: 25,
        }),
      ),
    ],
  ])('%s with URLs in objects has each row once, through a kill', async (name, content) => {
    await writeFile(join(workspace.path, name), content);
    const args = ['run', name, '--api', simulator.url, '--queue', queue.url, '-o', 'out.jsonl', ...limits];
    const options = { cwd: workspace.path, env: { DESCRIBE_API_TOKEN: 'secret-token' } };
    const output = () => readFile(join(workspace.path, 'out.jsonl'), 'utf8').catch(() => '');
    const first = startCli(args, options);
    await waitUntil('ten rows', async () => (await output()).split('\n').length > 10);
    first.child.kill('SIGKILL');
    await first.ended;
    const { code, stderr } = await runCommand(args, options);
    expect([code, stderr]).toEqual([0, expect.stringContaining('column "image.url"')]);
    const found = (await output())
      .trim()
      .split('\n')
      .map((line) => z.object({ id: z.number(), image: z.json() }).parse(JSON.parse(line)));
    expect(found.sort((a, b) => a.id - b.id)).toEqual(rows);
    const verified = await runCommand(['verify', name, 'out.jsonl'], options);
    expect([verified.code, verified.stderr]).toEqual([0, expect.any(String)]);
  });
});
