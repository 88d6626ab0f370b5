import { writeFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { parquetReadObjects } from 'hyparquet';
import { asyncBufferFromFile } from 'hyparquet/src/node.js';
import { expect, test } from 'vitest';
import { describeOnRedis } from '../helpers/queues.js';
import { RunFixture } from '../helpers/run-fixture.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { endOf, kill9, killWhile, runAgain, startRun } from './run-process.js';

/** So many that their rewriting can be interrupted. */
const HELD = 8000;

describeOnRedis('run --in-order', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);
  const idsIn = async (name: string) =>
    (await fixture.workspace.records(name)).map((record) => Number(record['id']));
  const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1);

  test('survives kill -9 while rows are described and while they are put in order', async () => {
    const { workspace, simulator, queue } = fixture;
    const manifest = manifestOf(HELD + 20);
    await workspace.write('m.csv', manifest);
    const described = manifest.split('\n').slice(1, HELD + 1);
    const prompts = 'one,two,three,four,sim-1,2024-05-06T07:08:09.010Z';
    await writeFile(
      workspace.at('out.csv'),
      ['id,image,prompt_1,prompt_2,prompt_3,prompt_4,message_id,described_at']
        .concat(described.reverse().map((row) => `${row},${prompts}`))
        .map((line) => `${line}\n`)
        .join(''),
    );
    const about = { workspace, api: simulator.url, queue: queue.url, rate: '500/s', maxInFlight: 20 };
    const command = { ...about, flags: ['--in-order'] };
    const start = () => startRun(command);
    const rewritten = /^out\.csv\.\w{8}\.tmp$/;
    const temp = async () => (await workspace.files()).filter((name) => rewritten.test(name)).join();
    simulator.setOptions({ latencyMs: 300, latencySpread: 0 });
    const first = start();
    await waitUntil('some rows are paid for', () => simulator.stats().paid >= 5);
    await kill9(first);
    simulator.setOptions({ latencyMs: 5 });
    for (let time = 0; time < 2; time++) {
      await killWhile(workspace.path, rewritten, start);
      expect(await temp()).not.toBe('');
    }
    expect((await idsIn('out.csv')).slice(0, 3)).toEqual([HELD, HELD - 1, HELD - 2]);
    const { receipt } = await endOf(runAgain(command));
    expect(receipt).toMatchObject({ rows: HELD + 20, described: 0, resumed: HELD + 20, remaining: 0 });
    expect(await idsIn('out.csv')).toEqual(upTo(HELD + 20));
    expect(await temp()).toBe('');
    expect(simulator.stats().paidByUrl.size).toBe(20);
  });

  test('orders what a limit has stopped, appends again, and writes Parquet in order', async () => {
    const { workspace, simulator } = fixture;
    simulator.setOptions({ latencyMs: 60, latencySpread: 1 });
    const manifest = await workspace.write('m.csv', `${manifestOf(30)}again,http://images.test/2.jpg\n`);
    const options = { manifest, inOrder: true };
    const first = await fixture.run({ ...options, limit: 12 });
    expect(first.receipt).toMatchObject({ described: 12 });
    const ids = await idsIn('out.csv');
    expect(ids.filter(Number.isFinite)).toEqual(ids.filter(Number.isFinite).sort((a, b) => a - b));
    await fixture.run(options);
    expect((await idsIn('out.csv')).slice(0, 30)).toEqual(upTo(30));
    const output = workspace.at('out.parquet');
    await fixture.run({ ...options, output });
    const rows = await parquetReadObjects({ file: await asyncBufferFromFile(output), columns: ['id'] });
    expect(rows.map(({ id }) => String(id))).toEqual([...upTo(30).map(String), 'again']);
    await workspace.write('short.csv', manifestOf(3).replace('1,http', '3b,http'));
    const second = await fixture.run({ ...options, manifest: workspace.at('short.csv') });
    expect(second.receipt).toMatchObject({ resumed: 3, extra: 28 });
    expect(await idsIn('out.csv')).toHaveLength(31);
  });

  test('is refused for a manifest that can be read only once', async () => {
    const input = Readable.from([manifestOf(2)]);
    await expect(fixture.run({ manifest: '-', format: 'csv', input, inOrder: true })).rejects.toThrow(
      '--in-order: stdin can be read only once',
    );
    expect(await fixture.workspace.files()).toEqual([]);
  });
});
