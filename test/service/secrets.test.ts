import { stat } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { everythingIn } from '../helpers/everything-in.js';
import { type TestRedis, redisAvailable, startRedis } from '../helpers/redis.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { LIMITS } from './process-fixture.js';
import { Service, untilSaid } from './service.js';

const PASSWORD = 'hush-of-redis';
const TOKEN = 'hush-of-the-api';
const COMMAND = 'hush-of-the-command';
const WEBHOOK = 'hush-of-the-webhooks';

describe.skipIf(!redisAvailable)("a server's secrets", () => {
  let redis: TestRedis;
  let queue: string;
  let workspace: Workspace;
  let simulator: Simulator;
  let service: Service;
  beforeEach(async () => {
    redis = await startRedis('--requirepass', PASSWORD);
    queue = redis.url.replace('//', `//:${PASSWORD}@`);
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 60_000, token: TOKEN });
    service = new Service(workspace, redis.url, {
      DESCRIBE_API_TOKEN: TOKEN,
      DESCRIBE_API_URL: simulator.url,
    });
  });
  afterEach(async () => {
    await service.end();
    await simulator.close();
    await redis.stop();
    await workspace.remove();
  });

  test('are in no file, no error, no key of the queue, and nothing that it says while it refuses a second run', async () => {
    await workspace.write('m.csv', manifestOf(3));
    await workspace.write('webhook-secret.txt', `${WEBHOOK}\n`);
    const onDone = `: ${COMMAND}; cat >> told.json`;
    const webhooks = ['--webhook-url', 'http://127.0.0.1:9/', '--webhook-secret-file', 'webhook-secret.txt'];
    const flags = ['--queue', queue, '--on-done', onDone, '--log-level', 'trace', ...webhooks];
    const server = service.start('serve', ['--work', ...LIMITS, ...flags]);
    await untilSaid(server, /takes runs from/);
    const enqueue = ['m.csv', '-o', 'out.csv', '--queue', queue];
    const first = await service.start('enqueue', enqueue).ended;
    expect(first.code, first.stderr).toBe(0);

    const second = await service.start('enqueue', enqueue).ended;
    expect(second.code).toBe(5);
    expect(second.stderr).toMatch(
      /this process already has .*: pid \d+ on .+ since .+ \(bulk-describe serve\)/,
    );
    const third = await service.start('run', [...enqueue, '--api', simulator.url, '--no-progress']).ended;
    expect(third.code).toBe(5);
    expect(third.stderr).toContain(`pid ${server.child.pid} on`);
    expect((await stat(workspace.at('out.csv.lock'))).mode & 0o777).toBe(0o600);
    await waitUntil('the command is told', async () => (await workspace.files()).includes('told.json'));
    await waitUntil('the refusal is kept', async () => (await everythingIn(queue)).includes('already has'));

    const left = new Map<string, string>([['redis', await everythingIn(queue)]]);
    for (const name of await workspace.files()) {
      if (name !== 'webhook-secret.txt') left.set(name, await workspace.read(name));
    }
    left.set('what the server says', server.stdout() + server.stderr());
    for (const [name, end] of Object.entries({ first, second, third }))
      left.set(name, end.stdout + end.stderr);
    expect([...left.keys()]).toEqual(expect.arrayContaining(['out.csv.lock', 'out.csv.run', 'told.json']));
    const leaks = [...left].filter(([, text]) => text.includes('hush-of'));
    expect(leaks.map(([name, text]) => `${name}: ${/.*hush-of.*/.exec(text)?.[0]}`)).toEqual([]);
  });
});
