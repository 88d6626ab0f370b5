import { expect, test } from 'vitest';
import { describeOnRedis } from '../helpers/queues.js';
import { freePort } from '../helpers/redis.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { ProcessFixture } from './process-fixture.js';
import { untilSaid } from './service.js';
import { LIMITS, expectRows, receive, work } from './webhook-processes.js';

describeOnRedis('deliveries', (openQueue) => {
  const fixture = ProcessFixture.forSuite(openQueue, { latencyMs: 400 });

  test('wake a server that works and receives, for a run that is handed to it, and survive its restart', async () => {
    await fixture.workspace.write('m.csv', manifestOf(20));
    const port = await freePort();
    const webhooks = ['--webhook-url', `http://127.0.0.1:${port}`, '--webhook-listen', `127.0.0.1:${port}`];
    fixture.simulator.setOptions({ latencyMs: 4000, latencySpread: 0 });
    const first = await fixture.serve('--work', ...webhooks);
    expect(first.stderr()).toContain(`webhooks http://127.0.0.1:${port}\n`);
    expect((await fixture.command('enqueue', 'm.csv', '-o', 'out.csv')).code).toBe(0);
    await waitUntil('some are in flight', () => fixture.simulator.stats().paid > 0);
    first.child.kill('SIGTERM');
    expect((await first.ended).code).toBe(0);
    fixture.simulator.setOptions({ latencyMs: 400 });
    const server = await fixture.serve('--work', ...webhooks);
    await untilSaid(server, /out\.csv/);
    await waitUntil('all are described', async () => (await fixture.ids('out.csv')).length === 20);
    await expectRows(fixture, 20);
    expect(fixture.simulator.stats().paid).toBe(20);
    server.child.kill('SIGTERM');
    expect((await server.ended).code).toBe(0);
  }, 120_000);

  test('wake a worker that receives by itself', async () => {
    await fixture.workspace.write('m.csv', manifestOf(40));
    const port = await freePort();
    const listen = ['--webhook-listen', `127.0.0.1:${port}`];
    const worker = await work(fixture, '--webhook-url', `http://127.0.0.1:${port}/a/b/`, ...listen);
    expect(worker.stderr()).toContain(`webhooks http://127.0.0.1:${port}\n`);
    const end = await fixture.service.start('run', ['m.csv', '-o', 'out.csv', '--no-work', '--json']).ended;
    expect(JSON.parse(end.stdout)).toMatchObject({ described: 40, submits: 40, balanced: true });
    expect(fixture.simulator.stats().polls).toBeLessThanOrEqual(48);
    await expectRows(fixture, 40);
    worker.child.kill('SIGINT');
    expect((await worker.ended).code).toBe(0);
  }, 120_000);

  test('wake a run whose receiver is another process, which has the same secret from a file', async () => {
    await fixture.workspace.write('m.csv', manifestOf(40));
    await fixture.workspace.write('secret', 'a secret of more than sixteen\n');
    const secret = ['--webhook-secret-file', 'secret'];
    const url = await receive(fixture, ...secret);
    const shown = await receive(fixture, ...secret, '--show-url', '--webhook-url', 'https://hooks.example/a');
    expect(shown).toMatch(/^https:\/\/hooks\.example\/a\/[\w-]{32}$/);
    const segment = shown.split('/').at(-1) ?? '';
    const post = async (path: string) =>
      (await fetch(`${url}/${path}`, { method: 'POST', body: '{}' })).status;
    expect([await post(`x/${segment}`), await post('x')]).toEqual([400, 404]);
    const about = [...secret, '--webhook-url', `${url}/hooks`, ...LIMITS, '--json'];
    const end = await fixture.service.start('run', ['m.csv', '-o', 'out.csv', ...about]).ended;
    expect([end.code, end.signal], end.stderr).toEqual([0, null]);
    expect(JSON.parse(end.stdout)).toMatchObject({ described: 40, submits: 40, balanced: true });
    expect(fixture.simulator.stats().polls).toBeLessThanOrEqual(48);
    expect(end.stderr + end.stdout).not.toContain(segment);
    await expectRows(fixture, 40);
  }, 120_000);

  test('that go to a receiver with another secret are told of once, and cost no row', async () => {
    await fixture.workspace.write('m.csv', manifestOf(30));
    await fixture.workspace.write('secret', 'a secret of more than sixteen\n');
    const url = await receive(fixture, '--webhook-secret-file', 'secret');
    const worker = await work(fixture, '--webhook-url', url);
    const end = await fixture.service.start('run', ['m.csv', '-o', 'out.csv', '--no-work', '--json']).ended;
    expect(JSON.parse(end.stdout)).toMatchObject({ described: 30, submits: 30, balanced: true });
    await expectRows(fixture, 30);
    expect(fixture.simulator.stats()).toMatchObject({ webhooksSent: 0, webhooksFailed: 30 });
    await untilSaid(worker, /completed and not delivered.*the same account, queue and secret/);
    expect(worker.stderr().match(/not delivered/g)).toHaveLength(1);
  }, 120_000);

  test('are received at a free address only', async () => {
    await fixture.workspace.write('m.csv', manifestOf(3));
    const taken = `127.0.0.1:${fixture.simulator.port}`;
    const flags = ['--webhook-url', 'http://hooks.test', '--webhook-listen', taken];
    const commands = [['run', 'm.csv'], ['worker'], ['serve'], ['webhook']];
    const ends = await Promise.all(
      commands.map(([name = '', ...args]) => fixture.service.start(name, [...args, ...flags]).ended),
    );
    for (const { code, stdout, stderr } of ends) {
      expect([code, stdout]).toEqual([1, '']);
      expect(stderr).toBe(`bulk-describe: --webhook-listen ${taken}: it is in use; name another address\n`);
    }
    expect(await fixture.workspace.files()).toEqual(['m.csv']);
  }, 120_000);
});
