import { expect, it } from 'vitest';
import { readPrompts } from '../../src/describe-api/prompts.js';
import { makePrompts } from '../../src/simulator/prompts.js';
import { hashUrl } from '../../src/simulator/random.js';
import type { WebhookFaults } from '../../src/simulator/simulator.js';
import type { CliProcess } from '../helpers/cli.js';
import { describeOnRedis } from '../helpers/queues.js';
import { freePort } from '../helpers/redis.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { ServiceBench } from './service-bench.js';
import { untilSaid } from './service.js';

const LIMITS = ['--rate', '150/s', '--poll-rate', '500/s', '--max-in-flight', '100'];

describeOnRedis('webhooks', (openQueue) => {
  const bench = ServiceBench.forSuite(openQueue, { latencyMs: 400 });

  /** A receiver as a process of its own. @returns its URL, for `--webhook-url` */
  const receive = async (...args: string[]): Promise<string> => {
    const receiver = bench.service.start('webhook', ['--webhook-listen', '127.0.0.1:0', ...args]);
    await waitUntil('it says where it listens', () => receiver.stdout().includes('\n'));
    return receiver.stdout().trim();
  };

  const work = async (...args: string[]): Promise<CliProcess> => {
    const worker = bench.service.start('worker', [...LIMITS, ...args]);
    await untilSaid(worker, /limits of the account/);
    return worker;
  };

  /** Each row is there once, and each has the prompts of its own image. */
  const expectRows = async (output: string, count: number) => {
    const records = await bench.workspace.records(output);
    const ids = records.map(({ id }) => Number(id)).sort((a, b) => a - b);
    expect(ids).toEqual(Array.from({ length: count }, (_, index) => index + 1));
    const wrong = records.filter((record) => {
      const prompts = [1, 2, 3, 4].map((n) => record[`prompt_${n}`]);
      return prompts.join('|') !== readPrompts(makePrompts(hashUrl(record['image'] ?? '')))?.join('|');
    });
    expect(wrong).toEqual([]);
  };

  /** Two workers, a receiver and a home, each a process, and deliveries that go wrong like this. */
  const describeAll = async (count: number, webhooks: WebhookFaults) => {
    bench.simulator.setOptions({ webhooks });
    await bench.workspace.write('m.csv', manifestOf(count));
    const url = await receive();
    const workers = await Promise.all([1, 2].map(() => work('--webhook-url', `${url}/hooks`)));
    const home = bench.service.start('run', ['m.csv', '-o', 'out.csv', '--no-work', '--json', ...LIMITS]);
    const end = await home.ended;
    expect([end.code, end.signal], end.stderr).toEqual([0, null]);
    expect(JSON.parse(end.stdout)).toMatchObject({
      described: count,
      submits: count,
      maybePaidTwice: 0,
      rescued: 0,
      balanced: true,
    });
    await expectRows('out.csv', count);
    for (const worker of workers) {
      worker.child.kill('SIGTERM');
      expect((await worker.ended).code).toBe(0);
      expect(worker.stderr()).not.toMatch(/defect|nhandled/);
    }
    const stats = bench.simulator.stats();
    expect(stats.paid).toBe(count);
    return { ...stats, pollsEach: stats.polls / count };
  };

  it('that a process receives wake the workers in two others: one poll for an image', async () => {
    const { pollsEach, webhooksSent } = await describeAll(500, {});
    expect(webhooksSent).toBe(500);
    expect(pollsEach).toBeGreaterThanOrEqual(1);
    expect(pollsEach).toBeLessThanOrEqual(1.2);
  }, 120_000);

  it('that are all lost cost time, and no row', async () => {
    const { webhooksSent } = await describeAll(500, { lost: 1 });
    expect(webhooksSent).toBe(0);
  }, 120_000);

  it('that are forged, 200 a second, cost a few polls, and each row has the prompts of its own image', async () => {
    const { pollsEach, webhookFaults } = await describeAll(500, { forged: { count: 200, perMs: 1000 } });
    expect(webhookFaults.forged).toBeGreaterThan(300);
    // Three deliveries of one message lead to a poll each; by the clock it is polled rarely.
    expect(pollsEach).toBeLessThan(5);
  }, 120_000);

  it('that are late, early and doubled do no harm', async () => {
    const { webhookFaults } = await describeAll(150, { late: 0.3, early: 0.3, doubled: 0.3 });
    expect(Object.keys(webhookFaults).sort()).toEqual(['doubled', 'early', 'late']);
  }, 120_000);

  it('wake a home that works and receives, for a run that is handed to it, and survive its restart', async () => {
    await bench.workspace.write('m.csv', manifestOf(20));
    const port = await freePort();
    const webhooks = ['--webhook-url', `http://127.0.0.1:${port}`, '--webhook-listen', `127.0.0.1:${port}`];
    bench.simulator.setOptions({ latencyMs: 4000, latencySpread: 0 });
    const first = await bench.serve('--work', ...webhooks);
    expect(first.stderr()).toContain(`webhooks http://127.0.0.1:${port}\n`);
    expect((await bench.command('enqueue', 'm.csv', '-o', 'out.csv')).code).toBe(0);
    await waitUntil('some are in flight', () => bench.simulator.stats().paid > 0);
    first.child.kill('SIGTERM');
    expect((await first.ended).code).toBe(0);
    bench.simulator.setOptions({ latencyMs: 400 });
    const home = await bench.serve('--work', ...webhooks);
    await untilSaid(home, /out\.csv/);
    await waitUntil('all are described', async () => (await bench.ids('out.csv')).length === 20, 60_000);
    await expectRows('out.csv', 20);
    expect(bench.simulator.stats().paid).toBe(20);
    home.child.kill('SIGTERM');
    expect((await home.ended).code).toBe(0);
  }, 120_000);

  it('wake a worker that receives by itself', async () => {
    await bench.workspace.write('m.csv', manifestOf(40));
    const port = await freePort();
    const listen = ['--webhook-listen', `127.0.0.1:${port}`];
    const worker = await work('--webhook-url', `http://127.0.0.1:${port}/a/b/`, ...listen);
    expect(worker.stderr()).toContain(`webhooks http://127.0.0.1:${port}\n`);
    const end = await bench.service.start('run', ['m.csv', '-o', 'out.csv', '--no-work', '--json']).ended;
    expect(JSON.parse(end.stdout)).toMatchObject({ described: 40, submits: 40, balanced: true });
    expect(bench.simulator.stats().polls).toBeLessThanOrEqual(48);
    await expectRows('out.csv', 40);
    worker.child.kill('SIGINT');
    expect((await worker.ended).code).toBe(0);
  }, 120_000);

  it('wake a run whose receiver is another process, which has the same secret from a file', async () => {
    await bench.workspace.write('m.csv', manifestOf(40));
    await bench.workspace.write('secret', 'a secret of more than sixteen\n');
    const secret = ['--webhook-secret-file', 'secret'];
    const url = await receive(...secret);
    const shown = await receive(...secret, '--show-url', '--webhook-url', 'https://hooks.example/a');
    expect(shown).toMatch(/^https:\/\/hooks\.example\/a\/[\w-]{32}$/);
    const segment = shown.split('/').at(-1) ?? '';
    const post = async (path: string) =>
      (await fetch(`${url}/${path}`, { method: 'POST', body: '{}' })).status;
    expect([await post(`x/${segment}`), await post('x')]).toEqual([400, 404]);
    const about = [...secret, '--webhook-url', `${url}/hooks`, ...LIMITS, '--json'];
    const end = await bench.service.start('run', ['m.csv', '-o', 'out.csv', ...about]).ended;
    expect([end.code, end.signal], end.stderr).toEqual([0, null]);
    expect(JSON.parse(end.stdout)).toMatchObject({ described: 40, submits: 40, balanced: true });
    expect(bench.simulator.stats().polls).toBeLessThanOrEqual(48);
    expect(end.stderr + end.stdout).not.toContain(segment);
    await expectRows('out.csv', 40);
  }, 120_000);

  it('that go to a receiver with another secret are told of once, and cost no row', async () => {
    await bench.workspace.write('m.csv', manifestOf(30));
    await bench.workspace.write('secret', 'a secret of more than sixteen\n');
    const url = await receive('--webhook-secret-file', 'secret');
    const worker = await work('--webhook-url', url);
    const end = await bench.service.start('run', ['m.csv', '-o', 'out.csv', '--no-work', '--json']).ended;
    expect(JSON.parse(end.stdout)).toMatchObject({ described: 30, submits: 30, balanced: true });
    await expectRows('out.csv', 30);
    expect(bench.simulator.stats()).toMatchObject({ webhooksSent: 0, webhooksFailed: 30 });
    await untilSaid(worker, /completed and not delivered.*the same account, queue and secret/);
    expect(worker.stderr().match(/not delivered/g)).toHaveLength(1);
  }, 120_000);

  it('are received at a free address only', async () => {
    await bench.workspace.write('m.csv', manifestOf(3));
    const taken = `127.0.0.1:${bench.simulator.port}`;
    const flags = ['--webhook-url', 'http://hooks.test', '--webhook-listen', taken];
    const commands = [['run', 'm.csv'], ['worker'], ['serve'], ['webhook']];
    const ends = await Promise.all(
      commands.map(([name = '', ...args]) => bench.service.start(name, [...args, ...flags]).ended),
    );
    for (const { code, stdout, stderr } of ends) {
      expect([code, stdout]).toEqual([1, '']);
      expect(stderr).toBe(`bulk-describe: --webhook-listen ${taken}: it is in use; name another address\n`);
    }
    expect(await bench.workspace.files()).toEqual(['m.csv']);
  }, 120_000);
});
