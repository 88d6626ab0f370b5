import { spawn } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { appendFile, copyFile, mkdir, readFile, rename, rm, truncate } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { receiptLines } from '../../src/cli/summary.js';
import { verifyOutput } from '../../src/run/receipt.js';
import { runCli } from '../helpers/cli.js';
import { describeOnBothQueues } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { RunFixture, FAST, FAST_FLAGS } from '../helpers/run-fixture.js';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const ENV = { PATH: process.env['PATH'], DESCRIBE_API_TOKEN: 'any' };
/** Slow enough that something can happen while a run goes on: 30 rows last ten seconds. */
const rate = { count: 3, perMs: 1000 };

describeOnBothQueues('the disk', (openQueue, kind) => {
  const fixture = RunFixture.forSuite(openQueue);

  /** What the results queue holds: everything waits, nothing failed or hangs. */
  async function waitingResults(run: string): Promise<number> {
    let waiting = 0;
    await fixture.atBoard(run, async ({ results }) => {
      const counts = await results.getJobCounts('waiting', 'active', 'failed', 'delayed');
      expect(counts).toMatchObject({ active: 0, failed: 0, delayed: 0 });
      waiting = counts['waiting'] ?? 0;
    });
    return waiting;
  }

  async function runId(): Promise<string> {
    return /"run": "(\w+)"/.exec(await fixture.workspace.read('out.csv.run'))?.[1] ?? '';
  }

  // One of them is enough to see that the queue, whatever it is kept in, keeps the results.
  const spoilers: [string, () => Promise<void>][] = [
    [
      'deleted',
      async () => {
        await rm(fixture.workspace.at('out.csv'));
      },
    ],
    [
      'replaced',
      async () => {
        await copyFile(fixture.workspace.at('out.csv'), fixture.workspace.at('copy.csv'));
        await rename(fixture.workspace.at('copy.csv'), fixture.workspace.at('out.csv'));
      },
    ],
    [
      'changed',
      async () => {
        const text = await fixture.workspace.read('out.csv');
        await truncate(fixture.workspace.at('out.csv'), text.length - 20);
      },
    ],
  ];

  test.each(kind === 'redis' ? spoilers : spoilers.slice(0, 1))(
    'an output that is %s while the run goes on ends it, and nothing is lost or paid twice',
    async (how, spoil) => {
      const { workspace, simulator } = fixture;
      const manifest = await workspace.write('m.csv', manifestOf(30));
      const running = fixture.runAnyhow({ manifest, limits: { ...FAST, rate } });
      await waitUntil(
        'some rows are there',
        async () => (await fixture.ids('out.csv').catch(() => [])).length > 2,
      );
      await spoil();
      const { exitCode, stop, receipt } = await running;
      expect([exitCode, stop?.kind]).toEqual([1, 'fatal']);
      expect(stop?.reason).toMatch(
        new RegExp(`^the output .*out\\.csv was ${how} while the run goes on; [^\\n]*$`),
      );
      expect(receipt.resumed).toBeGreaterThanOrEqual(0);
      expect(await waitingResults(receipt.run)).toBeGreaterThan(0);
      const next = await fixture.run({ manifest });
      expect([next.exitCode, next.receipt.remaining]).toEqual([0, 0]);
      expect(await fixture.ids('out.csv')).toHaveLength(30);
      // The queue still has the prompts of rows that were deleted with the file.
      expect(simulator.stats().paid).toBe(30);
    },
  );

  // What follows is about files alone, whatever the queue is kept in.
  if (kind === 'embedded') return;

  test('an output that cannot be counted any more still ends with an account of what was paid', async () => {
    const { workspace, simulator } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(30));
    const { exitCode, receipt, differences } = await fixture.runAnyhow({
      manifest,
      onEvent: ({ type }) => {
        if (type === 'opened') appendFileSync(workspace.at('out.csv'), 'no,row,of,ours\n');
      },
    });
    expect([exitCode, receipt.balanced]).toEqual([1, false]);
    expect(differences).toEqual([
      expect.stringMatching(/^the files cannot be counted: the output .*out\.csv/),
    ]);
    expect(receipt.submits).toBe(simulator.stats().submits);
    const { described, failed, remaining } = receipt;
    expect(described + failed + remaining).toBe(receipt.rows);
  });

  /** The command line where no file may grow beyond 4 KiB: to a program that is a full disk. */
  function runOnFullDisk(args: readonly string[]) {
    const child = spawn('sh', ['-c', 'ulimit -f 8; exec "$@"', 'sh', process.execPath, MAIN, ...args], {
      cwd: fixture.workspace.path,
      env: { ...ENV, HOME: fixture.workspace.path },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let text = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    }
    return new Promise<{ code: number | null; text: string }>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code) => resolve({ code, text }));
    });
  }

  const args = () => [
    'run',
    'm.csv',
    '-o',
    'out.csv',
    '--api',
    fixture.simulator.url,
    '--queue',
    fixture.queue.url,
  ];

  test('that is full ends the run with one line and exit 1; the next run writes the rows without paying again', async () => {
    const { workspace, simulator } = fixture;
    await workspace.write('m.csv', manifestOf(40));
    const end = await runOnFullDisk([...args(), ...FAST_FLAGS]);
    expect(end.code).toBe(1);
    const line =
      /^stopped {3}the file has reached the largest size allowed \(EFBIG\): the output .*out\.csv cannot be written; what it held before is kept, run the same command again when that is solved$/m;
    expect(end.text).toMatch(line);
    expect(end.text).not.toMatch(/\n\s+at |defect|does not balance/);
    const held = await workspace.records('out.csv');
    expect(held.length).toBeLessThan(40);
    expect(await waitingResults(await runId())).toBeGreaterThan(0);

    const again = await runCli([...args(), ...FAST_FLAGS], { cwd: workspace.path, env: ENV });
    expect([again.code, again.stdout]).toEqual([0, expect.stringMatching(/^40 rows: /)]);
    expect(await fixture.ids('out.csv')).toHaveLength(40);
    expect(simulator.stats().paid).toBe(40);
  });

  test('that is full for failures ends the run likewise, and keeps what was failed before', async () => {
    const { workspace, simulator } = fixture;
    await workspace.write('m.csv', manifestOf(3));
    simulator.setOptions({ failures: { reject: 1 } });
    await runCli([...args(), ...FAST_FLAGS], { cwd: workspace.path, env: ENV });
    await workspace.write('m.csv', manifestOf(60));
    const end = await runOnFullDisk([...args(), ...FAST_FLAGS, '--stop-failing', '100']);
    expect(end.code).toBe(1);
    expect(end.text).toMatch(/^stopped .*EFBIG.*: the failures file .* cannot be written/m);
    expect(end.text).not.toMatch(/\n\s+at |defect|does not balance/);
    expect((await workspace.records('out.failed.csv')).length).toBeGreaterThanOrEqual(3);
    const next = await fixture.run({ manifest: workspace.at('m.csv'), stopFailing: 100 });
    expect(next.receipt).toMatchObject({ failed: 60, remaining: 0 });
    await fixture.expectRows(
      [],
      Array.from({ length: 60 }, (_, index) => String(index + 1)),
    );
  });

  test('that takes no new files is said in one line before anything is paid', async () => {
    await fixture.workspace.write('m.csv', manifestOf(1));
    const where = ['run', 'm.csv', '-o', '/proc/out.csv', '--api', fixture.simulator.url];
    const end = await runCli([...where, '--queue', fixture.queue.url], {
      cwd: fixture.workspace.path,
      env: ENV,
    });
    expect([end.code, end.stdout]).toEqual([1, '']);
    expect(end.stderr).toMatch(/^bulk-describe: .*\/proc\/out\.csv.*\n$/);
    expect(fixture.simulator.stats().submits).toBe(0);
  });

  test('may be left for another folder: output, failures and run file move together', async () => {
    const { workspace, simulator } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(6));
    simulator.setOptions({ failures: { incomplete: 1 } });
    await fixture.run({ manifest, limit: 2, attempts: 1 });
    simulator.setOptions({ failures: {} });
    const first = await fixture.run({ manifest, limit: 2, attempts: 1 });
    await mkdir(workspace.at('elsewhere'));
    for (const name of ['out.csv', 'out.csv.run', 'out.failed.csv']) {
      await rename(workspace.at(name), workspace.at(`elsewhere/${name}`)).catch(() => undefined);
    }
    const moved = await fixture.run({ manifest, output: workspace.at('elsewhere/out.csv') });
    expect(moved.receipt).toMatchObject({
      run: first.receipt.run,
      resumed: first.receipt.described,
      remaining: 0,
    });
    expect(await fixture.ids('out.csv')).toEqual([]);
    expect(await workspace.records('elsewhere/out.csv')).toHaveLength(6);
  });

  describe('and the receipt: it', () => {
    // One row is described at once; the other one fails a second later, and the output is not appended to again.
    const TWO = 'id,image\n1,http://h.test/1.jpg\n2,http://h.test/2.jpg\n';

    /** Does something to the files after the last row was written, before the run counts them. */
    async function runSpoilt(spoil: () => Promise<void>) {
      const { workspace, simulator } = fixture;
      const manifest = await workspace.write('m.csv', TWO);
      const running = fixture.runAnyhow({ manifest, deadlineMs: 1000, limits: { ...FAST, maxInFlight: 1 } });
      await waitUntil('the first is in flight', () => simulator.stats().paid === 1);
      simulator.setOptions({ failures: { never: 1 } });
      await waitUntil(
        'the first is written',
        async () => (await fixture.ids('out.csv').catch(() => [])).length === 1,
      );
      await waitUntil('the second is in flight', () => simulator.stats().paid === 2);
      await spoil();
      return running;
    }

    test('balances when nobody meddles', async () => {
      const { receipt, differences, exitCode } = await runSpoilt(() => Promise.resolve());
      expect(receipt).toMatchObject({ described: 1, failed: 1, balanced: true });
      expect([differences, exitCode]).toEqual([[], 2]);
    });

    test.each<[string, () => Promise<void>, RegExp]>([
      [
        'a row is there twice',
        async () => {
          const text = await fixture.workspace.read('out.csv');
          await appendFile(fixture.workspace.at('out.csv'), text.slice(text.indexOf('\n') + 1));
        },
        /^the output has 2 rows, not 1 \(0 before, 1 written\)$/,
      ],
      [
        'a row is gone',
        async () => {
          const [header = ''] = (await fixture.workspace.read('out.csv')).split('\n');
          await truncate(fixture.workspace.at('out.csv'), header.length + 1);
        },
        /^the output has 0 rows, not 1 \(0 before, 1 written\); 0 rows of the manifest are in the output, not 1; 1 rows are neither described nor failed$/,
      ],
      [
        'a row has become another one',
        async () => {
          const text = await fixture.workspace.read('out.csv');
          await fixture.workspace.write('out.csv', text.replace('/1.jpg', '/3.jpg'));
        },
        /^0 rows of the manifest are in the output, not 1; 1 rows are neither described nor failed$/,
      ],
      [
        'the manifest has lost a row',
        async () => {
          await fixture.workspace.write('m.csv', TWO.split('\n').slice(0, 2).join('\n'));
        },
        /^2 rows were read, the manifest has 1 now; /,
      ],
    ])('does not balance when %s: exit 1, with the numbers', async (_title, spoil, differences) => {
      const ended = await runSpoilt(spoil);
      expect([ended.exitCode, ended.receipt.balanced]).toEqual([1, false]);
      expect(ended.differences.join('; ')).toMatch(differences);
      expect(receiptLines(ended, 'again')).toContain(
        `the receipt does not balance: ${ended.differences.join('; ')}`,
      );
    });

    test('takes rows that the manifest has lost for extra ones, duplicates too, and still balances', async () => {
      const { workspace } = fixture;
      const manifest = await workspace.write('m.csv', `${TWO}3,http://h.test/1.jpg\n4,http://h.test/4.jpg\n`);
      await fixture.run({ manifest });
      await workspace.write('m.csv', TWO);
      const { receipt, exitCode } = await fixture.run({ manifest });
      expect(receipt).toMatchObject({ rows: 2, resumed: 2, extra: 2, twice: 1, balanced: true });
      expect(exitCode).toBe(0);
      expect(await verifyOutput({ manifest, output: workspace.at('out.csv') })).toMatchObject({
        described: 2,
        extra: 1,
        twice: 1,
      });
    });

    test('of an output that a spreadsheet has saved in another encoding is refused, by a run before it pays or appends', async () => {
      const { workspace, simulator } = fixture;
      const text = 'image,title\nhttp://h.test/1.jpg,Küche\n';
      const manifest = await workspace.write('m.csv', text);
      await fixture.run({ manifest });
      const recoded = Buffer.from(await workspace.read('out.csv'), 'latin1');
      await workspace.write('out.csv', recoded);
      await workspace.write('m.csv', `${text}http://h.test/2.jpg,Keller\n`);
      const words = /out\.csv has bytes that are not UTF-8 in the record at line 2 \(has a spreadsheet/;
      await expect(fixture.run({ manifest })).rejects.toThrow(words);
      await expect(verifyOutput({ manifest, output: workspace.at('out.csv') })).rejects.toThrow(words);
      expect(simulator.stats().paid).toBe(1);
      expect(await readFile(workspace.at('out.csv'))).toEqual(recoded);
    });

    test('can be had from the files at any time: while a run goes on, and after it', async () => {
      const { workspace } = fixture;
      const manifest = await workspace.write('m.csv', manifestOf(20));
      const running = fixture.run({ manifest, limits: { ...FAST, rate: { count: 10, perMs: 1000 } } });
      await waitUntil(
        'some rows are there',
        async () => (await fixture.ids('out.csv').catch(() => [])).length > 2,
      );
      const during = await verifyOutput({ manifest, output: workspace.at('out.csv') });
      expect(during.described).toBeGreaterThan(2);
      expect(during).toMatchObject({
        rows: 20,
        failed: 0,
        missing: 20 - during.described,
        extra: 0,
        twice: 0,
      });
      await running;
      const cli = await runCli(['verify', manifest, workspace.at('out.csv')], { cwd: workspace.path });
      expect([cli.code, await readFile(manifest, 'utf8')]).toEqual([0, manifestOf(20)]);
    });
  });
});
