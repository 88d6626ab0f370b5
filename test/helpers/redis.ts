import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** A Redis of its own for a test file. */
export interface TestRedis {
  readonly url: string;
  readonly port: number;
  /** Ends the server and removes its files. */
  stop(): Promise<void>;
  /** Ends the server as a crash would; `restart` brings it back with its data. */
  kill9(): Promise<void>;
  /** Keeps its connections and answers nothing, until `thaw`. */
  freeze(): void;
  thaw(): void;
  /** Starts it again on the same port, on what its append-only file holds. */
  restart(): Promise<void>;
}

const BINARY = ['redis-server', 'valkey-server'].find(
  (name) => spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0,
);
const START_DEADLINE_MS = 10_000;
const NO_REDIS =
  'no redis-server here: the tests of the Redis queue do not run ' +
  '(apt-get install redis-server, or: docker compose up -d redis and REDIS_URL=redis://localhost:6379)';

/** Whether tests can use Redis here: the binary is installed, or `REDIS_URL` names a server. */
export const redisAvailable = BINARY !== undefined || (process.env['REDIS_URL'] ?? '') !== '';

if (!redisAvailable) {
  if (process.env['BULK_DESCRIBE_REQUIRE_REDIS']) throw new Error(NO_REDIS);
  process.stderr.write(`${NO_REDIS}\n`);
}

/**
 * Starts a Redis on a free port, with an append-only file and without eviction. Where there is no binary it is
 * the server of `REDIS_URL`, which cannot be ended or restarted, and whose keys stay: use names of your own.
 * @param args more arguments for redis-server, such as `--requirepass`, `x`
 */
export async function startRedis(...args: string[]): Promise<TestRedis> {
  if (BINARY === undefined) return foreignRedis();
  const binary = BINARY;
  const directory = await mkdtemp(join(tmpdir(), 'bulk-describe-redis-'));
  const port = await freePort();
  let server = await launch(binary, port, directory, args);
  const end = async (signal: NodeJS.Signals) => {
    if (server.exitCode !== null || server.signalCode !== null) return;
    const exited = once(server, 'exit');
    server.kill(signal);
    await exited;
  };
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    kill9: () => end('SIGKILL'),
    freeze: () => void server.kill('SIGSTOP'),
    thaw: () => void server.kill('SIGCONT'),
    async restart() {
      await end('SIGTERM');
      server = await launch(binary, port, directory, args);
    },
    async stop() {
      await end('SIGKILL');
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function foreignRedis(): TestRedis {
  const url = process.env['REDIS_URL'];
  if (url === undefined) throw new Error(NO_REDIS);
  const foreign = new Error(`${url} is not this test's own: install redis-server`);
  const refuse = () => Promise.reject(foreign);
  const refuseAtOnce = () => {
    throw foreign;
  };
  const port = Number(new URL(url).port || 6379);
  return {
    url: url.replace(/\/\d*$/, ''),
    port,
    kill9: refuse,
    freeze: refuseAtOnce,
    thaw: refuseAtOnce,
    restart: refuse,
    stop: () => Promise.resolve(),
  };
}

async function launch(
  binary: string,
  port: number,
  directory: string,
  args: string[],
): Promise<ChildProcess> {
  const settings = ['--port', String(port), '--bind', '127.0.0.1', '--dir', directory, '--save', ''];
  const durable = ['--appendonly', 'yes', '--maxmemory-policy', 'noeviction', '--databases', '1000'];
  const server = spawn(binary, [...settings, ...durable, ...args], { stdio: 'ignore' });
  // A test runner that is killed leaves no server behind that keeps it waiting.
  server.unref();
  const giveUpAt = Date.now() + START_DEADLINE_MS;
  while (!(await answers(port))) {
    if (Date.now() > giveUpAt || server.exitCode !== null) throw new Error(`${binary} did not start`);
    await delay(20);
  }
  return server;
}

/** Whether it takes commands: a password may be missing, but its data has to be loaded. */
async function answers(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    socket.write('PING\r\n');
    return /^(\+PONG|-NOAUTH)/.test(String(await once(socket, 'data')));
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** A port of this machine that nobody listens on. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address: AddressInfo | string | null = server.address();
  server.close();
  if (address === null || typeof address === 'string') throw new Error('no free port');
  return address.port;
}
