import { expect, onTestFinished, test } from 'vitest';
import { describeOnRedis } from '../helpers/queues.js';
import { Forger, spoilDeliveries } from '../helpers/spoilt-deliveries.js';
import { manifestOf } from '../helpers/workspace.js';
import { ProcessFixture } from './process-fixture.js';
import { LIMITS, expectRows, receive, work } from './webhook-processes.js';

describeOnRedis('deliveries', (openQueue) => {
  const fixture = ProcessFixture.forSuite(openQueue, { latencyMs: 400 });

  /** Two workers, a receiver and a coordinator, each a process. */
  const describeAll = async (count: number) => {
    await fixture.workspace.write('m.csv', manifestOf(count));
    const url = await receive(fixture);
    const workers = await Promise.all([1, 2].map(() => work(fixture, '--webhook-url', `${url}/hooks`)));
    const coordinator = fixture.service.start('run', [
      'm.csv',
      '-o',
      'out.csv',
      '--no-work',
      '--json',
      ...LIMITS,
    ]);
    const end = await coordinator.ended;
    expect([end.code, end.signal], end.stderr).toEqual([0, null]);
    expect(JSON.parse(end.stdout)).toMatchObject({
      described: count,
      submits: count,
      maybePaidTwice: 0,
      rescued: 0,
      balanced: true,
    });
    await expectRows(fixture, count);
    for (const worker of workers) {
      worker.child.kill('SIGTERM');
      expect((await worker.ended).code).toBe(0);
      expect(worker.stderr()).not.toMatch(/defect|nhandled/);
    }
    const stats = fixture.simulator.stats();
    expect(stats.paid).toBe(count);
    return { ...stats, pollsEach: stats.polls / count };
  };

  test('that a process receives wake the workers in two others: one poll for an image', async () => {
    const { pollsEach, webhooksSent } = await describeAll(500);
    expect(webhooksSent).toBe(500);
    expect(pollsEach).toBeGreaterThanOrEqual(1);
    expect(pollsEach).toBeLessThanOrEqual(1.2);
  }, 120_000);

  test('that are all lost cost time, and no row', async () => {
    spoilDeliveries(fixture.simulator, { lost: 1 });
    const { webhooksSent } = await describeAll(500);
    expect(webhooksSent).toBe(0);
  }, 120_000);

  test('that are forged, 200 a second, cost a few polls, and each row has the prompts of its own image', async () => {
    const forger = new Forger(fixture.simulator, 200);
    onTestFinished(() => forger.stop());
    const { pollsEach } = await describeAll(500);
    expect(forger.sent).toBeGreaterThan(300);
    // Three deliveries of one message lead to a poll each; by the clock it is polled rarely.
    expect(pollsEach).toBeLessThan(5);
  }, 120_000);

  test('that are late, early and doubled do no harm', async () => {
    const spoilt = spoilDeliveries(fixture.simulator, { late: 0.3, early: 0.3, doubled: 0.3 });
    await describeAll(150);
    expect([...spoilt.keys()].sort()).toEqual(['doubled', 'early', 'late']);
  }, 120_000);
});
