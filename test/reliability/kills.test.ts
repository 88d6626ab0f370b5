import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { type QueueFixture, describeOnBothQueues } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { type RecordingProxy, startRecordingProxy } from './recording-proxy.js';
import { allIds, describedIds, endOf, kill9, startRun } from './run-process.js';

describeOnBothQueues('a run that is killed, and run again', (openQueue, kind) => {
  let workspace: Workspace;
  let simulator: Simulator;
  let proxy: RecordingProxy;
  let queue: QueueFixture;

  beforeEach(async () => {
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 30 });
    proxy = await startRecordingProxy(simulator.url);
    queue = await openQueue();
  });
  afterEach(async () => {
    await proxy.close();
    await simulator.close();
    await workspace.remove();
  });

  const start = () => startRun({ workspace, api: proxy.url, queue: queue.url });

  /** Every row once; what was paid for twice is at most what the receipt counts. */
  async function expectEachRowOnce(count: number, maybePaidTwice: number) {
    expect(await describedIds(workspace)).toEqual(allIds(count));
    expect(simulator.stats().paidByUrl.size).toBe(count);
    expect(simulator.stats().paid - count).toBeLessThanOrEqual(maybePaidTwice);
  }

  test('with images in flight: asks for each of them before it submits anything, and pays for none again', async () => {
    await workspace.write('m.csv', manifestOf(12));
    simulator.setOptions({ latencyMs: 1500, latencySpread: 0 });
    const killed = start();
    await waitUntil('eight are in flight, and asked for', () => {
      const asked = new Set(proxy.calls.filter((call) => call !== 'submit'));
      return asked.size === 8;
    });
    await kill9(killed);
    const inFlight = new Set(proxy.calls.filter((call) => call !== 'submit'));
    simulator.setOptions({ latencyMs: 30 });
    proxy.calls.splice(0);
    const { receipt } = await endOf(start());
    expect(receipt).toMatchObject({ described: 12, reattached: 8, maybePaidTwice: 0, submits: 4 });
    const beforeSubmits = proxy.calls.slice(0, proxy.calls.indexOf('submit'));
    expect(new Set(beforeSubmits)).toEqual(inFlight);
    expect(simulator.stats().paid).toBe(12);
    await expectEachRowOnce(12, 0);
  });

  test('with some submits on the wire: counts each of them, and asks first for what is in flight', async () => {
    await workspace.write('m.csv', manifestOf(10));
    simulator.setOptions({ latencyMs: 2000, latencySpread: 0, failures: { hang: 0.5 } });
    const killed = start();
    const asked = () => new Set(proxy.calls.filter((call) => call !== 'submit'));
    const hanging = () => simulator.stats().failures.hang ?? 0;
    await waitUntil('eight are paid for', () => asked().size + hanging() === 8);
    await kill9(killed);
    const inFlight = asked();
    const lost = hanging();
    expect(Math.min(inFlight.size, lost)).toBeGreaterThan(0);
    simulator.setOptions({ latencyMs: 30, failures: {} });
    proxy.calls.splice(0);
    const { receipt } = await endOf(start());
    expect(receipt).toMatchObject({ described: 10, reattached: inFlight.size, maybePaidTwice: lost });
    expect(new Set(proxy.calls.slice(0, proxy.calls.indexOf('submit')))).toEqual(inFlight);
    expect(simulator.stats().paid).toBe(10 + lost);
    await expectEachRowOnce(10, receipt.maybePaidTwice);
  });

  test('with images that wait for permits, again and again: counts none that was never submitted', async () => {
    await workspace.write('m.csv', manifestOf(20));
    simulator.setOptions({ latencySpread: 0 });
    const slow = () => startRun({ workspace, api: proxy.url, queue: queue.url, rate: '2/s' });
    // A message that has been asked for was stored before.
    const isEachStored = (atLeast: number) => {
      const polls = proxy.calls.filter((call) => call !== 'submit');
      const submits = proxy.calls.length - polls.length;
      return submits >= atLeast && new Set(polls).size === submits;
    };
    for (let kills = 1; kills <= 3; kills++) {
      const killed = slow();
      await waitUntil('six more are paid for, and each of them is stored', async () => {
        if (!isEachStored(6 * kills)) return false;
        killed.child.kill('SIGSTOP');
        // What it had sent by then is read in the next turns of the event loop.
        for (let turn = 0; turn < 10; turn++) await setImmediate();
        if (isEachStored(6 * kills)) return true;
        killed.child.kill('SIGCONT');
        return false;
      });
      await kill9(killed);
    }
    const { receipt } = await endOf(slow());
    // Of the ten that wait at each kill none is counted; on a busy machine one may just have been taken.
    expect(receipt.rows).toBe(20);
    expect(receipt.maybePaidTwice).toBeLessThanOrEqual(2);
    expect(simulator.stats().paid).toBe(20);
    await expectEachRowOnce(20, receipt.maybePaidTwice);
  });

  test('with results arriving, at any moment: no row is lost or written twice', async () => {
    const moment = Math.ceil(Math.random() * 40);
    await workspace.write('m.csv', manifestOf(50));
    const killed = start();
    await waitUntil(`row ${moment} is written`, async () => (await describedIds(workspace)).length >= moment);
    await kill9(killed);
    const before = simulator.stats().paid;
    const written = (await describedIds(workspace)).length;
    const { receipt } = await endOf(start());
    const about = `killed at row ${moment}, ${before} paid`;
    expect(receipt.described + receipt.resumed, about).toBe(50);
    expect(receipt.resumed, about).toBe(written);
    // Whatever had been paid for is in the output, was taken over, or is counted.
    expect(receipt.reattached + receipt.maybePaidTwice, about).toBeGreaterThanOrEqual(before - written);
    await expectEachRowOnce(50, receipt.maybePaidTwice);
  });

  // Nothing of it is in the queue.
  if (kind === 'embedded') return;

  test('with synchronous submits on the wire: counts each of them, and pays for it again', async () => {
    await workspace.write('m.csv', manifestOf(10));
    simulator.setOptions({ latencyMs: 60_000, latencySpread: 0 });
    const api = simulator.urlOf('openai');
    const again = () =>
      startRun({ workspace, api, queue: queue.url, flags: ['--dialect', 'openai', '--model', 'any'] });
    const killed = again();
    await waitUntil('eight are being described', () => simulator.stats().paid === 8);
    await kill9(killed);
    simulator.setOptions({ latencyMs: 30 });
    const { receipt } = await endOf(again());
    expect(receipt).toMatchObject({ rows: 10, described: 10, reattached: 0, maybePaidTwice: 8 });
    expect(simulator.stats().paid).toBe(18);
    await expectEachRowOnce(10, receipt.maybePaidTwice);
  });
});
