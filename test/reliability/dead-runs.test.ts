import { rm, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { startCli } from '../helpers/cli.js';
import { type QueueFixture, describeOnBothQueues, describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace, manifestOf } from '../helpers/workspace.js';
import { allIds, describedIds, endOf, kill9, startRun } from './run-process.js';

const ROWS = 100;
const FLAGS = ['--rate', '100/s', '--poll-rate', '500/s', '--max-in-flight', '8'];

/** A folder and an API for each test; `killed` leaves a dead run's whole window of images in the queue. */
class Scene {
  workspace!: Workspace;
  simulator!: Simulator;
  queue!: QueueFixture;

  constructor(openQueue: () => Promise<QueueFixture>) {
    beforeEach(async () => {
      this.workspace = await Workspace.create();
      this.simulator = await startSimulator({ latencyMs: 300, latencySpread: 0 });
      this.queue = await openQueue();
    });
    afterEach(async () => {
      await this.simulator.close();
      await this.workspace.remove();
    });
  }

  start(flags: readonly string[] = [], rate = '100/s') {
    const { workspace, simulator, queue } = this;
    return startRun({ workspace, api: simulator.url, queue: queue.url, rate, flags });
  }

  async killed(): Promise<{ readonly paid: number }> {
    await this.workspace.write('m.csv', manifestOf(ROWS));
    const run = this.start();
    await waitUntil('15 are submitted', () => this.simulator.stats().paid >= 15);
    await kill9(run);
    return { paid: this.simulator.stats().paid };
  }

  /** Another manifest of images of its own, on the same account. */
  async other(...flags: string[]) {
    await this.workspace.write('other.csv', manifestOf(30, 'http://other.test'));
    return startCli(
      [
        'run',
        'other.csv',
        '-o',
        'other.out.csv',
        '--api',
        this.simulator.url,
        '--queue',
        this.queue.url,
        ...FLAGS,
        ...flags,
        '--json',
        '--no-progress',
      ],
      { cwd: this.workspace.path, env: { DESCRIBE_API_TOKEN: 'any' } },
    );
  }
}

describeOnBothQueues('what a killed run has left in the queue', (openQueue, kind) => {
  const scene = new Scene(openQueue);

  test('is not paid for by another run, whose --limit is true; the same command still ends it', async () => {
    const { paid } = await scene.killed();
    const { receipt } = await endOf(await scene.other('--limit', '20'));
    expect(receipt).toMatchObject({ rows: 30, described: 20, remaining: 10, submits: 20 });
    expect(scene.simulator.stats().paid).toBe(paid + 20);
    const { receipt: resumed } = await endOf(scene.start());
    expect(resumed.described + resumed.resumed).toBe(ROWS);
    expect(await describedIds(scene.workspace)).toEqual(allIds(ROWS));
    expect(scene.simulator.stats().paid - 20).toBeLessThanOrEqual(ROWS + resumed.maybePaidTwice);
  });

  test('is paid for once when its run file is lost, but for what was in flight, which is counted', async () => {
    const { paid } = await scene.killed();
    const written = (await describedIds(scene.workspace)).length;
    await rm(scene.workspace.at('out.csv.run'));
    const { receipt, stderr } = await endOf(scene.start());
    expect(receipt).toMatchObject({ rows: ROWS, described: ROWS - written, resumed: written });
    const paidTwice = scene.simulator.stats().paid - ROWS;
    expect(paidTwice).toBeLessThanOrEqual(receipt.maybePaidTwice);
    // What waited for its permit may have been submitted, for all that the queue knows: eight at most.
    expect(receipt.maybePaidTwice).toBeLessThanOrEqual(paid - written + 8);
    const [, found] = /for runs that no longer have a coordinator: (\d+) images?/.exec(stderr) ?? [];
    expect(Number(found)).toBeGreaterThanOrEqual(receipt.maybePaidTwice);
  });

  // The rest is about files and limits, whatever the queue.
  if (kind === 'embedded') return;

  test.each([
    ['beyond --limit', ROWS, ['--limit', '3'], 3],
    ['when the rows have left the manifest', 2, [], 2],
  ])('and met a 429 is not paid for %s', async (_what, rows, flags, most) => {
    const { simulator, workspace } = scene;
    await workspace.write('m.csv', manifestOf(ROWS));
    simulator.setOptions({ rateLimit: { count: 10, perMs: 2000 } });
    const killed = scene.start();
    await waitUntil('some are refused', () => simulator.stats().answered429 >= 5);
    await waitUntil('the others are written', async () => (await describedIds(workspace)).length >= 10);
    await kill9(killed);
    const { paid } = simulator.stats();
    simulator.setOptions({ rateLimit: null });
    const others = manifestOf(rows, rows < ROWS ? 'http://other.test' : undefined);
    await workspace.write('m.csv', others);
    const { receipt } = await endOf(scene.start([...flags, '--pay-again', String(ROWS)]));
    // What was in flight at the kill is paid for, and described as well.
    expect(receipt.submits).toBe(most);
    expect(receipt.described).toBeGreaterThanOrEqual(most);
    expect(simulator.stats().paid - paid).toBe(most);
    await workspace.write('m.csv', manifestOf(ROWS));
    const { receipt: last } = await endOf(scene.start(['--pay-again', String(ROWS)]));
    expect(last).toMatchObject({ rows: ROWS, remaining: 0, failed: 0 });
    expect(simulator.stats().paidByUrl.size).toBe(ROWS + (rows < ROWS ? rows : 0));
    expect(simulator.stats().paid).toBeLessThanOrEqual(
      simulator.stats().paidByUrl.size + last.maybePaidTwice,
    );
  });

  test('is counted in the message about a run file that was emptied', async () => {
    await scene.killed();
    await writeFile(scene.workspace.at('out.csv.run'), '');
    const { code, stderr, stdout } = await scene.start().ended;
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/it is no JSON object; restore it, or remove it .* \(\d+ images? in flight/);
  });
});

describeOnRedis('a run file that is a copy', (openQueue) => {
  const scene = new Scene(openQueue);

  test('is refused while the output that it belongs to is there', async () => {
    await scene.workspace.write('m.csv', manifestOf(3));
    await endOf(scene.start());
    const { workspace } = scene;
    await workspace.write('copy.csv.run', await workspace.read('out.csv.run'));
    const copied = await startCli(
      ['run', 'm.csv', '-o', 'copy.csv', '--api', scene.simulator.url, '--queue', scene.queue.url],
      { cwd: workspace.path, env: { DESCRIBE_API_TOKEN: 'any' } },
    ).ended;
    expect(copied.code).toBe(1);
    expect(copied.stderr).toContain('is the run file of');
    expect(scene.simulator.stats().paid).toBe(3);
  });
});

describeOnRedis('a coordinator that is frozen', (openQueue) => {
  const scene = new Scene(openQueue);

  test('is not paid for meanwhile, and takes up what was set aside when it goes on', async () => {
    const rows = 120;
    await scene.workspace.write('m.csv', manifestOf(rows));
    const frozen = scene.start(['--no-work'], '5/s');
    const api = ['--api', scene.simulator.url, '--queue', scene.queue.url];
    const worker = startCli(['worker', ...api], {
      cwd: scene.workspace.path,
      env: { DESCRIBE_API_TOKEN: 'any' },
    });
    await waitUntil('some are submitted', () => scene.simulator.stats().paid >= 5);
    frozen.child.kill('SIGSTOP');
    const connection = await scene.queue.connect();
    const [queueName] = [...(await connection.store.members('accounts')).keys()];
    const queue = connection.queue(queueName ?? '');
    await waitUntil(
      'what it has added is set aside',
      async () => (await queue.getWaitingCount()) === 0,
      60_000,
    );
    const { paid } = scene.simulator.stats();
    expect(paid).toBeLessThan(rows);
    frozen.child.kill('SIGCONT');
    const { receipt } = await endOf(frozen);
    worker.child.kill('SIGTERM');
    await worker.ended;
    expect(receipt).toMatchObject({ rows, described: rows, failed: 0, maybePaidTwice: 0 });
    expect(scene.simulator.stats().paid).toBe(rows);
  });
});
