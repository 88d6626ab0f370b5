import fc from 'fast-check';
import { beforeAll, expect, onTestFinished, test, vi } from 'vitest';
import type { QueueConnection } from '../../src/shared/queue/connection.js';
import { describeOnBothQueues } from '../helpers/queues.js';

interface Data {
  readonly value: unknown;
  readonly fails: boolean;
}

/** Code units that PostgreSQL cannot hold, among others, in any order. */
const unit = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constantFrom(0, 0xd83d, 0xde00, 0xdfff, 0xd800, 0xe000, 0x5c, 0x22, 0x75),
  },
  { weight: 2, arbitrary: fc.constantFrom(0x30, 0x64, 0x65, 0x0a, 0x1b, 0xe9, 0xfffd) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 0xffff }) },
);
const text = fc.oneof(
  fc.array(unit, { maxLength: 12 }).map((units) => String.fromCharCode(...units)),
  fc.constantFrom('\\u0000', '\\\\u0000', '"\\ud800"', '{"a":"\\u0000"}', '\u001b[31mred\u001b[0m'),
);
const value = fc.tuple(text, text, text).map(([a, b, c]) => ({ [`k${a}`]: [b, { [`l${c}`]: a }], n: 1.5 }));

/** What is left of a text that went over a wire as UTF-8. */
const asUtf8 = (each: string) => Buffer.from(each, 'utf8').toString('utf8');

describeOnBothQueues('any text', (open, kind) => {
  let connection: QueueConnection;
  /** PostgreSQL cannot hold U+0000 and half surrogates, nor are their escapes told from texts that look like them. */
  const kept = (each: unknown): unknown =>
    kind === 'redis'
      ? each
      : JSON.parse(JSON.stringify(each).replace(/\\u(?:0000|d[89a-f][0-9a-f]{2})/gi, '\\ufffd'));
  beforeAll(async () => {
    connection = await (await open()).connect();
  });

  test('comes out of job data, results, progress, logs, reasons and names, whatever it holds', async () => {
    const queue = connection.queue<Data, unknown>('any-text');
    const worker = connection.worker<Data, unknown>(
      queue.name,
      async (job) => {
        await job.updateProgress({ is: job.data.value });
        await job.log(job.name);
        if (job.data.fails) throw new Error(job.name);
        return { is: job.data.value };
      },
      { concurrency: 2 },
    );
    onTestFinished(() => worker.close());
    // What is no JSON travels to Redis as UTF-8, which has no half surrogates.
    const possible = (each: string) => (kind === 'redis' ? asUtf8(each) : each);
    await fc.assert(
      fc.asyncProperty(text, value, fc.boolean(), async (each, data, bulk) => {
        const name = possible(`x${each}`);
        const jobs = [false, true].map((fails) => ({ name, data: { value: data, fails } }));
        const added = bulk
          ? await queue.addBulk(jobs)
          : await Promise.all(jobs.map((job) => queue.add(job.name, job.data)));
        const [completed = '', failed = ''] = added.map(({ id }) => id);
        await vi.waitFor(
          async () => {
            expect(await queue.getJobState(completed)).toBe('completed');
            expect(await queue.getJobState(failed)).toBe('failed');
          },
          { timeout: 10_000, interval: 5 },
        );
        const good = await queue.getJob(completed);
        const { returnvalue, progress } = good ?? {};
        expect(kept([good?.data.value, returnvalue, progress])).toEqual(
          kept([data, { is: data }, { is: data }]),
        );
        expect(kept(good?.name)).toBe(kept(name));
        const bad = await queue.getJob(failed);
        expect(kept(bad?.failedReason)).toBe(kept(name));
        expect(kept((await queue.getJobLogs(failed)).logs)).toEqual(kept([name]));
      }),
      { numRuns: 60 },
    );
  });

  test('comes out of changed job data', async () => {
    const queue = connection.queue<Data, unknown>('changed-data');
    const job = await queue.add('x', { value: '', fails: false });
    await fc.assert(
      fc.asyncProperty(value, async (each) => {
        await job.updateData({ value: each, fails: false });
        expect(kept((await queue.getJob(job.id ?? ''))?.data.value)).toEqual(kept(each));
      }),
      { numRuns: 60 },
    );
  });

  test('comes out of the shared fields', async () => {
    await fc.assert(
      fc.asyncProperty(text, text, async (name, each) => {
        const stored = (part: string) => (kind === 'redis' ? asUtf8(part) : part);
        await connection.store.setFields('any-text', { [`f${name}`]: each });
        expect(kept(await connection.store.getFields('any-text'))).toMatchObject(
          Object(kept({ [stored(`f${name}`)]: stored(each) })),
        );
      }),
      { numRuns: 60 },
    );
  });
});
