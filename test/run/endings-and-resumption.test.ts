import { appendFile, rename, symlink, writeFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { verifyOutput } from '../../src/run/receipt.js';
import type { RunEvent } from '../../src/run/run-options.js';
import { readRunFile, writeRunFile } from '../../src/writer/run-file.js';
import { FAST, RunFixture } from '../helpers/run-fixture.js';
import { describeOnAnyQueue, describeOnBothQueues } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';

describeOnBothQueues('how a run ends, and goes on', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);

  test('interrupted, it releases what is in flight, and the next run pays for nothing again', async () => {
    fixture.simulator.setOptions({ latencyMs: 1500, latencySpread: 0 });
    const manifest = await fixture.workspace.write('m.csv', manifestOf(30));
    const interrupt = new AbortController();
    const running = fixture.run({ manifest, signal: interrupt.signal });
    await waitUntil('ten are in flight', () => fixture.simulator.stats().paid >= 10);
    interrupt.abort();
    const { receipt, exitCode } = await running;
    expect(exitCode).toBe(130);
    expect(receipt.remaining).toBeGreaterThan(0);
    expect(receipt.submits).toBe(fixture.simulator.stats().paid);
    fixture.simulator.setOptions({ latencyMs: 30 });
    const resumed = await fixture.run({ manifest });
    expect(resumed.receipt.described + resumed.receipt.resumed).toBe(30);
    expect(resumed.receipt.reattached).toBe(receipt.submits - receipt.described);
    expect(fixture.simulator.stats().paid).toBe(30);
  });
});

describeOnAnyQueue('how a run ends, and goes on, whatever the queue', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);

  test('pays for at most --limit images, and leaves the others for the next time', async () => {
    const manifest = await fixture.workspace.write(
      'm.csv',
      `${manifestOf(10)}11,http://images.test/1.jpg\n12,\n`,
    );
    const first = await fixture.run({ manifest, limit: 4 });
    expect(first.receipt).toMatchObject({
      rows: 12,
      described: 4,
      copied: 1,
      failed: 1,
      remaining: 6,
      submits: 4,
    });
    const rest = await fixture.run({ manifest, limit: 100 });
    expect(rest.receipt).toMatchObject({ resumed: 5, described: 6, failed: 1, remaining: 0, submits: 6 });
  });

  test('ends with exit 3 when the token is refused, with nothing lost', async () => {
    fixture.simulator.setOptions({ token: 'right' });
    const manifest = await fixture.workspace.write('m.csv', manifestOf(20));
    const refused = await fixture.run({ manifest, token: 'wrong' });
    expect([refused.exitCode, refused.stop?.kind]).toEqual([3, 'token']);
    expect(refused.receipt).toMatchObject({ described: 0, failed: 0 });
    const { receipt } = await fixture.run({ manifest, token: 'right' });
    expect(receipt).toMatchObject({ rows: 20, described: 20, submits: 20 });
  });

  test.each(['is in flight', 'was answered meanwhile'])(
    'what %s under the key of a row whose URL was signed anew is not paid for again',
    async (how) => {
      const { simulator, workspace } = fixture;
      const rows = [
        ['1', 'a'],
        ['2', 'b'],
        ['a longer key of row 3', 'c'],
        ['4', 'b'],
      ];
      const write = (sig: number) =>
        workspace.write(
          'm.csv',
          `id,image\n${rows.map(([id, name]) => `${id},http://h.test/${name}?sig=${sig}\n`).join('')}`,
        );
      simulator.setOptions({ latencyMs: 2000, latencySpread: 0 });
      const interrupt = new AbortController();
      const about = { manifest: await write(1), keyColumn: 'id' };
      const first = fixture.run({ ...about, signal: interrupt.signal });
      await waitUntil('all are paid', () => simulator.stats().paid === 3);
      interrupt.abort();
      const { receipt: stopped } = await first;
      expect(stopped).toMatchObject({ described: 0, remaining: 4 });
      if (how === 'was answered meanwhile') {
        await fixture.atBoard(stopped.run, ({ withWorker, results }) =>
          withWorker(() => waitUntil('all are answered', async () => (await results.count()) > 0)),
        );
      }

      await write(2);
      const { receipt } = await fixture.run({ ...about, limit: 0 });
      expect(receipt).toMatchObject({ described: 3, copied: 1, reattached: 3, submits: 0, remaining: 0 });
      expect(simulator.stats().paid).toBe(3);
      expect((await workspace.records('out.csv')).map(({ image }) => image?.slice(-5))).toEqual(
        rows.map(() => 'sig=2'),
      );
      expect(await readRunFile(workspace.at('out.csv.run'))).toMatchObject({ open: false });

      // Its job is kept in the queue for a while, and nobody waits for it.
      await write(3);
      expect((await fixture.run(about)).receipt).toMatchObject({ resumed: 4, submits: 0, reattached: 0 });
      expect(await readRunFile(workspace.at('out.csv.run'))).toMatchObject({ open: false });
    },
  );

  test('a failed image gives its place of --limit back', async () => {
    fixture.simulator.setOptions({ failures: { reject: 0.5 } });
    const manifest = await fixture.workspace.write('m.csv', manifestOf(40));
    const { receipt } = await fixture.run({ manifest, limit: 5 });
    expect(receipt.described).toBe(5);
    expect(receipt.failed).toBeGreaterThan(0);
  });

  test('an interrupted run ends as such, with its failures in the file that its receipt names', async () => {
    fixture.simulator.setOptions({ failures: { reject: 0.5 } });
    const manifest = await fixture.workspace.write('m.csv', manifestOf(40));
    const interrupt = new AbortController();
    const onEvent = (event: RunEvent) => {
      if (event.type === 'progress' && event.progress.failed > 0) interrupt.abort();
    };
    const limits = { ...FAST, rate: { count: 10, perMs: 1000 } };
    const options = { manifest, limits, stopFailing: 100, timing: { tickMs: 50 } };
    const { receipt, stop, exitCode } = await fixture.run({ ...options, signal: interrupt.signal, onEvent });
    expect([exitCode, stop?.kind]).toEqual([130, 'interrupted']);
    expect(receipt.failed).toBeGreaterThan(0);
    expect(receipt.failures).toBe(fixture.workspace.at('out.failed.csv'));
    expect(await fixture.ids('out.failed.csv')).toHaveLength(receipt.failed);
    expect(await fixture.workspace.files()).not.toContain('out.failed.csv.partial');
  });

  test('does not try rejected rows again, tries other failed rows again after the new ones', async () => {
    const manifest = await fixture.workspace.write('m.csv', manifestOf(3));
    fixture.simulator.setOptions({ failures: { reject: 1 } });
    await fixture.run({ manifest });
    expect((await fixture.run({ manifest })).receipt).toMatchObject({ failed: 3, submits: 0 });

    const other = await fixture.workspace.write('other.csv', manifestOf(2, 'http://other.test'));
    const output = fixture.workspace.at('other.out.csv');
    fixture.simulator.setOptions({ failures: { incomplete: 1 } });
    const failed = await fixture.run({ manifest: other, output, attempts: 1 });
    expect([...failed.failedByCode]).toEqual([['incomplete', 2]]);
    fixture.simulator.setOptions({ failures: {} });
    await appendFile(other, '3,http://other.test/3.jpg\n');
    const retried = await fixture.run({ manifest: other, output });
    expect(retried.receipt).toMatchObject({ described: 3, failed: 0, submits: 3 });
    const urls = (await fixture.workspace.records('other.out.csv')).map((record) => record['id']);
    expect(urls[0]).toBe('3');
    expect(await fixture.workspace.files()).not.toContain('other.out.failed.csv');
  });

  test('submits again, as an attempt, when a message expires', async () => {
    fixture.simulator.setOptions({ failures: { incomplete: 0.4 } });
    const manifest = await fixture.workspace.write('m.csv', manifestOf(20));
    const { receipt } = await fixture.run({ manifest, attempts: 30 });
    expect(receipt.described).toBe(20);
    expect(receipt.submits).toBe(fixture.simulator.stats().paid);
    expect(receipt.submits).toBeGreaterThan(20);
  });

  test('stops when more than half of the last 50 outcomes are rejected, exit 4', async () => {
    fixture.simulator.setOptions({ failures: { reject: 1 } });
    const manifest = await fixture.workspace.write('m.csv', manifestOf(300));
    const rate = { count: 100, perMs: 1000 };
    const { receipt, exitCode, stop } = await fixture.run({
      manifest,
      limits: { rate, pollRate: rate, maxInFlight: 5 },
    });
    expect([exitCode, stop?.kind]).toEqual([4, 'failing']);
    expect(receipt.remaining).toBeGreaterThan(100);
  });

  test('ends with exit 3 when the quota is spent, after a handful of calls', async () => {
    fixture.simulator.setOptions({ failures: { quota: 1 } });
    const manifest = await fixture.workspace.write('m.csv', manifestOf(100));
    const fast = { count: 500, perMs: 1000 };
    const few = { rate: fast, pollRate: fast, maxInFlight: 5 };
    const { exitCode, stop } = await fixture.run({ manifest, limits: few });
    expect([exitCode, stop?.kind]).toEqual([3, 'quota']);
    expect(fixture.simulator.stats().submits).toBeLessThan(20);
    fixture.simulator.setOptions({ failures: {} });
    expect((await fixture.run({ manifest })).receipt.described).toBe(100);
  });

  test('interrupted before it comes to them, it keeps what failed by its record', async () => {
    const failing = '901,http://h.test/1.jpg\n901,http://h.test/2.jpg\n902,,surplus\n';
    const manifest = await fixture.workspace.write('m.csv', `id,image\n${failing}`);
    await fixture.run({ manifest, keyColumn: 'id' });
    const codes = async () =>
      (await fixture.workspace.records('out.failed.csv')).map((record) => record['error_code']).sort();
    expect(await codes()).toEqual(['bad-record', 'duplicate-key']);
    fixture.simulator.setOptions({ latencyMs: 5000, latencySpread: 0 });
    await fixture.workspace.write('m.csv', `${manifestOf(200)}${failing}`);
    const interrupt = new AbortController();
    const limits = { rate: { count: 1, perMs: 1000 }, maxInFlight: 1 };
    const running = fixture.run({ manifest, keyColumn: 'id', limits, signal: interrupt.signal });
    await waitUntil('one is in flight', () => fixture.simulator.stats().paid > 1);
    interrupt.abort();
    expect((await running).receipt).toMatchObject({ complete: false });
    expect(await codes()).toEqual(['bad-record', 'duplicate-key']);
  });

  test('goes on in another folder when output, failures and run file are moved together', async () => {
    const manifest = await fixture.workspace.write('m.csv', manifestOf(6));
    await fixture.run({ manifest, limit: 3 });
    await rename(fixture.workspace.at('out.csv'), fixture.workspace.at('moved.csv'));
    await rename(fixture.workspace.at('out.csv.run'), fixture.workspace.at('moved.csv.run'));
    const { receipt } = await fixture.run({ manifest, output: fixture.workspace.at('moved.csv') });
    expect(receipt).toMatchObject({ resumed: 3, described: 3, remaining: 0 });
  });

  test('goes on in a folder that is reached through a symbolic link, by whichever name the run file has it', async () => {
    const { workspace } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(2));
    await symlink(workspace.path, workspace.at('link'));
    const output = workspace.at('link/out.csv');
    await fixture.run({ manifest, output, limit: 1 });
    const next = await fixture.run({ manifest, output });
    expect(next.receipt).toMatchObject({ resumed: 1, described: 1, remaining: 0 });
    const runFile = await readRunFile(workspace.at('out.csv.run'));
    if (runFile === undefined) throw new Error('no run file');
    expect(runFile.output).toBe(workspace.at('out.csv'));
    await writeRunFile(workspace.at('out.csv.run'), { ...runFile, output });
    expect((await fixture.run({ manifest, output })).receipt).toMatchObject({ resumed: 2, submits: 0 });
  });

  test('an output that is a symbolic link is verified by the files beside the one that it leads to', async () => {
    const { workspace } = fixture;
    const manifest = await workspace.write('m.csv', `${manifestOf(2)}3,\n`);
    await fixture.run({ manifest, keyColumn: 'id' });
    await workspace.write('m.csv', `${manifestOf(2, 'http://moved.test')}3,\n`);
    await symlink('out.csv', workspace.at('latest.csv'));
    expect(await verifyOutput({ manifest, output: workspace.at('latest.csv') })).toMatchObject({
      described: 2,
      failed: 1,
      missing: 0,
    });
  });

  test('recovers an output with a torn last record', async () => {
    const manifest = await fixture.workspace.write('m.csv', manifestOf(3));
    await fixture.run({ manifest });
    const whole = await fixture.workspace.read('out.csv');
    await writeFile(fixture.workspace.at('out.csv'), whole.slice(0, -20));
    const { receipt } = await fixture.run({ manifest });
    expect(receipt).toMatchObject({ resumed: 2, remaining: 0 });
    expect((await fixture.workspace.records('out.csv')).map((record) => record['id']).sort()).toEqual([
      '1',
      '2',
      '3',
    ]);
  });

  test('finishes what is in flight when the manifest breaks off, and exits 1 with the line', async () => {
    const manifest = await fixture.workspace.write(
      'm.csv',
      `${manifestOf(150)}151,"http://h.test/never ends\n`,
    );
    const { receipt, exitCode, stop } = await fixture.run({ manifest });
    expect(exitCode).toBe(1);
    expect(stop?.reason).toMatch(/m\.csv.*line 152/);
    expect(receipt).toMatchObject({ complete: false, rows: 150, described: 150 });
  });

  test('emits its events: a preview before anything is paid, then progress', async () => {
    const manifest = await fixture.workspace.write('m.csv', manifestOf(5));
    const events: RunEvent[] = [];
    fixture.simulator.setOptions({ latencyMs: 1500 });
    await fixture.run({
      manifest,
      onEvent: (event) => {
        if (event.type === 'preview') expect(fixture.simulator.stats().submits).toBe(0);
        events.push(event);
      },
    });
    // A busy machine may have notices before it.
    const types = events.map(({ type }) => type).filter((type) => type !== 'phase' && type !== 'notice');
    expect(types[0]).toBe('preview');
    expect(types).toContain('progress');
  });

  test('a second run of the same output is refused with exit 5', async () => {
    fixture.simulator.setOptions({ latencyMs: 600_000 });
    const manifest = await fixture.workspace.write('m.csv', manifestOf(3));
    const interrupt = new AbortController();
    const first = fixture.run({ manifest, signal: interrupt.signal });
    await waitUntil('the first one has begun', () => fixture.simulator.stats().paid > 0);
    await expect(fixture.run({ manifest })).rejects.toMatchObject({
      exitCode: 5,
      message: /another process has the output/,
    });
    interrupt.abort();
    expect((await first).exitCode).toBe(130);
  });

  test('with formulas escaped, a spreadsheet computes nothing, and rows are known again by their own cells', async () => {
    const keys = ['=1+1', "'=2", '-3', '@4', "o'k", '=6'];
    const rows = keys.map((key, index) => `${key},http://f.test/${index}.jpg\n`).join('');
    const manifest = await fixture.workspace.write('m.csv', `key,image\n${rows}=7,none\n`);
    const options = { manifest, keyColumn: 'key' };
    const first = await fixture.run({ ...options, limit: 4, escapeFormulas: true });
    expect(first.receipt).toMatchObject({ described: 4, failed: 1, remaining: 2 });
    // The output remembers it.
    const second = await fixture.run(options);
    expect(second.receipt).toMatchObject({ described: 2, resumed: 4, failed: 1, submits: 2 });
    const files = ['out.csv', 'out.failed.csv'];
    const records = await Promise.all(files.map((name) => fixture.workspace.records(name)));
    expect(records.map((file) => file.map((record) => record['key'])).map((names) => names.sort())).toEqual([
      ["'=1+1", "''=2", "'-3", "'@4", "o'k", "'=6"].sort(),
      ["'=7"],
    ]);
    const output = fixture.workspace.at('out.csv');
    expect(await verifyOutput({ manifest, output })).toMatchObject({ described: 6, failed: 1, extra: 0 });
    const plain = await fixture.workspace.write('p.csv', manifestOf(1));
    const other = { manifest: plain, output: fixture.workspace.at('plain.csv') };
    await fixture.run(other);
    await expect(fixture.run({ ...other, escapeFormulas: true })).rejects.toThrow('begun without');
  });
});
