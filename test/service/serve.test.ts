import { mkdir, symlink } from 'node:fs/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { z } from 'zod';
import { type Simulator, startSimulator } from '../../src/simulator/simulator.js';
import { allIds } from '../reliability/run-process.js';
import { type CliProcess, runCli } from '../helpers/cli.js';
import { type QueueFixture, describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { Service, untilSaid } from './service.js';

const receiptSchema = z.object({ described: z.number(), remaining: z.number(), balanced: z.boolean() });
const LIMITS = ['--rate', '200/s', '--poll-rate', '500/s', '--max-in-flight', '5'];

describeOnRedis('a home as a process', (openQueue) => {
  let workspace: Workspace;
  let simulator: Simulator;
  let queue: QueueFixture;
  let service: Service;

  beforeEach(async () => {
    queue = await openQueue();
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 300 });
    service = new Service(workspace, queue.url, { DESCRIBE_API_URL: simulator.url });
    await mkdir(workspace.at('data'));
    await workspace.write('data/m.csv', manifestOf(40));
  });
  afterEach(async () => {
    await service.end();
    await simulator.close();
    await workspace.remove();
  });

  async function serve(...args: string[]): Promise<CliProcess> {
    const home = service.start('serve', ['--root', 'data', ...LIMITS, ...args]);
    await untilSaid(home, /takes runs from/);
    return home;
  }

  /** A command that ends by itself. */
  const command = (...args: string[]) => runCli(args, { cwd: workspace.path, env: { QUEUE_URL: queue.url } });

  const ids = async (name = 'data/out.csv') =>
    (await workspace.records(name).catch(() => []))
      .map((record) => Number(record['id']))
      .sort((a, b) => a - b);

  it('describes what is enqueued, tells --on-done, and exits 0 when it is told to stop', async () => {
    const home = await serve('--work', '--on-done', 'cat > "end-$BULK_DESCRIBE_EXIT.json"');
    const end = await command('enqueue', 'm.csv', '-o', 'out.csv');
    expect([end.code, end.stderr]).toEqual([0, '']);
    expect(end.stdout).toMatch(
      /^run {7}[a-z][a-z0-9]{11}\nmanifest .*\/data\/m\.csv\noutput .*\/data\/out\.csv\n/,
    );
    await untilSaid(home, /has ended with exit code 0: 40 described/);
    expect(await ids()).toEqual(allIds(40));
    await waitUntil(
      '--on-done has been called',
      async () => (await workspace.read('data/end-0.json').catch(() => '')) !== '',
    );
    const receipt = receiptSchema.parse(JSON.parse(await workspace.read('data/end-0.json')));
    expect(receipt).toEqual({ described: 40, remaining: 0, balanced: true });

    const refused = await command('enqueue', 'none.csv');
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/^bulk-describe: .*none\.csv cannot be opened: .*\n$/);
    await waitUntil(
      'it has been called again',
      async () => (await workspace.read('data/end-1.json').catch(() => '')) !== '',
    );
    const told: unknown = JSON.parse(await workspace.read('data/end-1.json'));
    expect(told).toHaveProperty('manifest', 'none.csv');
    expect(JSON.stringify(told)).toMatch(/"error":".*cannot be opened/);
    home.child.kill('SIGTERM');
    expect(await home.ended).toMatchObject({ code: 0, signal: null });
    expect(home.stderr()).not.toMatch(/defect|unhandled/i);
  });

  it.each(['SIGTERM', 'SIGKILL'] as const)(
    'a run goes on after %s and a restart, and is paid for once',
    async (signal) => {
      const worker = service.start('worker', LIMITS);
      await untilSaid(worker, /limits of the account/);
      const home = await serve();
      expect((await command('enqueue', 'm.csv', '-o', 'out.csv')).code).toBe(0);
      await waitUntil('some are described', async () => (await ids()).length > 4);
      home.child.kill(signal);
      expect(await home.ended).toMatchObject(signal === 'SIGTERM' ? { code: 0 } : { signal });
      expect((await ids()).length).toBeLessThan(40);
      const next = await serve();
      await untilSaid(next, /has ended with exit code 0/, 60_000);
      expect(await ids()).toEqual(allIds(40));
      expect(simulator.stats().paid).toBe(40);
    },
  );

  it('refuses a second run on one output, and whatever leads out of its folder', async () => {
    await serve();
    await workspace.write('secret.csv', manifestOf(1));
    await symlink('../secret.csv', workspace.at('data/link.csv'));
    expect((await command('enqueue', 'm.csv', '-o', 'out.csv')).code).toBe(0);
    const second = await command('enqueue', 'm.csv', '-o', 'out.csv');
    expect([second.code, second.stdout]).toEqual([5, '']);
    expect(second.stderr).toMatch(/^bulk-describe: this process already has the output .*\n$/);
    // As would a `run` on the same machine.
    const run = await command('run', 'data/m.csv', '-o', 'data/out.csv', '--no-work', '--api', simulator.url);
    expect([run.code, run.stdout]).toEqual([5, '']);
    for (const args of [['../secret.csv'], ['link.csv'], ['m.csv', '-o', '../out.csv']]) {
      const refused = await command('enqueue', ...args);
      expect(refused.code).toBe(1);
      expect(refused.stderr).toMatch(/^bulk-describe: .* leads out of the home's folder .*\n$/);
    }
  });

  it('cancels and retries runs, by path and id, with one line for what cannot be', async () => {
    const none = await command('enqueue', 'm.csv');
    expect([none.code, none.stderr]).toEqual([
      1,
      expect.stringMatching(/^bulk-describe: no home is running/),
    ]);
    const home = await serve('--work');
    expect((await command('status')).stdout).toMatch(
      /^homes\n .* pid \d+, since .*, files below .*data, idle$/m,
    );
    simulator.setOptions({ latencyMs: 1500 });
    await command('enqueue', 'm.csv', '-o', 'out.csv');
    await waitUntil('some are in flight', () => simulator.stats().paid > 2);
    const cancelled = await command('cancel', 'data/out.csv');
    expect([cancelled.code, cancelled.stderr]).toEqual([0, '']);
    await untilSaid(home, /has ended with exit code 130/);
    expect((await ids()).length).toBe(simulator.stats().paid);
    const again = await command('cancel', 'out.csv');
    expect([again.code, again.stderr]).toEqual([
      1,
      expect.stringMatching(/has ended with exit code 130: nothing/),
    ]);
    expect((await command('cancel', 'nothing.csv')).stderr).toMatch(
      /^bulk-describe: no run nothing\.csv .*\n$/,
    );
    simulator.setOptions({ latencyMs: 30 });
    const retried = await command('retry', 'out.csv');
    expect([retried.code, retried.stderr]).toEqual([0, '']);
    await untilSaid(home, /has ended with exit code 0/);
    expect(await ids()).toEqual(allIds(40));
    expect(simulator.stats().paid).toBe(40);
  });

  it('cancels a plain run, and marks it for its next start', async () => {
    simulator.setOptions({ latencyMs: 1500 });
    const run = service.start('run', ['data/m.csv', '-o', 'data/out.csv', ...LIMITS]);
    await waitUntil('some are in flight', () => simulator.stats().paid > 2);
    expect((await command('cancel', 'data/out.csv')).code).toBe(0);
    expect(await run.ended).toMatchObject({ code: 130 });
    const marked = await command('retry', 'data/out.csv');
    expect([marked.code, marked.stdout]).toEqual([
      0,
      expect.stringMatching(/bulk-describe run .*m\.csv -o /),
    ]);
  });

  it('cancel clears up after a home that has died, where no other is left', async () => {
    const home = await serve();
    expect((await command('enqueue', 'm.csv', '-o', 'other.csv')).code).toBe(0);
    home.child.kill('SIGKILL');
    await home.ended;
    const cancelled = await command('cancel', 'data/other.csv');
    expect([cancelled.code, cancelled.stderr]).toEqual([0, '']);
    expect(cancelled.stdout).toMatch(/left the queue|is out of the queue/);
  });
});
