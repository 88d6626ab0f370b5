import { rename } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { RUNS_QUEUE, type RunOutcome, type RunRequest } from '../../src/service/run-request.js';
import { accountOf } from '../../src/run/api-options.js';
import { describeQueueName } from '../../src/shared/account.js';
import type { DescribeJobData, ResultJobData } from '../../src/shared/jobs.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { describeOnRedis } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { manifestOf } from '../helpers/workspace.js';
import { ProcessFixture } from './process-fixture.js';
import { untilSaid } from './service.js';

/** Keeps what each end of a run is told, on a line of its own. */
const KEEP_ENDS = ['--on-done', 'cat >> "ends-$BULK_DESCRIBE_EXIT.jsonl"'];
/** Their dates are never the same. */
const FIRST_ZONE = 'Pacific/Kiritimati';
const LAST_ZONE = 'Pacific/Pago_Pago';

const receiptSchema = z.object({ described: z.number(), output: z.string(), balanced: z.literal(true) });
const skippedSchema = z.object({ error: z.string() });
const listedSchema = z.tuple([
  z.object({
    name: z.literal('nightly'),
    next: z.iso.datetime(),
    last: z.object({ at: z.iso.datetime(), exitCode: z.number(), text: z.string() }).nullable(),
    lastSuccess: z.iso.datetime().nullable(),
  }),
]);

describeOnRedis('nights of a server as a process', (openQueue) => {
  const fixture = ProcessFixture.forSuite(openQueue);

  async function schedule(...args: string[]): Promise<string> {
    const end = await fixture.command('schedule', ...args);
    expect(end.code, end.stderr).toBe(0);
    return end.stdout;
  }

  const addNightly = (cron: string, timeZone = FIRST_ZONE) =>
    schedule('add', 'nightly', 'm.csv', '-o', 'night-{date}.csv', '--cron', cron, '--tz', timeZone);

  const listed = async () => listedSchema.parse(JSON.parse(await schedule('list', '--json')))[0];

  const runsOf = (connection: QueueConnection) => connection.queue<RunRequest, RunOutcome>(RUNS_QUEUE);

  /** All at once, since a night may begin at any time. */
  async function replaceManifest(text: string): Promise<void> {
    await rename(await fixture.workspace.write('m.csv.new', text), fixture.workspace.at('m.csv'));
  }

  /** What --on-done was told for an exit code, in order. */
  async function ends(exitCode: number): Promise<unknown[]> {
    const text = await fixture.workspace.read(`ends-${exitCode}.jsonl`).catch(() => '');
    const whole = text.slice(0, text.lastIndexOf('\n') + 1).split('\n');
    return whole.flatMap((line): unknown[] => (line === '' ? [] : [JSON.parse(line)]));
  }

  const receipts = async () => (await ends(0)).map((end) => receiptSchema.parse(end));
  const described = async () => (await receipts()).reduce((sum, receipt) => sum + receipt.described, 0);
  const outputs = async () =>
    (await fixture.workspace.files()).filter((name) => /^night-[\d-]+\.csv$/.test(name));
  const timesPaid = () => [...fixture.simulator.stats().paidByUrl.values()];

  test(
    'pay only for what the manifest has gained, in a file of their date, and end with their schedule',
    { timeout: 150_000 },
    async () => {
      await replaceManifest(manifestOf(3));
      await fixture.serve('--work', ...KEEP_ENDS);
      expect(await addNightly('* * * * * *')).toMatch(/^added +nightly\nnext /);
      await waitUntil('the first night is described', async () => (await described()) === 3);
      // Grown, shrunk, and in another order.
      await replaceManifest('id,image\n9,http://images.test/9.jpg\n2,http://images.test/2.jpg\n');
      await waitUntil('so is what came', async () => (await described()) === 4);
      const [first = ''] = await outputs();

      expect(await addNightly('* * * * * *', LAST_ZONE)).toMatch(/^changed +nightly\n +timeZone: /);
      await waitUntil('another date begins a file', async () => (await outputs()).length === 2);
      await replaceManifest(manifestOf(5));
      await waitUntil('with what came since', async () => (await described()) === 6);
      const second = (await outputs()).find((name) => name !== first) ?? '';
      expect([await fixture.ids(first), await fixture.ids(second)]).toEqual([
        [1, 2, 3, 9],
        [4, 5],
      ]);
      expect([timesPaid(), fixture.simulator.stats().submits]).toEqual([[1, 1, 1, 1, 1, 1], 6]);

      expect(await schedule('remove', 'nightly')).toMatch(/^removed +nightly/);
      const connection = await fixture.queue.connect();
      const runs = runsOf(connection);
      await waitUntil(
        'the last night is over',
        async () => (await runs.getJobCountByTypes('waiting', 'active', 'delayed')) === 0,
      );
      const nights = (await receipts()).length;
      const removedAt = Date.now();
      await waitUntil('several times pass', () => Date.now() > removedAt + 3500);
      expect((await receipts()).length).toBe(nights);
      expect(await schedule('list')).toMatch(/^no schedules/);
    },
  );

  test('are skipped when they come while the one before still goes on, and that is said everywhere', async () => {
    await replaceManifest(manifestOf(2));
    // Nobody works yet.
    const server = await fixture.serve(...KEEP_ENDS);
    await addNightly('* * * * * *');
    await waitUntil('turns are skipped', async () => (await ends(5)).length >= 2);
    for (const end of await ends(5)) {
      expect(skippedSchema.parse(end).error).toMatch(
        /^the run that began at \S+Z is still going on \(night-/,
      );
    }
    await untilSaid(
      server,
      /^skipped: night-\S+\.csv \(exit code 5\): the run that began at .* is still going on/m,
    );
    const { last, lastSuccess } = await listed();
    expect([last?.exitCode, lastSuccess]).toEqual([5, null]);
    expect(last?.text).toMatch(/^skipped: the run that began at /);
    await fixture.work();
    await waitUntil('the first turn ends', async () => (await described()) === 2);
    expect(timesPaid()).toEqual([1, 1]);
    await waitUntil('its success is kept', async () => (await listed()).lastSuccess !== null);
  });

  test('run once when the server is back, if several were missed meanwhile', async () => {
    await replaceManifest(manifestOf(2));
    const first = await fixture.serve('--work', ...KEEP_ENDS);
    await addNightly('*/2 * * * * *');
    await waitUntil('a night is over', async () => (await described()) === 2);
    const runs = runsOf(await fixture.queue.connect());
    // A night that is killed on its way would go on first, and those that come meanwhile would be skipped.
    await waitUntil('none goes on, nor is about to', async () => {
      const next = Math.min(...(await runs.getDelayed()).map(({ timestamp, delay }) => timestamp + delay));
      return next > Date.now() + 500 && (await runs.getActiveCount()) === 0;
    });
    first.child.kill('SIGKILL');
    await first.ended;
    await replaceManifest(manifestOf(4));
    const missedSince = Date.parse((await listed()).next);
    await waitUntil('three times pass', () => Date.now() > missedSince + 5000);
    const before = await runs.getCompletedCount();
    const startedAt = Date.now();
    await fixture.serve('--work', ...KEEP_ENDS);
    await waitUntil('the missed night is described', async () => (await described()) === 4);
    const turns = (await runs.getJobs(['completed', 'active'], 0, -1, true)).slice(before);
    expect(turns.filter(({ timestamp, delay }) => timestamp + delay < startedAt)).toHaveLength(1);
    await waitUntil('they go on', async () => (await runs.getCompletedCount()) > before + 1);
    expect(timesPaid()).toEqual([1, 1, 1, 1]);
  });

  test(
    'go on after a kill in the middle of one, in the file that it began, and nothing is paid twice',
    { timeout: 150_000 },
    async () => {
      fixture.simulator.setOptions({ latencyMs: 3000 });
      await replaceManifest(manifestOf(8));
      const first = await fixture.serve('--work', ...KEEP_ENDS);
      await addNightly('*/2 * * * * *');
      const queueName = describeQueueName(accountOf({ api: fixture.simulator.url }));
      const queue = (await fixture.queue.connect()).queue<DescribeJobData, ResultJobData>(queueName);
      // An answer that the kill cuts off is paid for again, and counted: that is another test's affair.
      await waitUntil('some are in flight, and the answers to their submits are stored', async () => {
        const active = await queue.getActive();
        return active.filter(({ data }) => data.messageId !== undefined).length >= 5;
      });
      first.child.kill('SIGKILL');
      await first.ended;
      const begun = await outputs();
      await fixture.serve('--work', ...KEEP_ENDS);
      await waitUntil('all are described', async () => (await described()) === 8);
      expect(await outputs()).toEqual(begun);
      expect(await fixture.ids(begun[0] ?? '')).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
      await waitUntil('a night has nothing to do', async () =>
        (await receipts()).some((receipt) => receipt.described === 0),
      );
      expect(timesPaid()).toEqual([1, 1, 1, 1, 1, 1, 1, 1]);
    },
  );
});
