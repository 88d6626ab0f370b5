import { readFile, stat } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { startCli } from '../helpers/cli.js';
import { describeOnBothQueues } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { RunFixture, FAST, FAST_FLAGS } from '../helpers/run-fixture.js';

const url = (number: number) => `http://images.test/${number}.jpg`;
/** Two rows that share an image, one alone. */
const SHARED = `id,image\n1,${url(1)}\n2,${url(1)}\n3,${url(3)}\n`;

describeOnBothQueues('failed rows', (openQueue, kind) => {
  const fixture = RunFixture.forSuite(openQueue);

  test('survive kill -9: those of the run under way and those of earlier ones', async () => {
    const { workspace, simulator, queue } = fixture;
    const manifest = await workspace.write('m.csv', `id,image\n1,${url(1)}\n2,${url(2)}\n`);
    simulator.setOptions({ failures: { reject: 1 } });
    await fixture.run({ manifest });
    await workspace.write(
      'm.csv',
      `id,image\n1,${url(1)}\n2,${url(2)}\n3,${url(3)}\n4,${url(4)}\n5,${url(5)}\n`,
    );
    const args = ['run', manifest, '-o', workspace.at('out.csv'), '--api', simulator.url];
    const cli = startCli([...args, '--queue', queue.url, '--rate', '2/s', '--no-progress'], {
      cwd: workspace.path,
      env: { DESCRIBE_API_TOKEN: 'any' },
    });
    await waitUntil('a new one has failed', async () =>
      (await workspace.read('out.failed.csv.partial').catch(() => '')).includes(url(3)),
    );
    cli.child.kill('SIGKILL');
    await cli.ended;
    const known = 3 + Number((await workspace.read('out.failed.csv.partial')).includes(url(4)));
    const submitsBefore = simulator.stats().submits;
    const { receipt } = await fixture.run({ manifest });
    expect(receipt).toMatchObject({ failed: 5, described: 0 });
    // The last one may have been killed between its row and its job's end; then it is asked for again.
    expect(simulator.stats().submits - submitsBefore).toBeLessThanOrEqual(5 - known + 1);
    await fixture.expectRows([], ['1', '2', '3', '4', '5']);
  });

  const boardCases = [
    ['id', 'reject'],
    [undefined, 'incomplete'],
  ] as const;
  test.each(kind === 'redis' ? boardCases : boardCases.slice(0, 1))(
    'put back on the board wait for the next start, which pays for them (key column: %s, %s)',
    async (keyColumn, failure) => {
      const { workspace, simulator } = fixture;
      const manifest = await workspace.write('m.csv', SHARED);
      simulator.setOptions({ failures: { [failure]: 1 } });
      const { receipt } = await fixture.run({ manifest, keyColumn, attempts: 1 });
      await fixture.expectRows([], ['1', '2', '3']);
      simulator.setOptions({ failures: {} });
      const submits = simulator.stats().submits;
      await fixture.atBoard(receipt.run, async ({ jobOf, withWorker }) => {
        await (await jobOf(url(1)))?.retry();
        await withWorker(async () => {
          await waitUntil('it is set aside', async () => (await jobOf(url(1)))?.isDelayed() ?? false);
        });
      });
      expect(simulator.stats().submits).toBe(submits);
      await fixture.expectRows([], ['1', '2', '3']);
      const next = await fixture.run({ manifest, keyColumn, attempts: 1, limit: 1 });
      expect(next.receipt).toMatchObject({ described: 1, copied: 1, failed: 1, submits: 1, reattached: 0 });
      expect(simulator.stats().submits - submits).toBe(1);
      await fixture.expectRows(['1', '2'], ['3']);
    },
  );

  test('that failed while no coordinator was there are tried again at once', async () => {
    const { workspace, simulator } = fixture;
    const manifest = await workspace.write('m.csv', SHARED);
    simulator.setOptions({ failures: { incomplete: 1 }, latencyMs: 600, latencySpread: 0 });
    const interrupt = new AbortController();
    const running = fixture.run({ manifest, attempts: 1, signal: interrupt.signal });
    await waitUntil('all are in flight', () => simulator.stats().paid === 2);
    interrupt.abort();
    const { receipt } = await running;
    expect(receipt).toMatchObject({ remaining: 3, failed: 0 });
    await fixture.atBoard(receipt.run, async ({ results, withWorker }) => {
      await withWorker(() =>
        waitUntil('both have failed', async () => (await results.getWaitingCount()) === 2),
      );
    });
    simulator.setOptions({ failures: {}, latencyMs: 30 });
    const next = await fixture.run({ manifest, attempts: 1 });
    expect(next.receipt).toMatchObject({ described: 2, copied: 1, failed: 0, submits: 2, reattached: 0 });
    await fixture.expectRows(['1', '2', '3'], []);
    await fixture.atBoard(receipt.run, async ({ results }) => {
      expect(await results.getJobCounts('waiting', 'active')).toEqual({ waiting: 0, active: 0 });
    });
  });

  // What follows is decided by the coordinator alone, whatever the queue is kept in.
  if (kind === 'embedded') return;

  test('prompts whose rows have left the manifest stay in the queue until the rows are back', async () => {
    const { workspace, simulator } = fixture;
    const manifest = await workspace.write('m.csv', SHARED);
    simulator.setOptions({ latencyMs: 600, latencySpread: 0 });
    const interrupt = new AbortController();
    const running = fixture.run({ manifest, signal: interrupt.signal });
    await waitUntil('all are in flight', () => simulator.stats().paid === 2);
    interrupt.abort();
    const { receipt } = await running;
    await fixture.atBoard(receipt.run, async ({ results, withWorker }) => {
      await withWorker(() =>
        waitUntil('both are described', async () => (await results.getWaitingCount()) === 2),
      );
    });
    await workspace.write('m.csv', `id,image\n3,${url(3)}\n`);
    expect((await fixture.run({ manifest })).receipt).toMatchObject({ described: 1, submits: 0 });
    await workspace.write('m.csv', SHARED);
    const back = await fixture.run({ manifest });
    expect(back.receipt).toMatchObject({ described: 1, copied: 1, resumed: 1, submits: 0 });
    expect(simulator.stats().paid).toBe(2);
  });

  test('are tried again by the same command, after the new ones and with all attempts', async () => {
    const { workspace, simulator } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(2));
    simulator.setOptions({ failures: { incomplete: 1 } });
    expect((await fixture.run({ manifest, attempts: 2 })).receipt).toMatchObject({ failed: 2, submits: 4 });
    const second = await fixture.run({ manifest, attempts: 2 });
    expect(second.receipt).toMatchObject({ failed: 2, submits: 4 });
    expect(await workspace.records('out.failed.csv')).toMatchObject([
      { error_code: 'incomplete', attempts: '2' },
      { error_code: 'incomplete', attempts: '2' },
    ]);
    simulator.setOptions({ failures: {} });
    await workspace.write('m.csv', `${manifestOf(2)}3,${url(3)}\n`);
    const third = await fixture.run({ manifest, attempts: 2 });
    expect(third.receipt).toMatchObject({ described: 3, failed: 0, submits: 3 });
    expect((await workspace.records('out.csv'))[0]?.['id']).toBe('3');
    await fixture.expectRows(['1', '2', '3'], []);
  });

  test('ask for their last message once before anything is paid again', async () => {
    const { workspace, simulator } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(2));
    simulator.setOptions({ latencyMs: 700, latencySpread: 0 });
    const late = await fixture.run({ manifest, deadlineMs: 300 });
    expect([...late.failedByCode]).toEqual([['deadline', 2]]);
    const ids = (await workspace.records('out.failed.csv')).map((record) => record['message_id']).sort();
    expect(ids.every((id) => id !== '')).toBe(true);
    const paidAt = Date.now();
    await waitUntil('the messages are completed', () => Date.now() - paidAt > 700);
    const { receipt } = await fixture.run({ manifest, deadlineMs: 300 });
    expect(receipt).toMatchObject({ described: 2, failed: 0, submits: 0, polls: 2 });
    expect((await workspace.records('out.csv')).map((record) => record['message_id']).sort()).toEqual(ids);
  });

  test.each([[undefined], ['id']])(
    'that are permanent wait for another URL (key column: %s)',
    async (keyColumn) => {
      const { workspace, simulator } = fixture;
      const bad = 'long,,surplus\n';
      const duplicate = keyColumn === undefined ? '' : `1,${url(9)}\n`;
      const manifest = await workspace.write(
        'm.csv',
        `id,image\n1,${url(1)}\n2,${url(2)}\n3,\n${bad}${duplicate}`,
      );
      simulator.setOptions({ failures: { reject: 1 } });
      const first = await fixture.run({ manifest, keyColumn });
      expect(first.failedByCode.get('rejected')).toBe(2);
      const rejects = simulator.stats().submits;
      simulator.setOptions({ failures: {} });
      const second = await fixture.run({ manifest, keyColumn });
      expect(second.preview).toMatchObject({ failedBefore: 2, toSubmit: 0 });
      expect(second.receipt).toMatchObject({ submits: 0, described: 0, failed: first.receipt.failed });
      expect(simulator.stats().submits).toBe(rejects);
      const changed = `id,image\n1,${url(11)}\n2,${url(2)}\n3,${url(3)}\n${bad}${duplicate}`;
      await workspace.write('m.csv', changed);
      const third = await fixture.run({ manifest, keyColumn });
      expect(third.preview).toMatchObject({ failedBefore: 1, toSubmit: 2 });
      expect(third.receipt).toMatchObject({ submits: 2, described: 2, failed: first.receipt.failed - 2 });
      const failures = await workspace.records('out.failed.csv');
      expect(failures.map((record) => record['error_code']).sort()).toEqual(
        keyColumn === undefined ? ['bad-record', 'rejected'] : ['bad-record', 'duplicate-key', 'rejected'],
      );
    },
  );

  test('are in a file that is whole at every moment, and replaced when the run ends', async () => {
    const { workspace, simulator } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(6));
    simulator.setOptions({ failures: { incomplete: 1 } });
    await fixture.run({ manifest, attempts: 1 });
    const before = await readFile(workspace.at('out.failed.csv'), 'utf8');
    const { ino } = await stat(workspace.at('out.failed.csv'));
    simulator.setOptions({ failures: { reject: 1 } });
    // One after the other: when they all fail at once, the run has ended before anybody can look.
    const running = fixture.run({ manifest, limits: { ...FAST, rate: { count: 5, perMs: 1000 } } });
    await waitUntil('some have failed again', async () =>
      (await workspace.files()).includes('out.failed.csv.partial'),
    );
    expect(await workspace.read('out.failed.csv')).toBe(before);
    await running;
    expect((await stat(workspace.at('out.failed.csv'))).ino).not.toBe(ino);
    expect((await workspace.records('out.failed.csv')).map((record) => record['error_code'])).toEqual(
      Array.from({ length: 6 }, () => 'rejected'),
    );
    expect(await workspace.files()).toEqual(['m.csv', 'out.csv', 'out.csv.run', 'out.failed.csv']);
  });

  test('leave the file when they are described or have left the manifest', async () => {
    const { workspace, simulator } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(4));
    simulator.setOptions({ failures: { reject: 1 } });
    await fixture.run({ manifest, keyColumn: 'id' });
    await fixture.expectRows([], ['1', '2', '3', '4']);
    simulator.setOptions({ failures: {} });
    await workspace.write('m.csv', `id,image\n1,${url(1)}\n2,${url(22)}\n`);
    await fixture.run({ manifest, keyColumn: 'id' });
    await fixture.expectRows(['2'], ['1']);
  });

  test('stay failed when a run is limited or interrupted before it comes to them', async () => {
    const { workspace, simulator } = fixture;
    const manifest = await workspace.write('m.csv', SHARED);
    simulator.setOptions({ failures: { incomplete: 1 } });
    await fixture.run({ manifest, attempts: 1 });
    simulator.setOptions({ failures: {}, latencyMs: 400 });
    await workspace.write('m.csv', `${SHARED}4,${url(4)}\n5,${url(5)}\n`);
    const limited = await fixture.run({ manifest, limit: 1 });
    expect(limited.receipt).toMatchObject({ described: 1, failed: 3, remaining: 1 });
    await fixture.expectRows(['4'], ['1', '2', '3']);

    const interrupt = new AbortController();
    const interrupted = fixture.run({ manifest, signal: interrupt.signal, limits: { maxInFlight: 1 } });
    await waitUntil('the new one is in flight', () => simulator.stats().paidByUrl.has(url(5)));
    interrupt.abort();
    expect((await interrupted).receipt).toMatchObject({ failed: 3 });
    await fixture.expectRows(await fixture.ids('out.csv'), ['1', '2', '3']);

    simulator.setOptions({ latencyMs: 30 });
    expect((await fixture.run({ manifest })).receipt).toMatchObject({ failed: 0, remaining: 0 });
    await fixture.expectRows(['1', '2', '3', '4', '5'], []);
    expect(simulator.stats().paidByUrl.get(url(5))).toBe(1);
  });

  test('taken up again while no worker is there are described by the next run', async () => {
    const { workspace, simulator } = fixture;
    const manifest = await workspace.write('m.csv', SHARED);
    simulator.setOptions({ failures: { reject: 1 } });
    const { receipt } = await fixture.run({ manifest });
    simulator.setOptions({ failures: {} });
    await fixture.atBoard(receipt.run, async ({ jobOf }) => {
      await (await jobOf(url(1)))?.retry();
    });
    expect((await fixture.run({ manifest })).receipt).toMatchObject({ described: 1, copied: 1, failed: 1 });
    await fixture.expectRows(['1', '2'], ['3']);
  });

  test('images whose rows have left the manifest are not paid for after kill -9', async () => {
    const { workspace, simulator, queue } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(30));
    const args = [
      'run',
      manifest,
      '-o',
      workspace.at('out.csv'),
      '--api',
      simulator.url,
      '--queue',
      queue.url,
    ];
    const cli = startCli([...args, ...FAST_FLAGS.slice(2), '--rate', '2/s', '--no-progress'], {
      cwd: workspace.path,
      env: { DESCRIBE_API_TOKEN: 'any' },
    });
    await waitUntil('one is described', async () => (await fixture.ids('out.csv')).length > 0);
    cli.child.kill('SIGKILL');
    await cli.ended;
    await workspace.write('m.csv', manifestOf(5));
    await fixture.run({ manifest, limits: FAST });
    expect(simulator.stats().paid).toBeLessThanOrEqual(6);
    expect(await fixture.ids('out.csv')).toEqual(['1', '2', '3', '4', '5']);
  });
});
