import { readFile, writeFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { findKeptColumns } from '../../src/producer/columns.js';
import { verifyOutput } from '../../src/run/receipt.js';
import { endOf, kill9, runAgain, startRun } from '../reliability/run-process.js';
import { describeOnRedis } from '../helpers/queues.js';
import { RunFixture } from '../helpers/run-fixture.js';
import { waitUntil } from '../helpers/wait-until.js';

const COLUMNS = ['id', 'image', 'title', 'notes'];

test.each([
  [{}, undefined, [0, 1, 2, 3]],
  [{ keep: ['title', 'image'] }, undefined, [1, 2]],
  [{ drop: ['id'] }, undefined, [1, 2, 3]],
  // What the output was begun with holds; a column of it may be gone by now.
  [{}, { drop: ['notes', 'gone'] }, [0, 1, 2]],
  [{}, { keep: ['image', 'gone'] }, [1]],
  [{ keep: ['image', 'id'] }, { drop: ['id'] }, [0, 1]],
])('%j after %j keeps the columns %j', (asked, remembered, kept) => {
  expect(findKeptColumns(COLUMNS, asked, remembered, [1])).toEqual(kept);
});

test.each([
  [{ keep: ['image'], drop: ['id'] }, [1], '--keep and --drop: give one of them'],
  [{ keep: ['image', 'titles'] }, [1], '--keep titles: the manifest has no such column: did you mean title?'],
  [{ drop: ['note'] }, [1], '--drop note: the manifest has no such column: did you mean notes?'],
  [{ drop: ['image', 'notes'] }, [1], '--drop leaves out image: the output needs it to tell its rows apart'],
  [{ keep: ['id'] }, [1, 0, 2], '--keep leaves out image, title: the output needs'],
])('%j is refused where %j are needed: %s', (asked, needed, message) => {
  expect(() => findKeptColumns(COLUMNS, asked, undefined, needed)).toThrow(message);
});

describeOnRedis('an output with some of the columns of its manifest', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);
  const manifestOf = (count: number) =>
    `id,image,title,notes\n${Array.from({ length: count }, (_, index) => `${index + 1},http://k.test/${index + 1}.jpg,t${index + 1},"n, ${index + 1}"\n`).join('')}3b,none,bad,kept\n`;
  const titles = async () => {
    const text = await fixture.workspace.read('out.csv').catch(() => '');
    return Array.from(text.matchAll(/^http.*?,(t\d+),/gm), ([, title]) => title);
  };
  const headOf = async (name: string) => (await fixture.workspace.read(name)).split('\n')[0];

  test('goes on with them after kill -9, and its failures have all', async () => {
    const { workspace, simulator, queue } = fixture;
    await workspace.write('m.csv', manifestOf(20));
    const command = { workspace, api: simulator.url, queue: queue.url, rate: '500/s', maxInFlight: 20 };
    simulator.setOptions({ latencyMs: 200 });
    const killed = startRun({ ...command, flags: ['--drop', 'notes,id'] });
    await waitUntil('some rows are there', async () => (await titles()).length > 2);
    await kill9(killed);
    simulator.setOptions({ latencyMs: 10 });
    const { receipt } = await endOf(runAgain(command), 2);
    expect(receipt).toMatchObject({ rows: 21, failed: 1, remaining: 0, maybePaidTwice: 0 });
    expect(await headOf('out.csv')).toMatch(/^image,title,prompt_1,/);
    expect(await headOf('out.failed.csv')).toMatch(/^id,image,title,notes,error_code/);
    expect(new Set(await titles()).size).toBe(20);
    expect(await workspace.records('out.csv')).toHaveLength(20);
    expect(simulator.stats().paid).toBe(20);
  });

  test('is verified, and says what differs from what is asked for later', async () => {
    const { workspace } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(3));
    const first = await fixture.run({ manifest, keep: ['image', 'title'], keyColumn: 'title', limit: 2 });
    expect(first.receipt).toMatchObject({ described: 2, remaining: 1 });
    const output = workspace.at('out.csv');
    expect(await verifyOutput({ manifest, output })).toMatchObject({ described: 2, failed: 1, extra: 0 });
    await expect(fixture.run({ manifest, keyColumn: 'title', drop: ['notes'] })).rejects.toThrow(
      'lacks columns that the manifest has: "id"; --new-columns rewrites it once with the columns of the manifest, --drop goes on without them',
    );
    await expect(fixture.run({ manifest, keyColumn: 'title', keep: ['title'] })).rejects.toThrow(
      '--keep leaves out image',
    );
    // A column of the manifest that nobody asked for is not added.
    await writeFile(
      manifest,
      (await readFile(manifest, 'utf8'))
        .split('\n')
        .map((line, index) => (line === '' ? '' : `${line},${index === 0 ? 'more' : 'x'}`))
        .join('\n'),
    );
    const second = await fixture.run({ manifest, keyColumn: 'title' });
    expect(second.receipt).toMatchObject({ described: 1, resumed: 2, failed: 1 });
    const other = { manifest, output: workspace.at('all.csv') };
    await fixture.run(other);
    await expect(fixture.run({ ...other, drop: ['notes'] })).rejects.toThrow(
      'has columns that --keep or --drop leave out: "notes"; go on without the flag, or name another output',
    );
  });
});
