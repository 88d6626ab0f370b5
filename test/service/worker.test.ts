import { expect, test } from 'vitest';
import { startRedis } from '../helpers/redis.js';
import { runCommand } from '../helpers/cli.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { health, untilSaid } from './service.js';
import { describeOnRedis } from '../helpers/queues.js';
import { ProcessFixture } from './process-fixture.js';

describeOnRedis('bulk-describe worker', (openQueue) => {
  const fixture = ProcessFixture.forSuite(openQueue);

  test('says first which limits hold over how many workers, and again when either changes', async () => {
    const first = fixture.service.start('worker', ['--rate', '7/s', '--max-in-flight', '3']);
    await untilSaid(first, /over 1 worker;/);
    expect(first.stderr().split('\n')[0]).toBe(
      'limits of the account: 7/s, 3 in flight, over 1 worker; more workers do not raise them',
    );
    const second = fixture.service.start('worker');
    await untilSaid(second, /^limits of the account: 7\/s, 3 in flight, over 2 workers;/);
    await untilSaid(first, /over 2 workers;/);
    const third = fixture.service.start('worker', ['--rate', '9/s']);
    await untilSaid(third, /^limits of the account: 9\/s, 3 in flight, over 3 workers;/);
    await untilSaid(third, /limits are now 9\/s.*were 7\/s/);
    await untilSaid(first, /^limits of the account: 9\/s, 3 in flight, over 3 workers;/m);
    third.child.kill('SIGTERM');
    expect((await third.ended).code).toBe(0);
    await untilSaid(first, /9\/s, 3 in flight, over 2 workers;.*$(?![\s\S]*over 3)/m);
  });

  test('works for a run that another process feeds, and hands its images to the others when it is told to stop', async () => {
    fixture.simulator.setOptions({ latencyMs: 1500, latencySpread: 0 });
    await fixture.workspace.write('m.csv', manifestOf(12));
    const limits = ['--rate', '200/s', '--poll-rate', '200/s', '--max-in-flight', '6'];
    const coordinator = fixture.service.start('run', [
      'm.csv',
      '-o',
      'out.csv',
      '--no-work',
      '--json',
      ...limits,
    ]);
    // A worker that is there before the limits goes on with its own for a second.
    await untilSaid(coordinator, /^to do /m);
    const first = fixture.service.start('worker');
    await waitUntil('six are in flight', () => fixture.simulator.stats().paid === 6);
    const second = fixture.service.start('worker');
    await untilSaid(second, /over 2 workers;/);
    first.child.kill('SIGTERM');
    expect((await first.ended).code).toBe(0);
    const end = await coordinator.ended;
    expect([end.code, end.stderr]).toEqual([0, expect.not.stringContaining('defect')]);
    expect(JSON.parse(end.stdout)).toMatchObject({ described: 12, submits: 12, maybePaidTwice: 0 });
    expect(fixture.simulator.stats().paid).toBe(12);
    second.child.kill('SIGINT');
    expect((await second.ended).code).toBe(0);
  });

  test('is ready while it takes images, not when the API refuses the token: it says so, and stays up', async () => {
    const worker = fixture.service.start('worker', ['--health-port', '0'], {
      DESCRIBE_API_TOKEN: 'secret-token',
    });
    await untilSaid(worker, /health at/);
    expect(await health(worker, 'healthz')).toMatchObject({ status: 200 });
    expect(await health(worker, 'readyz')).toEqual({ status: 200, body: '{"ready":true}\n' });
    fixture.simulator.setOptions({ token: 'another' });
    await fixture.workspace.write('m.csv', manifestOf(3));
    const coordinator = fixture.service.start('run', ['m.csv', '--no-work']);
    expect((await coordinator.ended).code).toBe(3);
    await untilSaid(worker, /the API refuses the token/);
    const ready = await health(worker, 'readyz');
    expect(ready.status).toBe(503);
    expect(ready.body).toContain('"ready":false,"reason":"the API refuses the token (401');
    expect(await health(worker, 'healthz')).toMatchObject({ status: 200 });
    expect(await health(worker, 'other')).toMatchObject({ status: 404 });
    expect(worker.stderr().match(/the API refuses/g)).toHaveLength(1);
    expect(worker.child.exitCode).toBe(null);
    expect(worker.stderr()).not.toContain('secret-token');
  });

  test('is not ready while Redis is away, says that it waits, and is ready when Redis is back', async () => {
    const own = await startRedis();
    const worker = fixture.service.start('worker', ['--health-port', '0', '--queue', own.url]);
    try {
      await untilSaid(worker, /health at/);
      await own.kill9();
      await untilSaid(worker, /waiting for the queue: Redis at .* does not answer/);
      expect(await health(worker, 'readyz')).toMatchObject({ status: 503 });
      expect(await health(worker, 'healthz')).toMatchObject({ status: 200 });
      await own.restart();
      await untilSaid(worker, /the queue is back/);
      await waitUntil('it is ready', async () => (await health(worker, 'readyz')).status === 200);
    } finally {
      worker.child.kill('SIGKILL');
      await own.stop();
    }
  });

  test('refuses on one line what cannot work', async () => {
    const refusal = async (args: string[], env: NodeJS.ProcessEnv) => {
      const end = await runCommand(['worker', ...args], { cwd: fixture.workspace.path, env });
      expect([end.code, end.stdout, end.stderr.split('\n').length]).toEqual([1, '', 2]);
      return end.stderr;
    };
    const env = { DESCRIBE_API_TOKEN: 'any' };
    expect(await refusal([], {})).toContain('no token: give one');
    expect(await refusal([], env)).toContain('worker needs a queue that several processes share');
    expect(await refusal(['m.csv'], env)).toContain('worker takes no argument: m.csv');
    expect(await refusal(['--health-port', '70000'], env)).toContain('--health-port 70000');
    expect(await refusal(['--health-host', '::1'], env)).toContain('needs --health-port');
    expect(await refusal(['--output', 'x'], env)).toContain('unknown flag --output');
  });
});
