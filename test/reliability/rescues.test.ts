import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { accountOf } from '../../src/run/api-options.js';
import { describeManifest } from '../../src/run/describe-manifest.js';
import { describeQueueName } from '../../src/shared/account.js';
import { silentLogger } from '../../src/shared/log.js';
import { readPrompts } from '../../src/describe-api/dialects/polled.js';
import { makePrompts, hashUrl } from '../../src/simulator/messages.js';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { startAccountReceiver } from '../../src/webhook/receiver.js';
import { type CliProcess, startCli } from '../helpers/cli.js';
import { type QueueFixture, describeOnBothQueues } from '../helpers/queues.js';
import { freePort } from '../helpers/redis.js';
import { Forger } from '../helpers/spoilt-deliveries.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { allIds, describedIds, kill9 } from './run-process.js';

const receiptSchema = z.looseObject({ rescued: z.number(), maybePaidTwice: z.number() });

describeOnBothQueues('a submit whose answer was lost, with webhooks', (openQueue, kind) => {
  let workspace: Workspace;
  let simulator: Simulator;
  let queue: QueueFixture;
  const started: CliProcess[] = [];

  beforeEach(async () => {
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 300, latencySpread: 0 });
    queue = await openQueue();
  });
  afterEach(async () => {
    for (const { child } of started) child.kill('SIGKILL');
    await Promise.all(started.splice(0).map(({ ended }) => ended));
    await simulator.close();
    await workspace.remove();
  });

  /** The same command each time; the API reaches the receiver at the port that the first one took. */
  let port = 0;
  const start = async (maxInFlight = 8) => {
    port ||= await freePort();
    const api = [
      '--api',
      simulator.url,
      '--queue',
      queue.url,
      '--webhook-url',
      `http://127.0.0.1:${port}/hook`,
    ];
    const limits = ['--rate', '100/s', '--poll-rate', '200/s', '--max-in-flight', String(maxInFlight)];
    const listen = ['--webhook-listen', `127.0.0.1:${port}`];
    const shown = ['--json', '--no-progress'];
    const run = startCli(['run', 'm.csv', '-o', 'out.csv', ...api, ...listen, ...limits, ...shown], {
      cwd: workspace.path,
      env: { DESCRIBE_API_TOKEN: 'any' },
    });
    started.push(run);
    return run;
  };
  const endOf = async (run: CliProcess) => {
    const end = await run.ended;
    expect([end.code, end.signal], end.stderr).toEqual([0, null]);
    expect(end.stderr).not.toMatch(/defect|nhandled/);
    return receiptSchema.parse(JSON.parse(end.stdout));
  };

  // How an answer was lost is nothing to the queue.
  test.each(kind === 'embedded' ? (['reset'] as const) : (['reset', 'badJson', 'html'] as const))(
    '(%s) is rescued by its delivery, and not paid twice',
    async (kind) => {
      await workspace.write('m.csv', manifestOf(8));
      simulator.setOptions({ failures: { [kind]: 1 } });
      const receipt = await endOf(await start());
      expect(receipt).toMatchObject({ described: 8, submits: 8, rescued: 8, maybePaidTwice: 0 });
      expect(simulator.stats().paid).toBe(8);
      expect(await describedIds(workspace)).toEqual(allIds(8));
    },
    60_000,
  );

  test.each([
    ['before', 100],
    ['after', 2500],
  ])(
    '(hang) is rescued by a delivery that comes %s the time of the submit is over',
    async (_when, latencyMs) => {
      await workspace.write('m.csv', manifestOf(8));
      simulator.setOptions({ latencyMs, failures: { hang: 1 } });
      const rate = { count: 100, perMs: 1000 };
      const hookPort = await freePort();
      const { receipt, exitCode } = await describeManifest({
        manifest: workspace.at('m.csv'),
        output: workspace.at('out.csv'),
        api: simulator.url,
        token: 'any',
        queue: queue.url,
        limits: { rate, pollRate: rate, maxInFlight: 8 },
        requestTimeoutMs: 1000,
        webhooks: { url: `http://127.0.0.1:${hookPort}/hook` },
        companions: [
          async ({ store }) => {
            const receiver = await startAccountReceiver({
              store,
              queueName: describeQueueName(accountOf({ api: simulator.url })),
              secret: undefined,
              listen: { host: '127.0.0.1', port: hookPort },
              logger: silentLogger(),
            });
            return () => receiver.close();
          },
        ],
      });
      expect(exitCode).toBe(0);
      expect(receipt).toMatchObject({ described: 8, submits: 8, rescued: 8, maybePaidTwice: 0 });
      expect(simulator.stats()).toMatchObject({ paid: 8, failures: { hang: 8 } });
      expect(await describedIds(workspace)).toEqual(allIds(8));
    },
    60_000,
  );

  test('(kill -9 with submits on the wire) is rescued by the same command', async () => {
    await workspace.write('m.csv', manifestOf(8));
    simulator.setOptions({ failures: { hang: 1 } });
    // A delivery is sent once: it has to find somebody.
    const sends: (() => void)[] = [];
    simulator.onDelivery((_, sendAfter) => sends.push(() => sendAfter(0)));
    const killed = await start();
    await waitUntil('eight are paid for', () => simulator.stats().paid === 8);
    await kill9(killed);
    simulator.setOptions({ failures: {} });
    const resumed = await start();
    const isListening = () => fetch(`http://127.0.0.1:${port}/`).then(Boolean, () => false);
    await waitUntil('the receiver listens', isListening);
    for (const send of sends) send();
    const receipt = await endOf(resumed);
    expect(receipt).toMatchObject({ described: 8, submits: 0, rescued: 8, maybePaidTwice: 0 });
    expect(simulator.stats().paid).toBe(8);
    expect(await describedIds(workspace)).toEqual(allIds(8));
  }, 120_000);

  // Another process cannot look into an embedded queue.
  test.skipIf(kind === 'embedded')(
    'is counted as rescued in the receipt of a later process, when its own is killed',
    async () => {
      await workspace.write('m.csv', manifestOf(8));
      simulator.setOptions({ failures: { reset: 1 } });
      const killed = await start(4);
      await waitUntil('four are paid for', () => simulator.stats().paid >= 4);
      simulator.setOptions({ latencyMs: 9000, failures: { hang: 1 } });
      await waitUntil('all are paid for', () => simulator.stats().paid === 8);
      const { store } = await queue.connect();
      const { run } = z.object({ run: z.string() }).parse(JSON.parse(await workspace.read('out.csv.run')));
      const kept = async () => (await store.getFields(`counts:${run}`))['rescued'];
      await waitUntil('four are written and counted', async () => (await kept()) === '4');
      await kill9(killed);
      expect(await describedIds(workspace)).toHaveLength(4);
      simulator.setOptions({ latencyMs: 300, failures: {} });
      const receipt = await endOf(await start(4));
      expect(receipt).toMatchObject({ described: 4, resumed: 4, rescued: 8, maybePaidTwice: 0 });
      expect(simulator.stats().paid).toBe(8);
      expect(await describedIds(workspace)).toEqual(allIds(8));
      expect(await endOf(await start(4))).toMatchObject({ resumed: 8, rescued: 0 });
    },
    120_000,
  );

  test.skipIf(kind === 'embedded')(
    'is rescued by its own message alone, whatever forged deliveries say',
    async () => {
      await workspace.write('m.csv', manifestOf(8));
      // As if describes had been seen before: the deliveries that are spoilt are not waited for for long.
      const { store } = await queue.connect();
      const queueName = describeQueueName(accountOf({ api: simulator.url }));
      await store.setFields(`latencies:${queueName}`, { ms: '[300]' });
      simulator.setOptions({ failures: { reset: 1 } });
      const forger = new Forger(simulator, 200);
      onTestFinished(() => forger.stop());
      const run = await start();
      await waitUntil('all are paid for', () => simulator.stats().paid >= 8);
      simulator.setOptions({ failures: {} });
      const receipt = await endOf(run);
      expect(forger.sent).toBeGreaterThan(20);
      const paidAgain = simulator.stats().paid - 8;
      expect(receipt).toMatchObject({ described: 8, maybePaidTwice: paidAgain, rescued: 8 - paidAgain });
      for (const record of await workspace.records('out.csv')) {
        const own = readPrompts(makePrompts(hashUrl(record['image'] ?? '')));
        expect([1, 2, 3, 4].map((n) => record[`prompt_${n}`])).toEqual(own);
      }
    },
    240_000,
  );
});
