import { expect, test } from 'vitest';
import { imageHash } from '../../src/producer/image-url.js';
import { accountOf } from '../../src/run/api-options.js';
import type { RunEvent } from '../../src/run/run-options.js';
import { describeQueueName } from '../../src/shared/account.js';
import { AccountLimits } from '../../src/shared/account-limits.js';
import { describeJobId } from '../../src/shared/jobs.js';
import { silentLogger } from '../../src/shared/log.js';
import { orderRun, readRunOrders, runLeaseName } from '../../src/shared/run-leases.js';
import { RUNS } from '../../src/shared/published.js';
import { RunFixture, FAST } from '../helpers/run-fixture.js';
import { acts, refuse, startScriptedApi } from '../reliability/scripted-api.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';

const url = (id: number) => `http://images.test/${id}.jpg`;
const timing = { tickMs: 50 };

/** Notes the run's id when its files are open. */
function noteRun(): { onEvent: (event: RunEvent) => void; id: () => string } {
  let run = '';
  return {
    onEvent: (event) => {
      if (event.type === 'opened') run = event.run;
    },
    id: () => run,
  };
}

describeOnRedis('what others want of a run', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);

  test('a cancelled run submits nothing more, finishes what is in flight, exit 130', async () => {
    const { workspace, simulator } = fixture;
    simulator.setOptions({ latencyMs: 1500, latencySpread: 0 });
    const manifest = await workspace.write('m.csv', manifestOf(60));
    const note = noteRun();
    const limits = { ...FAST, maxInFlight: 4 };
    const running = fixture.run({ manifest, timing, onEvent: note.onEvent, limits });
    await waitUntil('some are in flight', () => simulator.stats().paid >= 4);
    const connection = await fixture.queue.connect();
    await orderRun(connection.store, note.id(), 'cancel');
    await waitUntil('the server tells that it stops', async () =>
      (await RUNS.list(connection.store)).some((run) => run.run === note.id() && run.stopping !== undefined),
    );
    const paid = simulator.stats().paid;
    const { receipt, exitCode, stop } = await running;
    expect([exitCode, stop?.kind]).toEqual([130, 'cancelled']);
    // One that was on its way to the API in that moment is paid for, and kept.
    expect(simulator.stats().paid).toBeLessThanOrEqual(paid + 4);
    expect(receipt.described).toBe(simulator.stats().paid);
    expect(receipt).toMatchObject({ failed: 0, remaining: receipt.rows - receipt.described });
    expect(await readRunOrders(connection.store, note.id())).toEqual({ cancel: false, retryAll: false });
    await fixture.atBoard(receipt.run, async ({ jobs }) => {
      expect(await jobs.getJobCountByTypes('waiting', 'delayed', 'active')).toBe(0);
    });

    simulator.setOptions({ latencyMs: 30 });
    const rest = await fixture.run({ manifest });
    expect(rest.receipt).toMatchObject({ resumed: receipt.described, submits: 60 - receipt.described });
    expect(simulator.stats().paid).toBe(60);
  });

  test('a run that another process has is refused before anything is changed that the other goes by', async () => {
    const { workspace } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(4));
    const limits = { rate: { count: 50, perMs: 1000 }, maxInFlight: 2 };
    const { receipt } = await fixture.run({ manifest, limit: 1, limits });
    const { store } = await fixture.queue.connect();
    await store.lease(runLeaseName(receipt.run), 'elsewhere/1/x', 120_000);
    const phases: string[] = [];
    const onEvent = (event: RunEvent) => event.type === 'phase' && phases.push(event.text);
    const others = { rate: { count: 1, perMs: 1000 }, maxInFlight: 9 };
    await expect(fixture.run({ manifest, limits: others, onEvent })).rejects.toThrow(
      `another process has the run ${receipt.run}: pid 1 on elsewhere`,
    );
    expect(phases.join()).toContain('another process has the run (pid 1 on elsewhere), or has died: waiting');
    const queueName = describeQueueName(accountOf({ api: fixture.simulator.url }));
    const { configured } = await AccountLimits.open(store, queueName, {}, silentLogger());
    expect(configured).toMatchObject(limits);
  });

  test('a cancelled run does not submit again what expires meanwhile', async () => {
    const { workspace, simulator } = fixture;
    simulator.setOptions({ latencyMs: 1500, latencySpread: 0, failures: { incomplete: 1 } });
    const manifest = await workspace.write('m.csv', manifestOf(20));
    const note = noteRun();
    const running = fixture.run({
      manifest,
      timing,
      onEvent: note.onEvent,
      limits: { ...FAST, maxInFlight: 4 },
    });
    await waitUntil('some are in flight', () => simulator.stats().paid >= 4);
    const connection = await fixture.queue.connect();
    await orderRun(connection.store, note.id(), 'cancel');
    await waitUntil('it stops', async () =>
      (await RUNS.list(connection.store)).some((run) => run.run === note.id() && run.stopping !== undefined),
    );
    const { paid } = simulator.stats();
    const { receipt } = await running;
    expect(simulator.stats().paid).toBeLessThanOrEqual(paid + 4);
    expect(receipt).toMatchObject({ described: 0, failed: 0, remaining: receipt.rows });
    simulator.setOptions({ latencyMs: 30, failures: {} });
    expect((await fixture.run({ manifest })).receipt).toMatchObject({ described: 20, remaining: 0 });
  });

  test('a cancelled run whose rows failed before leaves them failed', async () => {
    const { workspace, simulator } = fixture;
    simulator.setOptions({ failures: { incomplete: 1 } });
    const manifest = await workspace.write('m.csv', manifestOf(8));
    await fixture.run({ manifest, attempts: 1 });
    simulator.setOptions({ failures: {}, latencyMs: 1200 });
    const note = noteRun();
    const limits = { ...FAST, maxInFlight: 1 };
    const running = fixture.run({ manifest, timing, onEvent: note.onEvent, limits });
    await waitUntil('one is in flight', () => simulator.stats().paid > 8);
    const connection = await fixture.queue.connect();
    await orderRun(connection.store, note.id(), 'cancel');
    const { receipt } = await running;
    expect(receipt.described).toBeGreaterThan(0);
    expect(receipt).toMatchObject({ failed: 8 - receipt.described, remaining: 0 });
  });

  test('a mark makes the next start take permanent failures up again, once', async () => {
    const { workspace, simulator } = fixture;
    simulator.setOptions({ failures: { reject: 1 } });
    const manifest = await workspace.write('m.csv', manifestOf(3));
    const { receipt } = await fixture.run({ manifest });
    const connection = await fixture.queue.connect();
    await orderRun(connection.store, receipt.run, 'retryAll');
    const marked = await fixture.run({ manifest });
    expect(marked.receipt).toMatchObject({ submits: 3, failed: 3 });
    expect((await fixture.run({ manifest })).receipt).toMatchObject({ submits: 0, failed: 3 });
    simulator.setOptions({ failures: {} });
    const all = await fixture.run({ manifest, retryAll: true });
    expect(all.receipt).toMatchObject({ submits: 3, described: 3, failed: 0 });
    await fixture.expectRows(['1', '2', '3'], []);
  });

  test('a failed job that is put back while its run goes on is written at once, with its copies', async () => {
    const { workspace, simulator } = fixture;
    const rows = [1, 2, 1].map((image, index) => `${index + 1},${url(image)}\n`);
    const manifest = await workspace.write('m.csv', `id,image\n${rows.join('')}`);
    simulator.setOptions({ failures: { reject: 1 } });
    const note = noteRun();
    const first = await fixture.run({ manifest, onEvent: note.onEvent });
    expect(first.receipt.failed).toBe(3);

    // The new image keeps the run going while somebody presses retry.
    await workspace.write('m.csv', `id,image\n${rows.join('')}4,http://images.test/slow.jpg\n`);
    simulator.setOptions({ failures: {}, latencyMs: 4000, latencySpread: 0 });
    const running = fixture.run({ manifest, timing });
    await waitUntil('the new one is in flight', () =>
      simulator.stats().paidByUrl.has('http://images.test/slow.jpg'),
    );
    simulator.setOptions({ latencyMs: 30 });
    await fixture.atBoard(first.receipt.run, async ({ jobOf }) => {
      await (await jobOf(url(1)))?.retry();
      await waitUntil('its rows are written', async () => (await fixture.ids('out.csv')).length === 2);
    });
    const { receipt, failedByCode } = await running;
    expect(receipt).toMatchObject({ rows: 4, described: 2, copied: 1, failed: 1, remaining: 0, submits: 2 });
    expect(failedByCode.get('rejected')).toBe(1);
    await fixture.expectRows(['1', '3', '4'], ['2']);
  });

  test.each([[undefined], ['id']])(
    'one that failed in this very run is written too, after it has failed again (key column: %s)',
    async (keyColumn) => {
      const { workspace } = fixture;
      let isReleased = false;
      const api = await startScriptedApi({
        submit: (image, nth) =>
          image === url(1) && nth < 3 ? refuse(400, {}, { success: false, msg: 'no' }) : undefined,
        poll: (image) => (image === url(3) && !isReleased ? acts.answer(200, { progress: 5 }) : undefined),
      });
      const duplicate = keyColumn === undefined ? '' : `2,${url(9)}\n`;
      const rows = `1,${url(1)}\n2,${url(2)}\n4,\n${duplicate}5,${url(1)}\n3,${url(3)}\n`;
      const manifest = await workspace.write('m.csv', `id,image\n${rows}`);
      const note = noteRun();
      const running = fixture.run({ manifest, api: api.url, keyColumn, timing, onEvent: note.onEvent });
      const connection = await fixture.queue.connect();
      const jobs = connection.queue(describeQueueName(accountOf({ api: api.url })));
      const retry = async (submits: number) => {
        const job = () => jobs.getJob(describeJobId(note.id(), imageHash(url(1))));
        await waitUntil('it has failed', async () => (await (await job())?.getState()) === 'failed');
        await waitUntil('its failure is known', () => api.submits >= submits);
        await (await job())?.retry();
      };
      await retry(3);
      await waitUntil('it is submitted again', () => api.submits === 4);
      await retry(4);
      await waitUntil('it is written', async () => (await fixture.ids('out.csv')).length === 3);
      isReleased = true;
      const { receipt, failedByCode, exitCode } = await running;
      await api.close();
      const duplicates = keyColumn === undefined ? 0 : 1;
      expect(receipt).toMatchObject({
        rows: 5 + duplicates,
        described: 3,
        copied: 1,
        submits: 5,
        remaining: 0,
      });
      expect(receipt.failed).toBe(1 + duplicates);
      expect([exitCode, failedByCode.has('rejected')]).toEqual([2, false]);
      await fixture.expectRows(['1', '2', '3', '5'], duplicates === 0 ? ['4'] : ['2', '4']);
      const again = await fixture.run({ manifest, api: api.url, keyColumn });
      expect(again.receipt).toMatchObject({ resumed: 4, submits: 0, failed: 1 + duplicates });
    },
  );

  test('a run that only collects pays for what somebody has put back, and for nothing else', async () => {
    const { workspace, simulator } = fixture;
    const manifest = await workspace.write('m.csv', manifestOf(4));
    simulator.setOptions({ failures: { incomplete: 1 } });
    const { receipt } = await fixture.run({ manifest, attempts: 1 });
    simulator.setOptions({ failures: {} });
    const { paid } = simulator.stats();
    await fixture.atBoard(receipt.run, async ({ jobOf, withWorker }) => {
      await (await jobOf(url(2)))?.retry();
      await withWorker(() =>
        waitUntil('it is set aside', async () => (await jobOf(url(2)))?.isDelayed() ?? false),
      );
    });
    expect(simulator.stats().paid).toBe(paid);
    const collected = await fixture.run({ manifest, collectOnly: true });
    expect(collected.receipt).toMatchObject({ described: 1, failed: 3, remaining: 0, submits: 1 });
    expect(simulator.stats().paid).toBe(paid + 1);
    await fixture.expectRows(['2'], ['1', '3', '4']);
  });
});
