import { expect, test } from 'vitest';
import { verifyOutput } from '../../src/run/receipt.js';
import { runCommand } from '../helpers/cli.js';
import { describeOnAnyQueue } from '../helpers/queues.js';
import { RunFixture } from '../helpers/run-fixture.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { endOf, kill9, runAgain, startRun } from '../reliability/run-process.js';

describeOnAnyQueue('run --prompts-as rows', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);
  const numbersOf = (records: Record<string, string>[], id: string) =>
    records.filter((record) => record['id'] === id).map((record) => record['prompt_number']);

  test('is remembered after kill -9, put in order, verified, and exported', async () => {
    const { workspace, simulator, queue } = fixture;
    const manifest = await workspace.write('m.csv', `${manifestOf(20)}bad,none\n`);
    const command = { workspace, api: simulator.url, queue: queue.url, rate: '500/s', maxInFlight: 20 };
    simulator.setOptions({ latencyMs: 200 });
    const killed = startRun({ ...command, flags: ['--in-order', '--prompts-as', 'rows'] });
    const lines = async () => (await workspace.read('out.csv').catch(() => '')).split('\n').length;
    await waitUntil('some rows are there', async () => (await lines()) > 9);
    await kill9(killed);
    simulator.setOptions({ latencyMs: 10 });
    const { receipt } = await endOf(runAgain({ ...command, flags: ['--in-order'] }), 2);
    expect(receipt).toMatchObject({ rows: 21, failed: 1, remaining: 0, maybePaidTwice: 0 });
    const records = await workspace.records('out.csv');
    const ids = Array.from({ length: 20 }, (_, index) => String(index + 1));
    expect(records.map((record) => record['id'])).toEqual(ids.flatMap((id) => [id, id, id, id]));
    for (const id of ids) expect(numbersOf(records, id)).toEqual(['1', '2', '3', '4']);
    expect(simulator.stats().paid).toBe(20);
    const verified = await verifyOutput({ manifest, output: workspace.at('out.csv') });
    expect(verified).toMatchObject({ described: 20, failed: 1, missing: 0, extra: 0, twice: 0 });
    const other = await runCommand(['export', 'out.csv', '--to', 'sidecar', '-o', 'captions'], {
      cwd: workspace.path,
    });
    expect(other.code, other.stderr).toBe(0);
    const second = records.find((record) => record['id'] === '2');
    expect(await workspace.read('captions/2.txt')).toBe(`${second?.['prompt'] ?? ''}\n`);
  });

  test('copies rows that share an image, and is refused where it cannot be', async () => {
    const { workspace } = fixture;
    const manifest = await workspace.write('m.csv', `${manifestOf(4)}again,http://images.test/2.jpg\n`);
    await fixture.run({ manifest, promptsAs: 'rows', limit: 2 });
    await expect(fixture.run({ manifest, promptsAs: 'columns' })).rejects.toThrow(
      'was begun with --prompts-as rows',
    );
    const { receipt } = await fixture.run({ manifest });
    expect(receipt).toMatchObject({ remaining: 0, failed: 0 });
    const records = await workspace.records('out.csv');
    expect(records).toHaveLength(20);
    const promptsOf = (id: string) =>
      records.filter((found) => found['id'] === id).map((found) => found['prompt']);
    expect(promptsOf('again')).toEqual(promptsOf('2'));
    const other = { manifest, output: workspace.at('other.csv'), promptsAs: 'rows' } as const;
    const model = { dialect: 'openai', api: 'simulator', model: 'm' } as const;
    for (const more of [{ fields: 'caption' }, { count: 1 }]) {
      await expect(fixture.run({ ...other, ...model, ...more })).rejects.toThrow(
        `--prompts-as rows is for several prompts an image: leave it away with --${Object.keys(more).join()}`,
      );
    }
    const named = await workspace.write('n.csv', 'image,prompt\nhttp://images.test/1.jpg,x\n');
    await expect(fixture.run({ ...other, manifest: named })).rejects.toThrow(
      'the output adds a column named prompt of its own',
    );
    await fixture.run({ manifest, output: workspace.at('columns.csv'), limit: 1 });
    await expect(fixture.run({ ...other, output: workspace.at('columns.csv') })).rejects.toThrow(
      'was begun with --prompts-as columns',
    );
    const ended = await fixture.run({ ...other, ...model, count: 2, limit: 1 });
    expect(ended.receipt).toMatchObject({ described: 1 });
    await expect(fixture.run({ ...other, ...model, count: 3 })).rejects.toThrow('it lacks "prompt_3"');
  });
});
