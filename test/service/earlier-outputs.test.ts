import { rm, writeFile } from 'node:fs/promises';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { describeManifest } from '../../src/run/describe-manifest.js';
import type { Preview, RunOptions } from '../../src/run/run-options.js';
import { verifyOutput } from '../../src/run/receipt.js';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { type QueueFixture, describeOnBothQueues } from '../helpers/queues.js';
import { waitUntil } from '../helpers/wait-until.js';
import { Workspace } from '../helpers/workspace.js';

/** A row of a property's manifest: its key, and the image it shows. */
interface NightRow {
  readonly key: number;
  readonly image: number;
}

/** One night's manifest, and how it is run. */
interface Night {
  readonly rows: readonly NightRow[];
  readonly limit: number | undefined;
  /** The same night's command once more, without the limit. */
  readonly again: boolean;
}

const nightRow = fc.record({ key: fc.nat(9), image: fc.nat(4) });
const night = fc.record({
  rows: fc.uniqueArray(nightRow, { minLength: 1, maxLength: 9, selector: ({ key }) => key }),
  limit: fc.option(
    fc.nat(2).map((less) => less + 1),
    { nil: undefined, freq: 3 },
  ),
  again: fc.boolean(),
});

describeOnBothQueues('rows of earlier files', (openQueue, kind) => {
  let workspace: Workspace;
  let simulator: Simulator;
  let queue: QueueFixture;
  let cases = 0;

  beforeAll(async () => {
    queue = await openQueue();
    workspace = await Workspace.create();
    simulator = await startSimulator({ latencyMs: 0 });
  });
  afterAll(async () => {
    await simulator.close();
    await workspace.remove();
    await queue.cleanup();
  });

  async function run(options: Partial<RunOptions> & { manifest: string; output: string }) {
    const rate = { count: 1000, perMs: 1000 };
    const previews: Preview[] = [];
    const result = await describeManifest({
      api: simulator.url,
      token: 'any',
      queue: queue.url,
      limits: { rate, pollRate: rate, maxInFlight: 50 },
      onEvent: (event) => {
        if (event.type === 'preview') previews.push(event.preview);
      },
      ...options,
    });
    if (result.receipt === undefined) throw new Error('no receipt');
    expect(result.differences).toEqual([]);
    return { receipt: result.receipt, preview: previews[0] };
  }

  /** Times that each image of a host has been paid for. */
  function paidOf(host: string): number[] {
    return [...simulator.stats().paidByUrl].filter(([url]) => url.startsWith(host)).map(([, times]) => times);
  }

  test('count as done: neither paid for nor written again, and copied from for new rows', async () => {
    const host = 'http://nights.test';
    const manifest = await workspace.write('m.csv', `id,image\n1,${host}/1.jpg\n2,${host}/2.jpg\n`);
    const first = workspace.at('first.csv');
    const second = workspace.at('second.csv');
    await run({ manifest, output: first });
    // Another order, another column, a row less, two rows more: one shares an image with the first night.
    await workspace.write(
      'm.csv',
      `image,title,id\n${host}/3.jpg,new,3\n${host}/1.jpg,old,1\n${host}/1.jpg,shared,4\n`,
    );
    const { receipt, preview } = await run({ manifest, output: second, earlierOutputs: [first] });
    expect(preview).toMatchObject({ rows: 3, described: 1, toCopy: 1, toSubmit: 1 });
    expect(receipt).toMatchObject({
      ...{ rows: 3, described: 1, resumed: 1, copied: 1, failed: 0, remaining: 0, extra: 0, submits: 1 },
      balanced: true,
    });
    expect(paidOf(host)).toEqual([1, 1, 1]);
    const before = await workspace.records('first.csv');
    const rows = (await workspace.records('second.csv')).sort((a, b) => Number(a['id']) - Number(b['id']));
    expect(rows.map(({ id, title }) => [id, title])).toEqual([
      ['3', 'new'],
      ['4', 'shared'],
    ]);
    const [original] = before.filter(({ id }) => id === '1');
    expect(rows[1]).toMatchObject({
      prompt_4: original?.['prompt_4'],
      message_id: original?.['message_id'],
      described_at: original?.['described_at'],
    });

    // The run file remembers what counts: for a recount, and for the same command by hand.
    expect(await verifyOutput({ manifest, output: second })).toEqual({
      ...{ rows: 3, described: 3, failed: 0, missing: 0, extra: 0, twice: 0 },
      earlier: 1,
    });
    expect((await run({ manifest, output: second })).receipt).toMatchObject({ resumed: 3, submits: 0 });
    await rm(first);
    const missing = /earlier output .*first\.csv is not there: put it back/;
    await expect(run({ manifest, output: second })).rejects.toThrow(missing);
    await expect(verifyOutput({ manifest, output: second })).rejects.toThrow(missing);
    expect(paidOf(host)).toEqual([1, 1, 1]);
  });

  test('that failed there are failed before: for good, or with a message that is asked for first', async () => {
    const host = 'http://failed.test';
    const manifest = await workspace.write('failed.csv', `id,image\n1,${host}/1.jpg\n2,${host}/2.jpg\n`);
    const [first, second] = [workspace.at('failed-1.csv'), workspace.at('failed-2.csv')];
    simulator.setOptions({ failures: { reject: 1 } });
    expect((await run({ manifest, output: first })).receipt).toMatchObject({ failed: 2, submits: 2 });
    simulator.setOptions({ failures: {}, latencyMs: 600, latencySpread: 0 });
    await workspace.write('failed.csv', `id,image\n1,${host}/1.jpg\n2,${host}/late.jpg\n`);
    const late = await run({ manifest, output: first, deadlineMs: 50 });
    expect(late.receipt).toMatchObject({ failed: 2, submits: 1 });
    await waitUntil('the message is completed after all', () => simulator.stats().inFlight === 0);

    simulator.setOptions({ latencyMs: 0 });
    await workspace.write('failed.csv', `image,id\n${host}/3.jpg,3\n${host}/1.jpg,1\n${host}/late.jpg,2\n`);
    const night = await run({ manifest, output: second, earlierOutputs: [first] });
    expect(night.receipt).toMatchObject({
      ...{ rows: 3, described: 2, resumed: 0, failed: 1, remaining: 0, submits: 1 },
      balanced: true,
    });
    const failed = async (name: string) =>
      (await workspace.records(name)).map(({ id, error_code, error }) => [id, error_code, error]);
    const forGood = (await failed('failed-1.failed.csv')).filter(([id]) => id === '1');
    expect(forGood).toHaveLength(1);
    expect(await failed('failed-2.failed.csv')).toEqual(forGood);

    // What a later night has described is no failure any more; on demand all others are taken up.
    const all = { manifest, output: workspace.at('failed-3.csv'), earlierOutputs: [first, second] };
    expect((await run(all)).receipt).toMatchObject({ resumed: 2, failed: 1, submits: 0, balanced: true });
    expect((await run({ ...all, retryAll: true })).receipt).toMatchObject({
      ...{ resumed: 2, described: 1, failed: 0, submits: 1, balanced: true },
    });
    expect(paidOf(host)).toEqual([1, 1, 1]);
  });

  test('that failed there with another URL are submitted, and none is taken up where nothing is paid', async () => {
    const host = 'http://moved.test';
    const manifest = await workspace.write('moved.csv', `id,image\n1,${host}/1.jpg\n2,${host}/2.jpg\n`);
    const first = workspace.at('moved-1.csv');
    simulator.setOptions({ failures: { reject: 1 } });
    await run({ manifest, output: first, keyColumn: 'id' });
    simulator.setOptions({ failures: {} });
    await workspace.write('moved.csv', `id,image\n1,${host}/new.jpg\n2,${host}/2.jpg\n`);
    const next = { manifest, output: workspace.at('moved-2.csv'), earlierOutputs: [first], keyColumn: 'id' };
    expect((await run({ ...next, collectOnly: true })).receipt).toMatchObject({ remaining: 2, submits: 0 });
    expect((await run(next)).receipt).toMatchObject({ described: 1, failed: 1, submits: 1, balanced: true });
    expect(paidOf(host)).toEqual([1]);
  });

  test('are refused where none of them is in the manifest, unless one pays again', async () => {
    const manifest = await workspace.write('signed.csv', 'image\nhttp://signed.test/1.jpg?s=1\n');
    const first = workspace.at('signed-1.csv');
    await run({ manifest, output: first });
    await workspace.write('signed.csv', 'image\nhttp://signed.test/1.jpg?s=2\n');
    const next = { manifest, output: workspace.at('signed-2.csv'), earlierOutputs: [first] };
    await expect(run(next)).rejects.toThrow(/none of the 1 rows in .* match this manifest.*--pay-again 1/);
    expect((await run({ ...next, payAgain: 1 })).receipt.submits).toBe(1);
  });

  test('of the simulator do not count for an API', async () => {
    const manifest = await workspace.write('real.csv', 'image\nhttp://real.test/1.jpg\n');
    const first = workspace.at('real-1.csv');
    await run({ manifest, output: first });
    const next = { manifest, output: workspace.at('real-2.csv'), earlierOutputs: [first], dryRun: true };
    await expect(describeManifest({ ...next, api: 'https://api.test/v2' })).rejects.toThrow(
      /real-1\.csv holds prompts of a simulator/,
    );
  });

  test('however the manifest changes from night to night: each row in one file, each image paid for once', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(night, { minLength: 2, maxLength: 3 }), fc.boolean(), checkNights),
      { numRuns: kind === 'redis' ? 5 : 1, interruptAfterTimeLimit: 25_000 },
    );
  });

  async function checkNights(nights: readonly Night[], keyed: boolean): Promise<void> {
    const name = `case${++cases}`;
    const host = `http://${name}.test`;
    const manifest = workspace.at(`${name}.in.csv`);
    const outputs: string[] = [];
    // Without limits, the last night leaves nothing.
    for (const [number, { rows, limit, again }] of [
      ...nights,
      { ...joined(nights), limit: undefined },
    ].entries()) {
      await writeFile(manifest, csvOf(rows, host));
      const output = `${name}.${number}.csv`;
      const earlierOutputs = outputs.map((earlier) => workspace.at(earlier));
      const options = {
        ...{ manifest, output: workspace.at(output), limit, earlierOutputs, payAgain: 100, account: name },
        keyColumn: keyed ? 'id' : undefined,
      };
      await run(options);
      if (again) await run({ ...options, limit: undefined });
      const { missing, extra, twice } = await verifyOutput(options);
      expect([extra, twice]).toEqual([0, 0]);
      if (limit === undefined || again) expect(missing).toBe(0);
      outputs.push(output);
    }
    const written = (await Promise.all(outputs.map((output) => workspace.records(output)))).flat();
    if (keyed) {
      const keys = joined(nights).rows.map(({ key }) => String(key));
      expect(written.map((row) => row['id']).sort()).toEqual(keys.sort());
    } else {
      // A night with a limit leaves some of its rows, which a later one may not have any more.
      const whole = nights.filter(({ limit, again }) => limit === undefined || again).concat(joined(nights));
      const [atLeast, atMost] = [mostRowsByImage(whole), mostRowsByImage(nights.concat(joined(nights)))];
      const inFiles = mostRowsByImage([
        { rows: written.map((row) => ({ image: imageOf(row['image'] ?? '') })) },
      ]);
      for (const [image, rows] of atLeast) expect(inFiles.get(image) ?? 0).toBeGreaterThanOrEqual(rows);
      // An image may be described in a night with a limit, and its row have another one ever after.
      for (const [image, rows] of inFiles) expect(rows).toBeLessThanOrEqual(atMost.get(image) ?? 0);
    }
    expect(paidOf(`${host}/`).every((times) => times === 1)).toBe(true);
  }
});

function csvOf(rows: readonly NightRow[], host: string): string {
  return `id,image\n${rows.map(({ key, image }) => `${key},${host}/${image}.jpg\n`).join('')}`;
}

function imageOf(url: string): number {
  return Number(/(\d+)\.jpg$/.exec(url)?.[1]);
}

/** A last night with every row there ever was, as it was last seen. */
function joined(nights: readonly Night[]): Night {
  const rows = new Map(nights.flatMap((one) => one.rows).map((row) => [row.key, row]));
  return { rows: [...rows.values()], limit: undefined, again: false };
}

/** Without keys an image has as many rows as the night with most of them. */
function mostRowsByImage(nights: readonly { readonly rows: readonly { readonly image: number }[] }[]) {
  const most = new Map<number, number>();
  for (const { rows } of nights) {
    for (const { image } of rows) {
      const count = rows.filter((row) => row.image === image).length;
      most.set(image, Math.max(count, most.get(image) ?? 0));
    }
  }
  return most;
}
