import { mkdir, readdir, symlink } from 'node:fs/promises';
import { beforeEach, expect, test } from 'vitest';
import { RUNS } from '../../src/shared/published.js';
import { hasCoordinator } from '../../src/shared/run-leases.js';
import { allIds } from '../reliability/run-process.js';
import { Clock, fakeTimeLibrary } from '../helpers/clock.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { LIMITS, ProcessFixture } from './process-fixture.js';
import { untilSaid } from './service.js';

describeOnRedis('a server as a process', (openQueue) => {
  const fixture = ProcessFixture.forSuite(openQueue, { latencyMs: 300 });
  beforeEach(async () => {
    await mkdir(fixture.workspace.at('data'));
    await fixture.workspace.write('data/m.csv', manifestOf(40));
  });

  const serve = (...args: string[]) => fixture.serve('--root', 'data', ...args);
  const command = (...args: string[]) => fixture.command(...args);
  const ids = (name = 'data/out.csv') => fixture.ids(name);

  test('describes what is enqueued, and exits 0 when it is told to stop', async () => {
    const server = await serve('--work');
    const end = await command('enqueue', 'm.csv', '-o', 'out.csv');
    expect([end.code, end.stderr]).toEqual([0, '']);
    expect(end.stdout).toMatch(
      /^run {7}[a-z][a-z0-9]{11}\nmanifest .*\/data\/m\.csv\noutput .*\/data\/out\.csv\n/,
    );
    await untilSaid(server, /has ended with exit code 0: 40 described/);
    expect(await ids()).toEqual(allIds(40));
    server.child.kill('SIGTERM');
    expect(await server.ended).toMatchObject({ code: 0, signal: null });
    expect(server.stderr()).not.toMatch(/defect|unhandled/i);
  });

  test.each(['SIGTERM', 'SIGKILL'] as const)(
    'a run goes on after %s and a restart, and is paid for once',
    async (signal) => {
      await fixture.work();
      const server = await serve();
      expect((await command('enqueue', 'm.csv', '-o', 'out.csv')).code).toBe(0);
      await waitUntil('some are described', async () => (await ids()).length > 4);
      server.child.kill(signal);
      expect(await server.ended).toMatchObject(signal === 'SIGTERM' ? { code: 0 } : { signal });
      expect((await ids()).length).toBeLessThan(40);
      const next = await serve();
      await untilSaid(next, /has ended with exit code 0/);
      expect(await ids()).toEqual(allIds(40));
      expect(fixture.simulator.stats().paid).toBe(40);
    },
  );

  test('refuses a second run on one output, and whatever leads out of its folder', async () => {
    await serve();
    await fixture.workspace.write('secret.csv', manifestOf(1));
    await symlink('../secret.csv', fixture.workspace.at('data/link.csv'));
    expect((await command('enqueue', 'm.csv', '-o', 'out.csv')).code).toBe(0);
    const second = await command('enqueue', 'm.csv', '-o', 'out.csv');
    expect([second.code, second.stdout]).toEqual([5, '']);
    expect(second.stderr).toMatch(/^bulk-describe: this process already has the output .*\n$/);
    // As would a `run` on the same machine.
    const run = await command(
      'run',
      'data/m.csv',
      '-o',
      'data/out.csv',
      '--no-work',
      '--api',
      fixture.simulator.url,
    );
    expect([run.code, run.stdout]).toEqual([5, '']);
    for (const args of [['../secret.csv'], ['link.csv'], ['m.csv', '-o', '../out.csv']]) {
      const refused = await command('enqueue', ...args);
      expect(refused.code).toBe(1);
      expect(refused.stderr).toMatch(/^bulk-describe: .* leads out of the server's folder .*\n$/);
    }
  });

  test('cancels and retries runs, by path and id, with one line for what cannot be', async () => {
    const none = await command('enqueue', 'm.csv');
    expect([none.code, none.stderr]).toEqual([
      1,
      expect.stringMatching(/^bulk-describe: no server is running/),
    ]);
    const server = await serve('--work');
    expect((await command('status')).stdout).toMatch(
      /^servers\n .* pid \d+, since .*, files below .*data, idle$/m,
    );
    fixture.simulator.setOptions({ latencyMs: 1500 });
    await command('enqueue', 'm.csv', '-o', 'out.csv');
    await waitUntil('some are in flight', () => fixture.simulator.stats().paid > 2);
    const cancelled = await command('cancel', 'data/out.csv');
    expect([cancelled.code, cancelled.stderr]).toEqual([0, '']);
    await untilSaid(server, /has ended with exit code 130/);
    expect((await ids()).length).toBe(fixture.simulator.stats().paid);
    const again = await command('cancel', 'out.csv');
    expect([again.code, again.stderr]).toEqual([
      1,
      expect.stringMatching(/has ended with exit code 130: nothing/),
    ]);
    expect((await command('cancel', 'nothing.csv')).stderr).toMatch(
      /^bulk-describe: no run nothing\.csv .*\n$/,
    );
    fixture.simulator.setOptions({ latencyMs: 30 });
    const retried = await command('retry', 'out.csv');
    expect([retried.code, retried.stderr]).toEqual([0, '']);
    await untilSaid(server, /has ended with exit code 0/);
    // Nothing has failed; the command itself goes on with what was left.
    expect((await ids()).length).toBe(fixture.simulator.stats().paid);
    expect((await command('enqueue', 'm.csv', '-o', 'out.csv')).code).toBe(0);
    await waitUntil('the rest is there', async () => (await ids()).length === 40);
    expect(await ids()).toEqual(allIds(40));
    expect(fixture.simulator.stats().paid).toBe(40);
  });

  test('cancels a plain run, and marks it for its next start', async () => {
    fixture.simulator.setOptions({ latencyMs: 1500 });
    const run = fixture.service.start('run', ['data/m.csv', '-o', 'data/out.csv', ...LIMITS]);
    await waitUntil('some are in flight', () => fixture.simulator.stats().paid > 2);
    expect((await command('cancel', 'data/out.csv')).code).toBe(0);
    expect(await run.ended).toMatchObject({ code: 130 });
    const marked = await command('retry', 'data/out.csv');
    expect([marked.code, marked.stdout]).toEqual([
      0,
      expect.stringMatching(/bulk-describe run .*m\.csv -o /),
    ]);
  });

  test('a run that is frozen while it is cancelled pays for nothing more when it wakes, and loses no row', async () => {
    const connection = await fixture.queue.connect();
    const limits = ['--rate', '5/s', '--poll-rate', '500/s', '--max-in-flight', '5'];
    const run = fixture.service.start('run', ['data/m.csv', '-o', 'data/out.csv', ...limits]);
    await waitUntil('some are described', async () => (await ids()).length > 2);
    run.child.kill('SIGSTOP');
    const [status] = await RUNS.list(connection.store);
    const isLeased = () => hasCoordinator(connection.store, status?.run ?? '');
    await waitUntil('its lease is over', async () => !(await isLeased()), 30_000);
    expect((await command('cancel', 'data/out.csv')).stdout).toMatch(/its coordinator is gone/);
    const { paid } = fixture.simulator.stats();
    run.child.kill('SIGCONT');
    const end = await run.ended;
    expect([end.code, end.stdout]).toEqual([130, expect.stringContaining('cancelled')]);
    // One may have had its permit when it was frozen.
    expect(fixture.simulator.stats().paid).toBeLessThanOrEqual(paid + 1);
    expect(await readdir(fixture.workspace.at('data'))).not.toContain('out.failed.csv');
  });

  test.skipIf(fakeTimeLibrary === undefined)('cancels a run whose clock is a minute behind', async () => {
    const run = fixture.service.start('run', ['data/m.csv', '-o', 'data/out.csv', '--rate', '1/s']);
    await waitUntil('some are in flight', () => fixture.simulator.stats().paid > 2);
    const clock = new Clock(fixture.workspace.at('clock'));
    clock.jump(60);
    const cancelling = fixture.service.start('cancel', ['data/out.csv'], clock.env);
    expect(await cancelling.ended).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('nothing more is submitted') as unknown,
    });
    expect(await run.ended).toMatchObject({ code: 130 });
  });

  test('cancel clears up after a server that has died, where no other is left', async () => {
    const server = await serve();
    expect((await command('enqueue', 'm.csv', '-o', 'other.csv')).code).toBe(0);
    server.child.kill('SIGKILL');
    await server.ended;
    const cancelled = await command('cancel', 'data/other.csv');
    expect([cancelled.code, cancelled.stderr]).toEqual([0, '']);
    expect(cancelled.stdout).toMatch(/left the queue|is out of the queue/);
  });
});
