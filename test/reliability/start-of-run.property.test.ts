import { appendFile } from 'node:fs/promises';
import fc from 'fast-check';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { imageHash } from '../../src/producer/image-url.js';
import { describeManifest } from '../../src/run/describe-manifest.js';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { openQueue } from '../../src/shared/queue/connection.js';
import { parseQueueUrl } from '../../src/shared/queue/queue-url.js';
import { type Simulator, startSimulator } from '../helpers/simulator.js';
import { FailuresFile } from '../../src/writer/failures.js';
import { newRunId, writeRunFile } from '../../src/writer/run-file.js';
import { type TestRedis, redisAvailable, startRedis } from '../helpers/redis.js';
import { Workspace } from '../helpers/workspace.js';
import { FAST } from '../helpers/run-fixture.js';
import { EARLIER, type ImageState, JOBS, LeftBehind, RESULTS, failureOf, fateOf } from './left-behind.js';
import { PROMPT_COLUMNS } from '../../src/shared/jobs.js';

const OUR_COLUMNS = 'prompt_1,prompt_2,prompt_3,prompt_4,message_id,described_at';
const OUR_CELLS = 'a,b,c,d,sim-before,2026-01-02T03:04:05.678Z';

const isDescribed = (state: ImageState) => state.inOutput > 0 || state.result === 'described';

const imageState = fc
  .record({
    rows: fc.constantFrom(1, 1, 2),
    inOutput: fc.constantFrom(0, 0, 0, 0, 1, 2),
    job: fc.constantFrom(...JOBS),
    result: fc.constantFrom('none' as const, ...RESULTS),
    resultIsTaken: fc.boolean(),
    locksAreOver: fc.boolean(),
    earlier: fc.constantFrom('none' as const, ...EARLIER),
  })
  .map((state) => ({ ...state, inOutput: Math.min(state.rows, state.inOutput) }))
  // BullMQ removes no job whose lock is not over; an image is described through a message, so that none of those
  // jobs is without one where nobody meddles.
  .map((state) => (isDescribed(state) && state.job === 'active' ? { ...state, locksAreOver: true } : state));

const leftBehind = fc.record({
  images: fc.array(imageState, { minLength: 1, maxLength: 6 }),
  keyed: fc.boolean(),
  tornBytes: fc.nat(60),
});

describe.skipIf(!redisAvailable)('whatever earlier runs have left behind', () => {
  let redis: TestRedis;
  let client: Redis;
  let simulator: Simulator;
  let connection: QueueConnection;
  let workspace: Workspace;
  let cases = 0;
  beforeAll(async () => {
    redis = await startRedis();
    client = new Redis(redis.url);
    simulator = await startSimulator({ latencyMs: 0 });
    connection = await openQueue(parseQueueUrl(redis.url, {}));
    workspace = await Workspace.create();
  });
  afterAll(async () => {
    await connection.close();
    client.disconnect();
    await redis.stop();
    await simulator.close();
    await workspace.remove();
  });

  test('the next run ends with every row once, and pays for nothing that is there already', async () => {
    await fc.assert(
      fc.asyncProperty(leftBehind, ({ images, keyed, tornBytes }) => check(images, keyed, tornBytes)),
      { numRuns: 30 },
    );
  });

  async function check(images: readonly ImageState[], keyed: boolean, tornBytes: number): Promise<void> {
    const name = `case${++cases}`;
    const run = newRunId();
    const url = (index: number) => `http://${name}.test/${index}.jpg`;
    const rows = images.flatMap((state, index) =>
      Array.from({ length: state.rows }, (_, row) => ({
        id: `${index}-${row}`,
        state,
        row,
        url: url(index),
      })),
    );
    const textOf = (row: { id: string; url: string }) => `${row.id},${row.url}`;
    const output = workspace.at(`${name}.csv`);
    const manifest = await workspace.write(
      `${name}.in.csv`,
      `id,image\n${rows.map((row) => `${textOf(row)}\n`).join('')}`,
    );
    const written = rows.filter(({ state, row }) => row < state.inOutput);
    const missing = rows.find(({ state }) => state.inOutput === 0);
    await workspace.write(
      `${name}.csv`,
      `id,image,${OUR_COLUMNS}\n${written.map((row) => `${textOf(row)},${OUR_CELLS}\n`).join('')}`,
    );
    if (missing !== undefined) {
      await appendFile(output, `${textOf(missing)},${OUR_CELLS}`.slice(0, tornBytes % 70));
    }

    const left = new LeftBehind(connection, client, simulator, run, name);
    try {
      const failures = await FailuresFile.open({
        path: workspace.at(`${name}.failed.csv`),
        columns: ['id', 'image'],
        delimiter: ',',
        urlColumn: { index: 1, path: [] },
        keyColumn: keyed ? { index: 0, path: [] } : undefined,
        answerColumns: PROMPT_COLUMNS,
      });
      for (const row of rows) {
        if (row.state.earlier === 'none' || row.row < row.state.inOutput) continue;
        const outcome = failureOf(row.state.earlier, await left.message(row.url, 'expired'));
        const failed = { cells: [row.id, row.url], image: imageHash(row.url) };
        await failures.append([{ row: keyed ? { ...failed, key: row.id } : failed, outcome }]);
      }
      await failures.replace(() => true);
      await failures.close();
      // Those that wait come last: a dead worker takes the one that was added before.
      const waits = (state: ImageState) => /^(waiting|delayed)/.test(state.job);
      const inOrder = [...images.entries()].sort(([, a], [, b]) => Number(waits(a)) - Number(waits(b)));
      for (const [index, state] of inOrder) await left.addJob(url(index), state);
      const taken = [...images.entries()].sort(
        ([, a], [, b]) => Number(b.resultIsTaken) - Number(a.resultIsTaken),
      );
      for (const [index, state] of taken) await left.addResult(url(index), state);
      await writeRunFile(`${output}.run`, {
        version: 1,
        run,
        queue: connection.label,
        account: left.account,
        simulator: false,
        urlColumn: 'image',
        keyColumn: keyed ? 'id' : undefined,
        open: true,
        createdAt: new Date().toISOString(),
      });
    } finally {
      await left.close();
    }

    const paidBefore = simulator.stats().paidByUrl;
    const ended = await describeManifest({
      manifest,
      output,
      api: simulator.url,
      token: 'any',
      account: name,
      queue: redis.url,
      keyColumn: keyed ? 'id' : undefined,
      limits: FAST,
      stopFailing: 100,
    });
    const paidAfter = simulator.stats().paidByUrl;

    const paid = images.map(
      (_, index) => (paidAfter.get(url(index)) ?? 0) - (paidBefore.get(url(index)) ?? 0),
    );
    expect(paid).toEqual(images.map((state) => fateOf(state).submits));
    expect([ended.differences, ended.stop, ended.receipt?.remaining]).toEqual([[], undefined, 0]);
    const idsThat = (end: 'described' | 'rejected') =>
      rows.filter(({ state }) => fateOf(state).ends === end).map(({ id }) => id);
    expect(await idsIn(`${name}.csv`)).toEqual(idsThat('described').sort());
    expect(await idsIn(`${name}.failed.csv`)).toEqual(idsThat('rejected').sort());
    expect(ended.receipt?.submits).toBe(paid.reduce((sum, one) => sum + one, 0));
  }

  async function idsIn(name: string): Promise<(string | undefined)[]> {
    if (!(await workspace.files()).includes(name)) return [];
    return (await workspace.records(name)).map((record) => record['id']).sort();
  }
});
