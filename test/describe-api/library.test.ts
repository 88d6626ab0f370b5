import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import {
  DeadlineError,
  DescribeClient,
  type Dialect,
  MessageFailedError,
  StatusError,
  UsageError,
} from '../../src/index.js';
import { startSimulator } from '../helpers/simulator.js';
import { answering, serve } from './http-server.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const IMAGE = 'https://images.example/1.jpg';

async function simulated(options: Parameters<typeof startSimulator>[0]) {
  const simulator = await startSimulator(options);
  const client = new DescribeClient({ baseUrl: simulator.url });
  onTestFinished(async () => {
    await client.close();
    await simulator.close();
  });
  return { simulator, client };
}

describe('describe', () => {
  test('submits once, tells the message at once and its progress, and gives the prompts', async () => {
    const { simulator, client } = await simulated({ latencyMs: 900, latencySpread: 0 });
    const told: { messageId: string; progress: number }[] = [];
    const message = await client.describe(IMAGE, { onProgress: (progress) => told.push(progress) });
    expect(message.prompts).toHaveLength(4);
    expect(told[0]).toEqual({ messageId: message.messageId, progress: 0 });
    expect(told.at(-1)).toEqual({ messageId: message.messageId, progress: 100 });
    expect(simulator.stats()).toMatchObject({ paid: 1, submits: 1 });
  });

  test('goes on polling through errors, and does not submit again', async () => {
    const { simulator, client } = await simulated({ latencyMs: 0, failures: { pollError: 0.5 }, seed: 6 });
    expect((await client.describe(IMAGE)).prompts).toHaveLength(4);
    expect(simulator.stats()).toMatchObject({ paid: 1, submits: 1, failures: { pollError: 2 } });
  });

  test('does not repeat a submit that failed', async () => {
    const { simulator, client } = await simulated({ failures: { http500: 1 } });
    await expect(client.describe(IMAGE)).rejects.toBeInstanceOf(StatusError);
    expect(simulator.stats().submits).toBe(1);
  });

  test('says which message has failed, and which was not completed in time', async () => {
    const failing = await simulated({ latencyMs: 0, failures: { incomplete: 1 } });
    const failure: unknown = await failing.client.describe(IMAGE).catch((error: unknown) => error);
    if (!(failure instanceof MessageFailedError)) throw new Error('expected a failed message');
    expect(failure.messageId).toMatch(/^sim-/);
    const late = await simulated({ failures: { never: 1 } });
    const error: unknown = await late.client
      .describe(IMAGE, { deadlineMs: 300 })
      .catch((reason: unknown) => reason);
    if (!(error instanceof DeadlineError)) throw new Error('expected a deadline');
    expect(error.messageId).toMatch(/^sim-/);
    expect(error.message).toContain('not completed within 0.3 s');
  });

  test('ends with the reason of its signal', async () => {
    const { client } = await simulated({ failures: { never: 1 } });
    const stopping = new AbortController();
    const reason = new Error('enough');
    const describing = client.describe(IMAGE, {
      signal: stopping.signal,
      onProgress: () => stopping.abort(reason),
    });
    await expect(describing).rejects.toBe(reason);
  });

  test.each([0, 100])('rejects at once with what onProgress throws at %s, and asks no more', async (at) => {
    const { simulator, client } = await simulated({ latencyMs: 0 });
    const mine = new Error('mine');
    const describing = client.describe(IMAGE, {
      onProgress: ({ progress }) => {
        if (progress === at) throw mine;
      },
    });
    await expect(describing).rejects.toBe(mine);
    expect(simulator.stats()).toMatchObject({ paid: 1, polls: at === 0 ? 0 : 1 });
  });

  test("rejects at once with what a dialect of one's own throws", async () => {
    const server = await serve(answering(200, { messageId: 'm' }));
    const mine = new TypeError('mine');
    const dialect: Dialect = {
      name: 'mine',
      hosts: [],
      api: server.url,
      submitUrl: (base) => base,
      messageUrl: (base) => base,
      credentials: () => ({}),
      submitBody: () => ({}),
      readSubmitted: () => ({ messageId: 'm' }),
      readMessage: () => {
        throw mine;
      },
    };
    const client = new DescribeClient({ baseUrl: server.url, dialect });
    onTestFinished(() => client.close());
    await expect(client.describe(IMAGE)).rejects.toBe(mine);
    expect(server.requests).toEqual(['POST /', 'GET /']);
  });

  test.each([NaN, 0, -1])('refuses a deadline of %s before anything is paid', async (deadlineMs) => {
    const { simulator, client } = await simulated({});
    await expect(client.describe(IMAGE, { deadlineMs })).rejects.toBeInstanceOf(UsageError);
    expect(simulator.stats().submits).toBe(0);
  });

  test.each([2 ** 31, 30 * 86_400_000, Infinity])('waits with deadline and timeouts of %s ms', async (ms) => {
    const simulator = await startSimulator({ latencyMs: 300 });
    const options = { dialect: 'openai', model: 'any' } as const;
    const clients = [
      new DescribeClient({ baseUrl: simulator.urlOf('openai'), ...options }),
      new DescribeClient({
        baseUrl: simulator.url,
        timeoutMs: ms,
        maxConcurrent: Infinity,
      }),
    ];
    onTestFinished(async () => {
      await Promise.all(clients.map((client) => client.close()));
      await simulator.close();
    });
    const messages = await Promise.all(clients.map((client) => client.describe(IMAGE, { deadlineMs: ms })));
    for (const { prompts } of messages) expect(prompts).toHaveLength(4);
  });

  test('ends when a poll is refused the token', async () => {
    const server = await serve((request, response) => {
      const isSubmit = request.method === 'POST';
      answering(isSubmit ? 200 : 401, isSubmit ? { messageId: 'm' } : { msg: 'no' })(request, response);
    });
    const client = new DescribeClient({ baseUrl: server.url });
    onTestFinished(() => client.close());
    await expect(client.describe(IMAGE)).rejects.toMatchObject({ status: 401 });
  });
});

test('the examples in docs/library.md compile against what the package exports', async () => {
  const text = await readFile(join(ROOT, 'docs', 'library.md'), 'utf8');
  const examples = [...text.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code ?? '');
  expect(examples.length).toBeGreaterThan(3);
  const folder = await mkdtemp(join(tmpdir(), 'bulk-describe-docs-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  await mkdir(join(folder, 'node_modules', '@types'), { recursive: true });
  await symlink(ROOT, join(folder, 'node_modules', 'bulk-describe'));
  await symlink(join(ROOT, 'node_modules', '@types', 'node'), join(folder, 'node_modules', '@types', 'node'));
  await writeFile(join(folder, 'package.json'), '{"type":"module"}');
  const names = examples.map((_, index) => `example-${index}.ts`);
  await Promise.all(names.map((name, index) => writeFile(join(folder, name), examples[index] ?? '')));
  const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  const flags =
    '--noEmit --strict --noUncheckedIndexedAccess --target es2022 --module nodenext --skipLibCheck --types node';
  const done = promisify(execFile)(process.execPath, [tsc, ...flags.split(' '), ...names], { cwd: folder });
  const failure = await done.then(
    () => '',
    (error: unknown) => (error instanceof Error && 'stdout' in error ? String(error.stdout) : String(error)),
  );
  expect(failure).toBe('');
});
