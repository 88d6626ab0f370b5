import { readFile, readdir } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import { once } from 'node:events';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { runCli } from '../helpers/cli.js';
import { everythingIn } from '../helpers/everything-in.js';
import { type QueueFixture, describeOnBothQueues } from '../helpers/queues.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { DescribeClient } from '../../src/describe-api/client.js';
import { FAST_FLAGS } from '../helpers/run-fixture.js';

/** Has everything that changes its look in a URL, in JSON and in a log. */
const TOKEN = 'tok"en+/=%5c&secret-1234567890';
/** However it is written, this much of it stays as it is. */
const TRACE = 'secret-1234567890';

describeOnBothQueues('the token', (openQueue, kind) => {
  let workspace: Workspace;
  let simulator: Simulator;
  let queue: QueueFixture;
  beforeAll(async () => {
    queue = await openQueue();
  });
  afterAll(() => queue.cleanup());
  beforeEach(async () => {
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 30, token: TOKEN });
  });
  afterEach(async () => {
    await simulator.close();
    await workspace.remove();
  });

  /** Everything that the run has left behind, by where it is. */
  async function whatIsLeft(end: { stdout: string; stderr: string }): Promise<Map<string, string>> {
    const left = new Map([
      ['stdout', end.stdout],
      ['stderr', end.stderr],
    ]);
    for (const name of await workspace.files()) {
      if (name !== 'token.txt') left.set(name, await workspace.read(name));
    }
    const folder =
      queue.target.kind === 'embedded' ? queue.url.replace('embedded:', '') : await redisFolder();
    for (const [name, content] of await filesBelow(folder)) left.set(name, content);
    if (queue.target.kind === 'redis') left.set('redis', await everythingIn(queue.url));
    return left;
  }

  async function expectNoToken(end: { stdout: string; stderr: string }): Promise<void> {
    const left = await whatIsLeft(end);
    // What is searched is really there: the run's rows can be found in the queue's files.
    expect([...left].some(([name, text]) => name.startsWith('queue:') && text.includes('images.test'))).toBe(
      true,
    );
    expect([...left].filter(([, text]) => text.includes(TRACE)).map(([name]) => name)).toEqual([]);
  }

  async function redisFolder(): Promise<string> {
    const redis = new Redis(queue.url);
    const reply = await redis.config('GET', 'dir');
    redis.disconnect();
    return join(String(Array.isArray(reply) ? reply[1] : ''), 'appendonlydir');
  }

  function run(...more: string[]) {
    const args = ['run', 'm.csv', '-o', 'out.csv', '--queue', queue.url, '--log-level', 'trace', ...more];
    return runCli([...args, ...FAST_FLAGS], { cwd: workspace.path, env: { DESCRIBE_API_TOKEN: TOKEN } });
  }

  test('is nowhere after a good run, nor after one whose submits are answered with resets, nonsense and 500', async () => {
    await workspace.write('m.csv', manifestOf(12));
    const failures = { http500: 0.1, reset: 0.1, badJson: 0.1, html: 0.1, reject: 0.1, pollError: 0.2 };
    simulator.setOptions({ failures });
    const end = await run('--api', simulator.url);
    expect([0, 2]).toContain(end.code);
    expect(simulator.stats().paid).toBeGreaterThan(0);
    await expectNoToken(end);
  });

  test('is nowhere when submits are GETs, with the token in their URLs', async () => {
    await workspace.write('m.csv', manifestOf(12));
    const failures = { http500: 0.1, reset: 0.1, badJson: 0.1, html: 0.1, reject: 0.1, pollError: 0.2 };
    simulator.setOptions({ failures });
    const end = await run('--api', simulator.url, '--submit-method', 'get');
    expect([0, 2]).toContain(end.code);
    expect(simulator.stats().requests).toMatchObject({ posts: 0 });
    expect(simulator.stats().paid).toBeGreaterThan(0);
    expect(end.stderr.split('the token is in the URL')).toHaveLength(2);
    await expectNoToken(end);
  });

  test('is nowhere when a server sends it back in every way it can', async () => {
    // Fewer images than make a run believe that the API is down.
    await workspace.write('m.csv', manifestOf(4));
    const server = await startEcho();
    const end = await run('--api', `http://127.0.0.1:${portOf(server)}/v2`, '--attempts', '2');
    server.close();
    expect(end.stderr).toContain('[token]');
    await expectNoToken(end);
  });

  // What the API refuses has nothing to do with what the queue is kept in.
  if (kind === 'embedded') return;

  test('is nowhere when it is refused, and comes from a file', async () => {
    await workspace.write('m.csv', manifestOf(3));
    await workspace.write('token.txt', `wrong-${TOKEN}\n`);
    const args = ['run', 'm.csv', '-o', 'out.csv', '--queue', queue.url, '--log-level', 'trace'];
    const end = await runCli(
      [...args, '--api', simulator.url, '--token-file', workspace.at('token.txt'), ...FAST_FLAGS],
      { cwd: workspace.path },
    );
    expect(end.code).toBe(3);
    expect(end.stdout).toContain('the API refuses the token');
    await expectNoToken(end);
  });

  test('is nowhere in an error: neither in its message nor in its stack, its causes and its fields', async () => {
    const server = await startEcho();
    const client = new DescribeClient({ baseUrl: `http://127.0.0.1:${portOf(server)}/v2`, token: TOKEN });
    const errors: unknown[] = [];
    for (let call = 0; call < ECHOES.length; call++) {
      await client.submit({ url: 'http://images.test/1.jpg' }).catch((error: unknown) => errors.push(error));
      await client.message('m').catch((error: unknown) => errors.push(error));
    }
    await client.close();
    server.close();
    expect(errors.length).toBeGreaterThan(ECHOES.length);
    const shown = errors.map((error) => inspect(error, { depth: Infinity, showHidden: true }));
    expect(shown.filter((text) => text.includes(TRACE))).toEqual([]);
    expect(shown.join('\n')).toContain('[token]');
  });
});

type Echo = (token: string, request: IncomingMessage, response: ServerResponse) => void;

/** Ways to send a token back, one after the other. */
const ECHOES: Echo[] = [
  (token, _request, response) => response.writeHead(500).end(`Internal error for Bearer ${token}`),
  (token, _request, response) => response.writeHead(200).end(`{"success": true, "messageId": ${token}`),
  (token, _request, response) =>
    response.writeHead(200).end(JSON.stringify({ success: false, msg: `no image for ${token}` })),
  (token, _request, response) => response.writeHead(503, { 'retry-after': token }).end(token.repeat(20)),
  (token, _request, response) =>
    response.writeHead(400).end(JSON.stringify({ error: [encodeURIComponent(token)] })),
  (_token, request) => request.socket.resetAndDestroy(),
  (token, _request, response) => response.writeHead(404, token).end(token),
  (token, _request, response) =>
    response.writeHead(200).end(JSON.stringify({ [token]: [{ [token]: token }] })),
];

async function startEcho(): Promise<Server> {
  let calls = 0;
  const server = createServer((request, response) => {
    const token = (request.headers.authorization ?? '').replace('Bearer ', '');
    request.resume();
    ECHOES[calls++ % ECHOES.length]?.(token, request, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

function portOf(server: Server): number {
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === 'string') throw new Error('it does not listen');
  return address.port;
}

async function filesBelow(folder: string): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    files.set(`queue:${path}`, await readFile(path, 'latin1'));
  }
  return files;
}
