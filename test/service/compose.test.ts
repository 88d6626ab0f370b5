import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { type TestRedis, redisAvailable, startRedis } from '../helpers/redis.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { Service, urlOf } from './service.js';

const serviceSchema = z.looseObject({
  command: z.array(z.string()),
  environment: z.record(z.string(), z.string()),
  read_only: z.literal(true),
});
const composeSchema = z.object({
  services: z.looseObject({ home: serviceSchema, worker: serviceSchema, dashboard: serviceSchema }),
});

describe.skipIf(!redisAvailable)('the services of docker-compose.yml, as processes', () => {
  let redis: TestRedis;
  let workspace: Workspace;
  let simulator: Simulator;
  let service: Service;

  beforeAll(async () => {
    redis = await startRedis();
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 50, token: 'secret-token' });
    service = new Service(workspace, redis.url);
  });
  afterAll(async () => {
    await service.end();
    await simulator.close();
    await redis.stop();
    await workspace.remove();
  });

  test('do a run that is enqueued at the server, are healthy, and show it on the dashboard', async () => {
    const text = await readFile(new URL('../../docker-compose.yml', import.meta.url), 'utf8');
    const { services } = composeSchema.parse(parse(text, { merge: true }));
    const outside = {
      DESCRIBE_API_URL: simulator.url,
      DESCRIBE_API_TOKEN: 'secret-token',
      DESCRIBE_RATE: '50/s',
      ...{ DASHBOARD_USER: 'ada', DASHBOARD_PASSWORD: 'a-long-password' },
    };
    /** Only what the containers' network and file system would make of it is translated. */
    const names: Record<string, string> = { '/data': workspace.path, '8080': '0', '0.0.0.0': '127.0.0.1' };
    const start = ({ command, environment }: z.infer<typeof serviceSchema>) => {
      const [name = '', ...args] = command.map((part) => names[part] ?? part);
      const given: Record<string, string> = { ...outside, QUEUE_URL: redis.url };
      const env = Object.fromEntries(
        Object.entries(environment).map(([variable, value]) => [
          variable,
          given[variable] ?? value.replace(/^\$\{\w+:-(.*)\}$/, '$1'),
        ]),
      );
      return service.start(name, args, { DESCRIBE_API_TOKEN: '', ...env });
    };
    const server = start(services.home);
    const workers = [start(services.worker), start(services.worker)];
    const dashboard = start(services.dashboard);
    const all = [dashboard, ...workers, server];
    const urls: string[] = [];
    for (const started of all) {
      const url = await urlOf(started);
      const answer = await fetch(`${url}/healthz`);
      expect(answer.status, started.stderr()).toBe(200);
      urls.push(url);
    }
    await workspace.write('m.csv', manifestOf(5));
    const enqueued = await service.start('enqueue', ['m.csv', '-o', 'out.csv'], {
      DESCRIBE_API_URL: simulator.url,
    }).ended;
    expect([enqueued.code, enqueued.stderr]).toEqual([0, expect.not.stringContaining('defect')]);
    await waitUntil(
      'all rows are there',
      async () => (await workspace.records('out.csv').catch(() => [])).length === 5,
    );
    expect(simulator.stats().paid).toBe(5);
    const authorization = `Basic ${Buffer.from('ada:a-long-password').toString('base64')}`;
    await waitUntil('the dashboard shows it', async () => {
      const runs = await fetch(`${urls[0]}/runs`, { headers: { authorization } });
      // A name may be broken between its parts.
      return (await runs.text()).replaceAll('<wbr />', '').includes('out.csv');
    });
    for (const { child, ended } of all) {
      child.kill('SIGTERM');
      const { code, stderr } = await ended;
      expect(code, stderr).toBe(0);
    }
  });
});
