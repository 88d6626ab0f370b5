import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { openQueue } from '../../src/shared/queue/connection.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { RUNS, type RunStatus } from '../../src/shared/published.js';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { type TestRedis, redisAvailable, startRedis } from '../helpers/redis.js';
import { FAST_FLAGS } from '../helpers/run-fixture.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { Service, untilSaid } from './service.js';

const statusSchema = z.looseObject({
  at: z.number(),
  queue: z.string(),
  runs: z.array(
    z.looseObject({
      run: z.string(),
      state: z.enum(['running', 'ended', 'silent', 'waiting']),
      output: z.string(),
      totalRows: z.number().optional(),
      described: z.number(),
      resumed: z.number(),
      failed: z.number(),
      failedByCode: z.record(z.string(), z.number()),
      inFlight: z.number(),
      waiting: z.number(),
      perSecond: z.number(),
      ended: z.looseObject({ exitCode: z.number(), remaining: z.number() }).optional(),
    }),
  ),
  accounts: z.array(
    z.looseObject({
      account: z.string(),
      rate: z.string(),
      learnedRate: z.string(),
      workers: z.array(z.looseObject({ pid: z.number(), state: z.string(), since: z.number() })),
      pauses: z.array(z.looseObject({ kind: z.string() })),
    }),
  ),
  requests: z.looseObject({ executing: z.number(), waiting: z.number() }),
});

describe.skipIf(!redisAvailable)('bulk-describe status', () => {
  let redis: TestRedis;
  let database = 0;
  let queue: string;
  let workspace: Workspace;
  let simulator: Simulator;
  let service: Service;

  beforeAll(async () => {
    redis = await startRedis();
  });
  afterAll(() => redis.stop());
  beforeEach(async () => {
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 50 });
    queue = `${redis.url}/${database++}`;
    service = new Service(workspace, queue, { DESCRIBE_API_URL: simulator.url });
  });
  afterEach(async () => {
    await service.end();
    await simulator.close();
    await workspace.remove();
  });

  async function status(...args: string[]): Promise<string> {
    const end = await service.start('status', args).ended;
    expect([end.code, end.stderr]).toEqual([0, '']);
    return end.stdout;
  }
  const statusJson = async () => statusSchema.parse(JSON.parse(await status('--json')));

  test('shows a plain run while it goes on and after it has ended, also by its path and id', async () => {
    expect(await status()).toContain('no runs in the last day');
    simulator.setOptions({ latencyMs: 400 });
    await workspace.write('m.csv', `${manifestOf(60)}61,\n`);
    const limits = ['--rate', '3/s', '--poll-rate', '200/s', '--max-in-flight', '5'];
    const run = service.start('run', ['m.csv', ...limits]);
    await waitUntil(
      'some rows are described',
      async () => ((await statusJson()).runs[0]?.described ?? 0) > 2,
    );
    const during = await statusJson();
    expect(during.runs).toMatchObject([{ state: 'running', totalRows: 61 }]);
    const [running] = during.runs;
    expect(running?.waiting).toBeGreaterThan(0);
    expect(running?.inFlight).toBeLessThanOrEqual(5);
    expect(during.accounts).toMatchObject([
      { rate: '3/s', learnedRate: '3/s', workers: [{ pid: run.child.pid, state: 'working' }], pauses: [] },
    ]);
    const lines = await status();
    expect(lines).toMatch(
      /m\.prompts\.csv\n +running on \S+, pid \d+\n +\d+\/61 rows, .*in flight.*at most 3\/s.*left/,
    );
    expect((await run.ended).code).toBe(2);

    const { runs } = await statusJson();
    const failedByCode = { 'invalid-url': 1 };
    expect(runs).toMatchObject([{ state: 'ended', described: 60, failedByCode, ended: { exitCode: 2 } }]);
    for (const name of [runs[0]?.run ?? '', 'm.prompts.csv', workspace.at('m.prompts.csv')]) {
      const page = await status(name);
      expect(page).toMatch(/^state +ended \d+ m?s ago, exit code 2$/m);
      expect(page).toMatch(/^failures +1 invalid-url$/m);
    }
    const unknown = await service.start('status', ['nobody.csv']).ended;
    expect([unknown.code, unknown.stdout]).toEqual([1, '']);
    expect(unknown.stderr).toMatch(/^bulk-describe: no run nobody\.csv in the last day.*\n$/);
  });

  test('counts the rows of the whole manifest, also while --limit takes on only some of them', async () => {
    await workspace.write('m.csv', manifestOf(30));
    await service.start('run', ['m.csv', '--limit', '20', ...FAST_FLAGS]).ended;
    simulator.setOptions({ latencyMs: 600_000 });
    const run = service.start('run', ['m.csv', '--limit', '5', ...FAST_FLAGS]);
    await waitUntil('the second start takes some on', async () =>
      (await statusJson()).runs.some(({ state, resumed }) => state === 'running' && resumed === 20),
    );
    expect((await statusJson()).runs).toMatchObject([{ totalRows: 30, resumed: 20 }]);
    expect(await status()).toMatch(/^ +20\/30 rows, /m);
    run.child.kill('SIGINT');
    await run.ended;
  });

  test('says what is paused, since when and why', async () => {
    await workspace.write('m.csv', manifestOf(4));
    const coordinator = service.start('run', ['m.csv', '--no-work']);
    await waitUntil('a worker is missed', async () => (await status()).includes('PAUSED: no worker'));
    simulator.setOptions({ token: 'another' });
    const worker = service.start('worker');
    expect((await coordinator.ended).code).toBe(3);
    expect(await status()).toMatch(
      /^PAUSED: token refused since \d\d:\d\d:\d\d \(401 .*\), 127\.0\.0\.1:\d+@/m,
    );
    expect((await statusJson()).accounts[0]?.pauses).toMatchObject([{ kind: 'token' }]);
    worker.child.kill('SIGTERM');
    await worker.ended;

    simulator.setOptions({ token: null, rateLimit: { count: 1, perMs: 60_000 } });
    const limited = service.start('run', ['m.csv', '--rate', '20/s']);
    await waitUntil('a 429 holds the queue', async () => (await status()).includes('PAUSED: 429'));
    expect(await status()).toMatch(/^PAUSED: 429 since \d\d:\d\d:\d\d, goes on in \d+ s, /m);
    expect(await status('m.prompts.csv')).toContain('PAUSED: 429');
    limited.child.kill('SIGINT');
    await limited.ended;
  });

  test('judges by the clock of the queue whether a run goes on, and not by its own or that of its coordinator', async () => {
    const connection = await openQueue(parseQueueUrl(queue, {}));
    const about = { account: 'a', queueName: 'describe@a', manifest: 'm.csv', host: 'elsewhere', pid: 1 };
    const counts = {
      rows: 1,
      described: 0,
      resumed: 0,
      copied: 0,
      failed: 0,
      failedByCode: {},
      perSecond: 0,
    };
    const seen = (run: string, seenAt: number): RunStatus => {
      return { ...about, ...counts, run, output: `${run}.csv`, startedAt: seenAt, seenAt };
    };
    await RUNS.publish(connection.store, 'slow', seen('slow', Date.now() - 60_000));
    await RUNS.publish(connection.store, 'fast', seen('fast', Date.now() + 60_000));
    // As it is when it was published eleven seconds ago.
    const late = JSON.stringify(seen('late', Date.now()));
    await connection.store.announce('runs', 'late', late, 24 * 3_600_000 - 11_000);
    await connection.close();
    const { runs } = await statusJson();
    expect(Object.fromEntries(runs.map(({ run, state }) => [run, state]))).toEqual({
      slow: 'running',
      fast: 'running',
      late: 'silent',
    });
  });

  test('shows hostile names as text', async () => {
    const connection = await openQueue(parseQueueUrl(queue, {}));
    const run: RunStatus = {
      ...{ run: 'r\u001b[2J', account: 'a\u0007', queueName: 'describe@x', manifest: '<b>\u001b]0;t\u0007' },
      ...{ output: '/o\r\n\u009b31m.csv', schedule: '\u001bc', host: 'h\u001b[H', pid: 1, startedAt: 0 },
      ...{ seenAt: 0, rows: 1, described: 0, resumed: 0, copied: 0, failed: 1, perSecond: 0 },
      failedByCode: { 'x\u001b[1m': 1 },
    };
    await RUNS.publish(connection.store, run.run, run);
    await connection.close();
    for (const text of [await status(), await status('/o\r\n\u009b31m.csv')]) {
      // eslint-disable-next-line no-control-regex -- they are what must not be there
      expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
      expect(text).toContain('running on');
    }
    expect(JSON.parse(await status('--json'))).toMatchObject({ runs: [run] });
  });

  test('--watch writes a block into a pipe and exits 0 with Ctrl-C, also while Redis is away', async () => {
    const own = await startRedis();
    const watching = service.start('status', ['--watch', '--queue', own.url]);
    try {
      await waitUntil('the first block is there', () => watching.stdout().includes('no accounts'));
      await own.kill9();
      await waitUntil('it says so', () => /waiting for redis/.test(watching.stdout()));
      watching.child.kill('SIGINT');
      expect((await watching.ended).code).toBe(0);
    } finally {
      await own.stop();
    }
  });

  test('is interrupted by a signal while the queue does not answer, and says nothing else', async () => {
    // As a Redis that is silent from its first question on.
    const proxy = { isMute: false };
    const server = createServer((client) => {
      const upstream = connect(redis.port, '127.0.0.1');
      for (const socket of [client, upstream]) socket.on('error', () => client.destroy());
      client.on('data', (data) => {
        proxy.isMute ||= data.includes('members:');
        if (!proxy.isMute) upstream.write(data);
      });
      upstream.pipe(client);
      onTestFinished(() => void upstream.destroy());
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    const { port } = z.object({ port: z.number() }).parse(server.address());
    const asking = service.start('status', ['--queue', `redis://127.0.0.1:${port}`]);
    await waitUntil('it asks', () => proxy.isMute);
    asking.child.kill('SIGTERM');
    expect(await asking.ended).toMatchObject({
      code: 130,
      stdout: '',
      stderr: 'bulk-describe: interrupted: the queue has not answered\n',
    });
  });

  test('refuses the embedded queue in one line', async () => {
    const refused = service.start('status', [], { QUEUE_URL: '' });
    expect((await refused.ended).code).toBe(1);
    await untilSaid(refused, /^bulk-describe: status needs a queue that several processes share.*\n$/);
  });
});
