import { Redis } from 'ioredis';
import { expect, test } from 'vitest';
import { RUNS_QUEUE } from '../../src/shared/jobs.js';
import { describeOnRedis } from '../helpers/queues.js';
import { freePort, startRedis } from '../helpers/redis.js';
import { waitUntil } from '../helpers/wait-until.js';
import { ProcessFixture } from './process-fixture.js';
import { health, untilSaid } from './service.js';

describeOnRedis('readiness', (openQueue) => {
  const fixture = ProcessFixture.forSuite(openQueue);

  test('no process is ready while Redis takes no writes, and each says why on one line', async () => {
    const own = await startRedis();
    const redis = new Redis(own.port);
    try {
      const worker = fixture.service.start('worker', ['--health-port', '0', '--queue', own.url]);
      const server = fixture.service.start('serve', ['--health-port', '0', '--queue', own.url]);
      const dashboard = fixture.service.start('dashboard', ['--port', '0', '--queue', own.url]);
      for (const process of [worker, server]) await untilSaid(process, /health at/);
      await waitUntil('the dashboard listens', () => dashboard.stdout().includes('\n'));
      const answers = async () => {
        const page = await fetch(`${dashboard.stdout().trim()}/healthz`);
        const { body: atWorker } = await health(worker, 'readyz');
        return [
          atWorker,
          (await health(server, 'readyz')).body,
          `${String(page.status)} ${await page.text()}`,
        ];
      };
      const ready = ['{"ready":true}\n', '{"ready":true}\n', '200 {"ready":true}'];
      const notReady = (at: string, words: string) => [
        `{"ready":false,"reason":"Redis at ${at} ${words}"}\n`,
        `{"ready":false,"reason":"Redis at ${at} ${words}"}\n`,
        `503 {"ready":false,"reason":"Redis ${words}"}`,
      ];
      expect(await answers()).toEqual(ready);

      await redis.config('SET', 'maxmemory', '1');
      expect(await answers()).toEqual(notReady(own.url, 'is out of memory (raise maxmemory)'));
      await redis.config('SET', 'maxmemory', '0');
      expect(await answers()).toEqual(ready);

      await redis.replicaof('127.0.0.1', await freePort());
      expect(await answers()).toEqual(notReady(own.url, 'has become a read-only replica'));
      await redis.replicaof('NO', 'ONE');
      expect(await answers()).toEqual(ready);
    } finally {
      redis.disconnect();
      await fixture.service.end();
      await own.stop();
    }
  });

  test('neither a worker nor a server is ready while the queue it takes from is paused by hand', async () => {
    const worker = fixture.service.start('worker', ['--health-port', '0']);
    const server = fixture.service.start('serve', ['--health-port', '0', '--work']);
    for (const process of [worker, server]) await untilSaid(process, /health at/);
    const connection = await fixture.queue.connect();
    const { host } = new URL(fixture.simulator.url);
    const images = connection.queue(`describe@${host.replace(':', '_')}@thenextleg@default`);
    const reason = ({ name }: { name: string }) => `the queue ${name} is paused by hand`;
    try {
      await images.pause();
      for (const process of [worker, server]) {
        expect((await health(process, 'readyz')).status).toBe(503);
        expect((await health(process, 'readyz')).body).toContain(reason(images));
      }
      await images.resume();
      expect((await health(worker, 'readyz')).status).toBe(200);
      await connection.queue(RUNS_QUEUE).pause();
      expect((await health(worker, 'readyz')).status).toBe(200);
      expect((await health(server, 'readyz')).body).toContain(reason({ name: RUNS_QUEUE }));
    } finally {
      await connection.queue(RUNS_QUEUE).resume();
      await connection.close();
    }
  });
});
