import { Redis } from 'ioredis';
import { expect, onTestFinished, test } from 'vitest';
import { startDashboard } from '../../src/dashboard/dashboard.js';
import { addSchedule } from '../../src/service/schedules.js';
import type { CliEnd } from '../helpers/cli.js';
import { type Monitor, startMonitor } from '../helpers/monitor.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { LIMITS, ProcessFixture } from './process-fixture.js';

/** Each night begins with servers, runs and a monitor as it finds them, and is looked at from everywhere. */
describeOnRedis('a night that fails', (openQueue) => {
  const fixture = ProcessFixture.forSuite(openQueue);

  const check = () => fixture.command('status', '--check');
  const paths = ({ pings }: Monitor) => pings.map(([path]) => path);

  async function addNightly(): Promise<void> {
    const request = { manifest: 'm.csv', output: 'out.csv' };
    const connection = await fixture.queue.connect();
    await addSchedule(connection, { name: 'nightly', cron: '0 2 1 1 *', timeZone: 'UTC', request });
  }

  async function runNightly(): Promise<void> {
    const { code, stderr } = await fixture.command('schedule', 'run', 'nightly');
    expect([code, stderr]).toEqual([0, '']);
  }

  /** By `status --check`, the page of runs, and the metric. @param line as it is on the command line */
  async function expectNoticed(kind: string, line: RegExp): Promise<void> {
    let said: CliEnd | undefined;
    await waitUntil('it is noticed', async () => {
      said = await check();
      return said.code === 2 && line.test(said.stdout);
    }).catch((error: unknown) => {
      throw new Error(`status --check said: ${JSON.stringify(said)}`, { cause: error });
    });
    const [noticed = ''] = line.exec(said?.stdout ?? '') ?? [];
    const words = /(?:TROUBLE|PAUSED): ([\w ]+\w)/.exec(noticed)?.[1]?.replace(/ since .*/, '') ?? 'none';
    const dashboard = await startDashboard(await fixture.queue.connect({ isReader: true }), { port: 0 });
    try {
      const page = await (await fetch(`${dashboard.url}/runs`)).text();
      expect(page.slice(page.indexOf('<main>'))).toMatch(new RegExp(`<p class="note"[^>]*>[^<]*: ${words}`));
      const metrics = await (await fetch(`${dashboard.url}/metrics`)).text();
      expect(metrics).toMatch(new RegExp(`^bulk_describe_troubles\\{kind="${kind}"\\} [1-9]`, 'm'));
    } finally {
      await dashboard.close();
    }
  }

  async function expectWell(): Promise<void> {
    await waitUntil('all is well', async () => {
      const { code, stdout } = await check();
      return code === 0 && /^ok: \d+ runs?, \d+ workers?, \d+ servers?, redis:\S+\n$/.test(stdout);
    });
  }

  test('since no server was there: nobody pings; the server that comes makes up for it', async () => {
    const monitor = await startMonitor();
    await fixture.workspace.write('m.csv', manifestOf(2));
    await addNightly();
    await expectWell();
    const connection = await fixture.queue.connect();
    const request = { manifest: 'm.csv', output: 'out.csv' };
    await addSchedule(connection, { name: 'nightly', cron: '*/30 * * * * *', timeZone: 'UTC', request });
    await expectNoticed(
      'overdue',
      /^TROUBLE: schedule overdue since .* \(no server is running: .*\), nightly$/m,
    );
    expect(monitor.pings).toEqual([]);
    await fixture.serve('--work', '--ping', `${monitor.url}/{schedule}?create=1`);
    await waitUntil('it is made up for', () => monitor.pings.length >= 2);
    expect(paths(monitor).slice(0, 2)).toEqual(['/nightly/start?create=1', '/nightly?create=1']);
    expect(monitor.pings[1]?.[1]).toMatch(/out\.csv: 2 described$/);
    await expectWell();
  });

  test('since no worker is there: it has begun, and no end is pinged', async () => {
    const monitor = await startMonitor();
    await fixture.workspace.write('m.csv', manifestOf(2));
    await fixture.serve('--ping', monitor.url);
    expect((await fixture.command('enqueue', 'm.csv')).code).toBe(0);
    await expectNoticed('no-worker', /^PAUSED: no worker: start one with `bulk-describe worker`, 127\S+$/m);
    expect(paths(monitor)).toEqual(['/start']);
    await fixture.work();
    await waitUntil('it has ended', () => monitor.pings.length === 2);
    await expectWell();
  });

  test('since the token is refused: exit code 3 is pinged, and the account is paused', async () => {
    const monitor = await startMonitor();
    fixture.simulator.setOptions({ token: 'another' });
    await fixture.workspace.write('m.csv', manifestOf(2));
    await fixture.serve('--work', '--ping', monitor.url);
    expect((await fixture.command('enqueue', 'm.csv')).code).toBe(0);
    await waitUntil('its end is pinged', () => monitor.pings.length === 2);
    expect(paths(monitor)).toEqual(['/start', '/3']);
    expect(monitor.pings[1]?.[1]).toMatch(/: 0 described, 2 remaining: .*401/);
    await expectNoticed('token', /^PAUSED: token refused since [\d:]+ \(401 .*\), 127\S+$/m);
  });

  test('since Redis is full: no end is pinged until it is not', async () => {
    const monitor = await startMonitor();
    const redis = new Redis(fixture.queue.url);
    onTestFinished(async () => {
      await redis.config('SET', 'maxmemory', '0');
      await redis.config('SET', 'maxmemory-policy', 'noeviction');
      redis.disconnect();
    });
    fixture.simulator.setOptions({ latencyMs: 1000 });
    await fixture.workspace.write('m.csv', manifestOf(2));
    await fixture.serve('--work', '--ping', monitor.url);
    expect((await fixture.command('enqueue', 'm.csv')).code).toBe(0);
    await redis.config('SET', 'maxmemory', '1');
    await expectNoticed('queue', /^TROUBLE: Redis is out of memory \(raise maxmemory\), redis:\S+$/m);
    expect(paths(monitor)).toEqual(['/start']);
    await redis.config('SET', 'maxmemory', '0');
    await waitUntil('it has ended', () => monitor.pings.length === 2);
    expect(paths(monitor)).toEqual(['/start', '']);
    await expectWell();
    await redis.config('SET', 'maxmemory-policy', 'allkeys-lru');
    await expectNoticed('queue', /^TROUBLE: Redis evicts keys when it is full, .* it has .* allkeys-lru/m);
  });

  test('since its coordinator was killed: it has begun, and no end is pinged', async () => {
    const monitor = await startMonitor();
    fixture.simulator.setOptions({ latencyMs: 60_000 });
    await fixture.workspace.write('m.csv', manifestOf(2));
    const run = fixture.service.start('run', ['m.csv', ...LIMITS], { BULK_DESCRIBE_PING: monitor.url });
    await waitUntil('it has begun', () => monitor.pings.length === 1);
    await waitUntil('it is known of', async () => (await check()).stdout.startsWith('ok: 1 run, 1 worker'));
    run.child.kill('SIGKILL');
    await run.ended;
    await expectNoticed(
      'silent',
      /^TROUBLE: run silent since [\d:]+ \(the same command resumes it\), m\.prompts\.csv$/m,
    );
    expect(paths(monitor)).toEqual(['/start']);
  });

  test('since a row of it has failed: exit code 2 is pinged, and holds until the next run', async () => {
    const monitor = await startMonitor();
    await fixture.workspace.write('m.csv', `${manifestOf(2)}3,nowhere\n`);
    await addNightly();
    await fixture.serve('--work', '--ping', `${monitor.url}/{schedule}`);
    await runNightly();
    await expectNoticed(
      'failed',
      /^TROUBLE: schedule failed with exit code 2 since .* \(2 described, 1 failed\), nightly$/m,
    );
    await waitUntil('its end is pinged', () => monitor.pings.length === 2);
    expect(paths(monitor)).toEqual(['/nightly/start', '/nightly/2']);
    // One that nobody has scheduled has no check.
    expect((await fixture.command('enqueue', 'm.csv', '-o', 'other.csv', '--limit', '1')).code).toBe(0);
    await fixture.workspace.write('m.csv', manifestOf(2));
    await runNightly();
    await waitUntil('the next one is pinged', () => monitor.pings.length === 4);
    expect(paths(monitor).slice(2)).toEqual(['/nightly/start', '/nightly']);
    await expectWell();
  });

  test('--check looks at the whole queue once, and a queue that does not answer is exit code 1', async () => {
    const refused = await fixture.command('status', 'm.csv', '--check');
    expect([refused.code, refused.stderr]).toEqual([
      1,
      expect.stringMatching(/^bulk-describe: --check looks once/),
    ]);
    const away = await fixture.command('status', '--check', '--queue', 'redis://127.0.0.1:1');
    expect([away.code, away.stdout]).toEqual([1, '']);
    const { code, stdout } = await fixture.command('status', '--check', '--json');
    expect([code, JSON.parse(stdout)]).toMatchObject([0, { troubles: [] }]);
  });
});
