import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { DIALECT_NAMES } from '../../src/describe-api/dialects/index.js';
import { apiWarnings, dialectSettingsOf } from '../../src/run/api-options.js';
import { describeManifest } from '../../src/run/describe-manifest.js';
import type { RunOptions } from '../../src/run/run-options.js';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { type QueueFixture, describeOnBothQueues } from '../helpers/queues.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';

describeOnBothQueues('a run', (openQueue, kind) => {
  let workspace: Workspace;
  let simulator: Simulator;
  let queue: QueueFixture;

  beforeAll(async () => {
    queue = await openQueue();
  });
  beforeEach(async () => {
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 30, token: 'secret' });
  });
  afterEach(async () => {
    await simulator.close();
    await workspace.remove();
  });
  afterAll(() => queue.cleanup());

  async function run(dialect: string, options: Partial<RunOptions> = {}) {
    const rate = { count: 500, perMs: 1000 };
    const result = await describeManifest({
      manifest: workspace.at('m.csv'),
      api: simulator.urlOf(dialect),
      dialect,
      model: dialect === 'openai' ? 'any' : undefined,
      token: 'secret',
      queue: queue.url,
      output: workspace.at('out.csv'),
      limits: { rate, pollRate: rate, maxInFlight: 20 },
      ...options,
    });
    if (result.receipt === undefined) throw new Error('no receipt');
    expect(result.receipt.balanced).toBe(true);
    return { ...result, receipt: result.receipt };
  }

  test.each(DIALECT_NAMES)('describes, pays once and resumes through %s', async (dialect) => {
    await workspace.write('m.csv', manifestOf(10));
    const first = await run(dialect);
    expect(first.exitCode).toBe(0);
    expect(first.receipt).toMatchObject({ rows: 10, described: 10, submits: 10, maybePaidTwice: 0 });
    expect(first.receipt.polls > 0).toBe(dialect !== 'openai');
    const records = await workspace.records('out.csv');
    expect(records).toHaveLength(10);
    for (const record of records) {
      expect(record['message_id']).toMatch(/^sim-/);
      expect(record['prompt_4']).toMatch(/ --ar \d+:\d+$/);
    }
    const again = await run(dialect);
    expect(again.receipt).toMatchObject({ resumed: 10, described: 0, submits: 0, polls: 0 });
    expect(simulator.stats().paid).toBe(10);
  });

  // What an API says has nothing to do with what the queue is kept in.
  if (kind === 'redis') return;

  test.each(['thenextleg', 'legnext'])(
    'submits an image of %s again whose message failed, up to its attempts, and keeps the reason',
    async (dialect) => {
      simulator.setOptions({ failures: { incomplete: 1 } });
      await workspace.write('m.csv', manifestOf(3));
      const { receipt, failedByCode, exitCode } = await run(dialect, { attempts: 2 });
      expect(exitCode).toBe(2);
      expect(receipt).toMatchObject({ failed: 3, submits: 6 });
      expect([...failedByCode]).toEqual([['incomplete', 3]]);
      const [failure] = await workspace.records('out.failed.csv');
      const why = dialect === 'thenextleg' ? 'expired before' : 'failed: Simulated: the job has failed';
      expect(failure?.['error']).toContain(why);
    },
  );

  test('counts an answer of a synchronous API that was paid for and cannot be used', async () => {
    simulator.setOptions({ failures: { incomplete: 1 } });
    await workspace.write('m.csv', manifestOf(2));
    const { receipt, failedByCode } = await run('openai', { attempts: 2 });
    expect(receipt).toMatchObject({ failed: 2, submits: 4, maybePaidTwice: 4 });
    expect([...failedByCode]).toEqual([['bad-response', 2]]);
  });

  test.each(['imaginepro', 'openai'])(
    'ends with exit code 3 when the quota of %s is spent',
    async (dialect) => {
      simulator.setOptions({ failures: { quota: 1 } });
      await workspace.write('m.csv', manifestOf(5));
      const { receipt, exitCode, stop } = await run(dialect);
      expect(exitCode).toBe(3);
      expect(stop?.reason).toContain('no credits left');
      expect(receipt).toMatchObject({ described: 0, failed: 0, remaining: 5 });
    },
  );

  test('waits for a limit that an answer says is used up, rather than meeting a 429', async () => {
    simulator.setOptions({ rateLimit: { count: 2, perMs: 1000 } });
    await workspace.write('m.csv', manifestOf(5));
    const { receipt } = await run('openai', {
      limits: {
        rate: { count: 500, perMs: 1000 },
        pollRate: { count: 500, perMs: 1000 },
        maxInFlight: 1,
      },
    });
    expect(receipt).toMatchObject({ described: 5, submits: 5 });
    expect(simulator.stats()).toMatchObject({ paid: 5, answered429: 0 });
  });

  test('takes no image for rejected when the API does not know the model', async () => {
    const server = createServer((request, response) => {
      request.resume();
      response.writeHead(404, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ error: { message: 'model "any" not found', code: 'model_not_found' } }));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address: AddressInfo | string | null = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    await workspace.write('m.csv', manifestOf(5));
    const { receipt, exitCode, stop } = await run('openai', { api: `http://127.0.0.1:${port}` });
    server.closeAllConnections();
    server.close();
    expect(exitCode).toBe(3);
    expect(stop?.reason).toMatch(/^the API describes nothing: no such path or model .*model "any" not found/);
    expect(receipt).toMatchObject({ failed: 0, remaining: 5 });
  });

  test.each([
    ['another dialect', 'legnext', () => simulator.url],
    ['a base URL without its path', 'thenextleg', () => new URL(simulator.url).origin],
  ] as const)(
    'takes no image for rejected with %s, and the corrected command describes all',
    async (_what, dialect, api) => {
      await workspace.write('m.csv', manifestOf(5));
      const wrong = await run(dialect, { api: api() });
      expect(wrong.exitCode).toBe(3);
      expect(wrong.stop?.reason).toMatch(
        /^the API describes nothing: .*are --api, --dialect and --model right/,
      );
      expect(wrong.receipt).toMatchObject({ failed: 0, remaining: 5 });
      const corrected = await run('thenextleg', { api: simulator.url });
      expect(corrected.exitCode).toBe(0);
      expect(corrected.receipt).toMatchObject({ described: 5, submits: 5 });
    },
  );

  test('submits with GET when it is told to, and warns once', async () => {
    await workspace.write('m.csv', manifestOf(4));
    const notices: string[] = [];
    const { receipt } = await run('thenextleg', {
      submitMethod: 'get',
      onEvent: (event) => {
        if (event.type === 'notice') notices.push(event.text);
      },
    });
    expect(receipt).toMatchObject({ described: 4, submits: 4 });
    expect(simulator.stats().requests).toMatchObject({ posts: 0, gets: 4 });
    expect(notices.filter((text) => text.includes('the token is in the URL'))).toHaveLength(1);
  });
});

describe('options of the API', () => {
  test('an expiry is asked for in minutes', () => {
    expect(dialectSettingsOf({ expireAfterMs: 12 * 60_000 }).expireMins).toBe(12);
  });

  test('post is nothing to warn of', () => {
    expect(apiWarnings({ submitMethod: 'post' })).toEqual([]);
  });
});
