import { expect, test } from 'vitest';
import { viewWorkers } from '../../src/service/views.js';
import { ACCOUNTS, RUNS, type RunStatus, workersOf } from '../../src/shared/published.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { ProcessFixture } from './process-fixture.js';
import { untilSaid } from './service.js';

describeOnRedis('what nobody has any more', (openQueue) => {
  const fixture = ProcessFixture.forSuite(openQueue, { latencyMs: 1500 });

  const status = async (...args: string[]) => (await fixture.command('status', ...args)).stdout;

  /** The text of a run's page, and the samples of the runs by their states that are not 0. */
  const dashboard = async (run: string) => {
    const started = fixture.service.start('dashboard', ['--port', '0']);
    await waitUntil('the dashboard listens', () => started.stdout().includes('\n'));
    const read = async (path: string) => (await fetch(`${started.stdout().trim()}${path}`)).text();
    const page = (await read(`/runs/${run}`))
      .replace(/<style[^]*?<\/script>|<[^>]+>/g, ' ')
      .replace(/\s+/g, ' ');
    const states = /^bulk_describe_runs\{state="\w+"\} [^0]$/gm;
    const metrics = [...(await read('/metrics')).matchAll(states)].map(([line]) => line);
    started.child.kill('SIGKILL');
    return { page, metrics };
  };

  const expectCancelled = async (run: string) => {
    const { page, metrics } = await dashboard(run);
    expect(page).toContain(' cancelled ');
    expect(metrics).toEqual(['bulk_describe_runs{state="cancelled"} 1']);
  };

  const runOf = (text: string) => /^run +([a-z0-9]{12})$/m.exec(text)?.[1] ?? '';

  test('the run of a server that has died goes on when `serve` is started, and that is what people are told', async () => {
    await fixture.workspace.write('m.csv', manifestOf(12));
    const first = await fixture.serve('--work');
    const run = runOf((await fixture.command('enqueue', 'm.csv', '-o', 'out.csv')).stdout);
    await waitUntil('it is seen', async () => (await status(run)).includes('running on'));
    first.child.kill('SIGKILL');
    await first.ended;
    const remedy = 'no server is running: start `bulk-describe serve`, which goes on with it';
    expect(await status(run)).toMatch(
      /^state +silent for .*: its server \(.*\) has died or lost the queue; /m,
    );
    for (const text of [await status(), await status(run), (await dashboard(run)).page]) {
      expect(text).toContain(remedy);
      expect(text).not.toContain('same command');
    }
    expect(await status()).toContain('requests: 0 executing, 1 waiting for a server');

    const second = await fixture.serve('--work');
    await untilSaid(second, /has ended with exit code 0/);
    expect(await status(run)).toMatch(/^state +ended .* exit code 0$/m);
  });

  test('a run that was cancelled is cancelled everywhere, also when another server collects what is left', async () => {
    await fixture.workspace.write('m.csv', manifestOf(60));
    fixture.simulator.setOptions({ latencyMs: 12_000, latencySpread: 0 });
    const first = await fixture.serve('--work');
    const run = runOf((await fixture.command('enqueue', 'm.csv', '-o', 'out.csv')).stdout);
    await waitUntil('five are in flight', () => fixture.simulator.stats().paid === 5);
    expect((await fixture.command('cancel', run)).stdout).toMatch(/^cancelled: /);
    expect(await status(run)).toMatch(/^state +cancelled; what is in flight is finished on .*, pid \d+$/m);
    await expectCancelled(run);
    first.child.kill('SIGKILL');
    await first.ended;
    expect(await status(run)).toMatch(/^state +cancelled; silent for .* start `bulk-describe serve`/m);

    fixture.simulator.setOptions({ latencyMs: 50 });
    const paid = fixture.simulator.stats().paid;
    const second = await fixture.serve('--work');
    await untilSaid(second, /has ended with exit code 130: .* remaining: cancelled with/);
    expect(fixture.simulator.stats().paid).toBe(paid);
    expect(await status(run)).toMatch(/^state +cancelled .* ago, exit code 130$/m);
    await expectCancelled(run);
  });

  test('a run that was cancelled when its coordinator had died is cancelled everywhere', async () => {
    await fixture.workspace.write('m.csv', manifestOf(12));
    const run = fixture.service.start('run', ['m.csv']);
    await waitUntil('some are in flight', () => fixture.simulator.stats().paid > 2);
    run.child.kill('SIGKILL');
    await run.ended;
    expect(await status('m.prompts.csv')).toMatch(
      /^state +silent .*: its coordinator .*; the same command resumes it$/m,
    );
    await waitUntil(
      'its lease is over',
      async () => (await fixture.command('cancel', 'm.prompts.csv')).stdout.startsWith('cancelled: '),
      60_000,
    );
    const page = await status('m.prompts.csv');
    expect(page).toMatch(/^state +cancelled .* ago, exit code 130$/m);
    await expectCancelled(runOf(page.replace(/ at .*/, '')));
  });

  test('a worker of another machine that has died is not shown as working', async () => {
    const connection = await fixture.queue.connect();
    const { store } = connection;
    const queueName = 'describe@api.test@thenextleg@default';
    const worker = { host: 'elsewhere', pid: 7, state: 'working', reason: '', since: 0, share: 1 } as const;
    await ACCOUNTS.publish(store, queueName, { label: 'api.test@thenextleg@default', queueName });
    await workersOf(queueName).publish(store, 'w', worker);
    expect(await viewWorkers(store, queueName)).toEqual([worker]);
    await waitUntil('it is missed', async () => (await viewWorkers(store, queueName))[0]?.state === 'silent');
    expect(await status()).toMatch(
      /^ +elsewhere pid 7, silent, it has died, is frozen or has lost the queue$/m,
    );
    await connection.close();
  });

  test('a released run that waits names what helps where no server is left', async () => {
    const connection = await fixture.queue.connect();
    const run: RunStatus = {
      ...{
        run: 'abc',
        account: 'a',
        queueName: 'describe@a',
        manifest: '/m.csv',
        output: '/o.csv',
        host: 'h',
        pid: 1,
      },
      ...{ startedAt: 0, seenAt: 0, rows: 1, described: 0, resumed: 0, copied: 0, failed: 0, perSecond: 0 },
      ended: { exitCode: 130, remaining: 1, reason: 'interrupted' },
    };
    await RUNS.publish(connection.store, run.run, run);
    const job = await connection.queue('runs').add('run', { manifest: '/m.csv' });
    const counts = { rows: 1, described: 0, resumed: 0, copied: 0, failed: 0, inFlight: 0, perSecond: 0 };
    await job.updateProgress({
      state: 'opened',
      run: 'abc',
      manifest: '/m.csv',
      output: '/o.csv',
      ...counts,
    });
    expect(await status('abc')).toMatch(
      /^state +waits for a server .*; no server is running: start `bulk-describe serve`/m,
    );
    await connection.close();
  });
});
