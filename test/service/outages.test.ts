import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SERVERS } from '../../src/shared/published.js';
import { openQueue } from '../../src/shared/queue/connection.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import type { CliEnd, CliProcess } from '../helpers/cli.js';
import { type TestRedis, redisAvailable, startRedis } from '../helpers/redis.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { LIMITS } from './process-fixture.js';
import { Service, untilSaid, urlOf } from './service.js';

/** Five seconds, and what a busy machine adds. */
const AT_ONCE_MS = 15_000;
const PATHS = ['/', '/runs/nosuchrun000', '/nowhere', '/metrics', '/board/api/queues?activeQueue=runs'];

describe.skipIf(!redisAvailable)('while Redis is away', () => {
  let redis: TestRedis;
  let workspace: Workspace;
  let simulator: Simulator;
  let service: Service;
  beforeEach(async () => {
    redis = await startRedis();
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 60_000 });
    service = new Service(workspace, redis.url, { DESCRIBE_API_URL: simulator.url });
    await workspace.write('m.csv', manifestOf(20));
  });
  afterEach(async () => {
    await service.end();
    await simulator.close();
    await redis.stop();
    await workspace.remove();
  });

  /** Where the dashboard that a process has started is. */
  /** Until all that looks at the queue by itself waits for it; and then again, for requests that still wait. */
  async function askTwice(url: string): Promise<Promise<unknown>[]> {
    const ask = () => PATHS.map((path) => fetch(url + path).catch(() => undefined));
    await Promise.all(ask());
    return ask();
  }

  async function stopped({ child, ended }: CliProcess): Promise<CliEnd> {
    child.kill('SIGTERM');
    await waitUntil('it ends', () => child.exitCode !== null, AT_ONCE_MS);
    return ended;
  }

  test('a run with a dashboard ends with its receipt when it is told to, with requests that wait', async () => {
    const run = service.start('run', ['m.csv', '-o', 'out.csv', '--dashboard=0', '--json', ...LIMITS]);
    const url = await urlOf(run);
    await waitUntil('it has submitted', () => simulator.stats().paid >= 5);
    await redis.kill9();
    await untilSaid(run, /waiting for the queue/);
    const asked = await askTwice(url);
    const { stdout, code } = await stopped(run);
    expect(JSON.parse(stdout)).toMatchObject({ rows: 20, described: 0, balanced: true });
    expect(code).toBe(130);
    await Promise.all(asked);
  });

  test.each([
    ['serve', ['--work', ...LIMITS, '--dashboard=0']],
    ['dashboard', ['--port', '0']],
  ])('%s ends when it is told to, with a dashboard and requests that wait', async (command, args) => {
    const started = service.start(command, args);
    const url = await urlOf(started);
    if (command === 'serve') {
      await untilSaid(started, /takes runs from/);
      expect((await service.start('enqueue', ['m.csv', '-o', 'out.csv']).ended).code).toBe(0);
    }
    await redis.kill9();
    await untilSaid(started, /waiting for the queue/);
    const asked = await askTwice(url);
    await stopped(started);
    await Promise.all(asked);
  });

  test('every page of the dashboard says within seconds that the queue does not answer', async () => {
    const started = service.start('dashboard', ['--port', '0']);
    const url = await urlOf(started);
    for (const path of PATHS) expect((await fetch(url + path)).status).toBeLessThan(500);
    await redis.kill9();
    const answers = PATHS.map(async (path) => {
      const answer = await fetch(url + path, { signal: AbortSignal.timeout(AT_ONCE_MS) });
      return `${path} ${answer.status} ${await answer.text()}`;
    });
    const trouble = 'The queue does not answer. Try again in a moment.\n';
    expect(await Promise.all(answers)).toEqual(PATHS.map((path) => `${path} 503 ${trouble}`));
    // What was asked goes on waiting; when that is too much, nothing more is asked.
    await Promise.all(Array.from({ length: 200 }, () => fetch(`${url}/runs`)));
    const startedAt = performance.now();
    expect((await fetch(`${url}/runs`)).status).toBe(503);
    expect(performance.now() - startedAt).toBeLessThan(4000);
    await redis.restart();
    await waitUntil('the pages are back', async () => (await fetch(`${url}/runs`)).status === 200);
  });

  test('enqueue says that it waits for the queue, and ends with the first Ctrl-C', async () => {
    const connection = await openQueue(parseQueueUrl(redis.url, {}));
    const enqueue = service.start('enqueue', ['m.csv', '-o', 'out.csv']);
    const mute = { host: 'h', pid: 1, root: workspace.path, since: Date.now(), runsAtOnce: 1, runs: [] };
    // A server that is there for as long as the command takes to start, and never takes anything.
    await waitUntil('it waits for the server', async () => {
      await SERVERS.publish(connection.store, 'mute', mute);
      return /waiting for one of 1 server/.test(enqueue.stderr());
    });
    await connection.close();
    await redis.kill9();
    await untilSaid(enqueue, /waiting for the queue: Redis at .* does not answer/);
    enqueue.child.kill('SIGINT');
    await waitUntil('it ends', () => enqueue.child.exitCode !== null, AT_ONCE_MS);
    expect(enqueue.child.exitCode).toBe(130);
    expect(enqueue.stderr()).toMatch(/may still be in it: .* `bulk-describe cancel [a-z0-9]{12}`\n$/);
  });
});
