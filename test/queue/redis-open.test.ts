import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import { inspect } from 'node:util';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { z } from 'zod';
import { FatalError } from '../../src/shared/errors.js';
import { type OpenQueueOptions, openQueue } from '../../src/shared/queue/connection.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { refusalOf } from '../../src/shared/queue/redis/redis-connection.js';
import { redisAvailable, startRedis } from '../helpers/redis.js';

async function open(url: string, options?: OpenQueueOptions) {
  const connection = await openQueue(parseQueueUrl(url, {}), options);
  onTestFinished(() => connection.close());
  return connection;
}

/** The one line that opening fails with. */
async function refusal(url: string, options?: OpenQueueOptions): Promise<string> {
  const error: unknown = await open(url, options).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(FatalError);
  if (!(error instanceof FatalError)) return '';
  expect(error.message).not.toContain('\n');
  // Neither the message nor anything that hangs on the error may hold the password.
  expect(inspect(error, { depth: 10 })).not.toContain('s3cret');
  return error.message;
}

async function redis(...args: string[]) {
  const server = await startRedis(...args);
  onTestFinished(() => server.stop());
  return server;
}

/** A server that takes connections and does with them as told. */
async function fakeServer(reply?: (request: string) => string): Promise<number> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (data) => socket.write(reply?.(data.toString()) ?? ''));
    onTestFinished(() => void socket.destroy());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

describe('a Redis is refused', () => {
  test.each([
    ['redis_version:6.0.16', /is version 6\.0\.16: 6\.2 or newer is needed/],
    ['redis_version:5.9.1', /is version 5\.9\.1/],
    ['redis_version:7.2.4\r\nrole:slave', /is a read-only replica/],
    ['redis_version:7.2.4\r\nrole:master\r\ncluster_enabled:1', /is a cluster/],
    ['redis_version:7.2.4\r\nmaxmemory_policy:volatile-lru', /Redis evicts keys.*volatile-lru.*noeviction/],
  ])('with %j', (info, expected) => {
    expect(refusalOf(`# Server\r\n${info}\r\n`, 'redis://there')).toMatch(expected);
  });

  test.each([
    'redis_version:6.2.0',
    'redis_version:10.0.0\r\nrole:master\r\nmaxmemory_policy:noeviction',
    '',
  ])('but not with %j', (info) => {
    expect(refusalOf(info, 'redis://there')).toBeUndefined();
  });

  test('when nothing listens there, at once', async () => {
    const began = performance.now();
    expect(await refusal('redis://:s3cret@127.0.0.1:1')).toBe(
      'no Redis at redis://127.0.0.1:1 (ECONNREFUSED): start one with `docker compose up -d redis`, ' +
        'or leave --queue (QUEUE_URL) away to use the embedded queue',
    );
    expect(performance.now() - began).toBeLessThan(4500);
  });

  test('when the name is unknown', async () => {
    expect(await refusal('redis://no-such-host.invalid')).toMatch(/no Redis at .*\((ENOTFOUND|EAI_AGAIN)\)/);
  });

  test('when what listens there never answers, within 5 s', { timeout: 20_000 }, async () => {
    const port = await fakeServer();
    const began = performance.now();
    expect(await refusal(`redis://127.0.0.1:${port}`)).toMatch(/\(no answer in 5 s\)/);
    expect(performance.now() - began).toBeLessThan(15_000);
  });

  test('when it speaks TLS or something else', async () => {
    const port = await fakeServer(() => 'HTTP/1.1 400 Bad Request\r\n\r\n');
    expect(await refusal(`redis://127.0.0.1:${port}`)).toMatch(/no Redis at/);
    expect(await refusal(`rediss://127.0.0.1:${port}`)).toMatch(/no Redis at rediss/);
  });
});

test('a Redis whose certificate is not trusted is refused at once, with the variable that helps', async () => {
  const pem = readFileSync(new URL('../fixtures/self-signed.pem', import.meta.url));
  const server = createTlsServer({ key: pem, cert: pem }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  const { port } = z.object({ port: z.number() }).parse(server.address());
  const why = /^the certificate of rediss:\S+ is not trusted: NODE_EXTRA_CA_CERTS=/;
  expect(await refusal(`rediss://127.0.0.1:${port}`)).toMatch(why);
});

describe.skipIf(!redisAvailable)('a Redis', () => {
  test('is opened with user, password and database number', async () => {
    const server = await redis('--requirepass', 's3cret');
    const connection = await open(`redis://default:s3cret@127.0.0.1:${server.port}/7`);
    expect(connection.label).toBe(`redis://default@127.0.0.1:${server.port}/7`);
    await connection.queue<object, null>('q').add('x', {});
    const elsewhere = await open(`redis://:s3cret@127.0.0.1:${server.port}/8`);
    expect(await elsewhere.queue('q').getWaitingCount()).toBe(0);
  });

  test('that wants another password, or one at all, is refused', async () => {
    const server = await redis('--requirepass', 'other');
    expect(await refusal(`redis://:s3cret@127.0.0.1:${server.port}`)).toMatch(/refuses the user or password/);
    expect(await refusal(`redis://127.0.0.1:${server.port}`)).toMatch(/wants a password/);
  });

  test('that evicts is refused', async () => {
    const server = await redis('--maxmemory-policy', 'allkeys-lru');
    expect(await refusal(server.url)).toMatch(/^Redis evicts keys/);
  });

  test('without a database of that number is refused', async () => {
    const server = await redis();
    expect(await refusal(`${server.url}/5000`)).toMatch(/has no database of that number/);
  });

  test('that is a replica is refused', async () => {
    const primary = await redis();
    const replica = await redis('--replicaof', '127.0.0.1', String(primary.port));
    await vi.waitFor(async () => expect(await refusal(replica.url)).toMatch(/read-only replica/), {
      timeout: 20_000,
    });
  });

  test('that is full is refused', async () => {
    const server = await redis('--maxmemory', '1');
    expect(await refusal(server.url)).toMatch(/accepts no writes: OOM/);
  });

  test('that is a cluster is refused', async () => {
    const server = await redis('--cluster-enabled', 'yes');
    expect(await refusal(server.url)).toMatch(/is a cluster, .*: give a server that is none$/);
  });

  test('whose user may not run scripts is refused, with what helps', async () => {
    const server = await redis(
      '--user',
      'limited',
      'on',
      '>s3cret',
      '~*',
      '&*',
      '+@all',
      '-eval',
      '-evalsha',
    );
    const url = server.url.replace('//', '//limited:s3cret@');
    expect(await refusal(url)).toMatch(/accepts no writes: NOPERM .*; let its user do everything with keys/);
  });

  test('that does not let itself be asked for its settings is used', async () => {
    const server = await redis(
      '--user',
      'limited',
      'on',
      '>s3cret',
      '~bulk-describe:*',
      '+@all',
      '-info',
      '-config',
    );
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    onTestFinished(() => warn.mockRestore());
    const connection = await open(`redis://limited:s3cret@127.0.0.1:${server.port}`);
    const done = vi.fn(() => Promise.resolve(null));
    const worker = connection.worker<object, null>('q', done, {});
    await connection.queue<object, null>('q').add('x', {});
    await vi.waitFor(() => expect(done).toHaveBeenCalledOnce(), { timeout: 10_000 });
    await worker.close();
  });
});
