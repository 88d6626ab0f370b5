import { describe, expect, test } from 'vitest';
import type { Row } from '../../src/producer/row-reader.js';
import { PayBudget } from '../../src/run/budget.js';
import { Ledger } from '../../src/run/ledger.js';
import { Producer } from '../../src/run/produce.js';
import { RowDecisions } from '../../src/run/row-decisions.js';
import type { NewImage, QueuedJob } from '../../src/run/run-jobs.js';
import type { FailedOutcome, ResultJobData } from '../../src/shared/jobs.js';
import { OutputIndex } from '../../src/writer/output-index.js';
import { waitUntil } from '../helpers/wait-until.js';

const outcome: FailedOutcome = { status: 'failed', code: 'http', reason: 'why', attempts: 5, messageId: 'm' };

/** A row that shows the image of that name. */
function row(number: number, image: string | undefined): Row {
  const place = { number, line: number + 1, cells: [String(number)] };
  if (image === undefined)
    return { ...place, problem: { code: 'invalid-url', reason: `line ${number + 1}: no URL` } };
  return { ...place, url: `http://h.test/${image}`, image };
}

/** A run that only takes notes; what waits for an outcome gets it by `end`. */
class NotingRun {
  readonly ledger: Ledger;
  readonly stop = new AbortController();
  readonly calls: string[][] = [];
  readonly added: NewImage[] = [];
  readonly failed: number[] = [];
  readonly copied: number[] = [];
  readonly left: number[] = [];
  readonly described = new Set<string>();
  readonly failedNow = new Set<string>();
  readonly failedBefore = new Set<string>();
  window = 1000;
  mostRows = 0;

  constructor(limit = Infinity) {
    this.ledger = new Ledger(new PayBudget(limit));
  }

  produce(...batches: Row[][]): Promise<void> {
    return new Producer(this.deps(), this.stop.signal).produce(streamOf(batches));
  }

  /** The image's outcome is on disk. */
  end(image: string, how: 'described' | 'failed'): void {
    if (!this.ledger.isPending(image)) throw new Error(`${image} is not pending`);
    (how === 'described' ? this.described : this.failedNow).add(image);
    this.ledger.settle(resultOf(image, how), this.ledger.get(image)?.rows.length ?? 0);
  }

  rowsOf(image: string): number[] | undefined {
    return this.ledger.get(image)?.rows.map(({ number }) => number);
  }

  deps(): ConstructorParameters<typeof Producer>[0] {
    const { ledger } = this;
    const onFile = new OutputIndex({ keyed: false });
    onFile.startPass();
    onFile.hasImage = (image) => this.described.has(image);
    const failures = {
      failedNow: (image: string) => (this.failedNow.has(image) ? outcome : undefined),
    };
    const deps = { ledger, onFile, failures, failedBefore: new Map(), retriesAll: false };
    const decisions = Object.assign(new RowDecisions(deps), {
      previousFailure: ({ image }: Row) =>
        image !== undefined && this.failedBefore.has(image) ? { outcome, image } : undefined,
      isTakenUp: (image: string) => ledger.jobOf(image) !== undefined,
      leave: ({ number }: Row) => void this.left.push(number),
    });
    return {
      decisions,
      ledger,
      writer: {
        takeOn: (image, taken, isReattached) => void ledger.takeOn(image, taken, isReattached),
        writeFailure: ({ number }) => void this.failed.push(number),
        writeCopy: ({ number }) => void this.copied.push(number),
      },
      jobs: {
        add: (images) => {
          this.calls.push(images.map(({ image }) => image));
          this.added.push(...images);
          this.mostRows = Math.max(this.mostRows, ledger.rows);
          return Promise.resolve();
        },
      },
      windowRows: () => this.window,
    };
  }
}

function resultOf(image: string, how: 'described' | 'failed'): ResultJobData {
  const at = '2026-01-02T03:04:05.678Z';
  const described = {
    status: 'described',
    prompts: ['a', 'b', 'c', 'd'],
    messageId: 'm',
    describedAt: at,
  } as const;
  return { image, outcome: how === 'described' ? described : outcome, submits: 1, polls: 1, maybePaid: 0 };
}

async function* streamOf(batches: Row[][]): AsyncGenerator<readonly Row[]> {
  for (const batch of batches) yield await Promise.resolve(batch);
}

describe('the producer', () => {
  test('adds each image once; rows that share it wait for it', async () => {
    const run = new NotingRun();
    await run.produce([row(1, 'a'), row(2, 'b'), row(3, 'a')], [row(4, 'a')]);
    expect(run.added.map(({ image }) => image)).toEqual(['a', 'b']);
    expect(run.rowsOf('a')).toEqual([1, 3, 4]);
    expect(run.ledger.counts.rows).toBe(4);
  });

  test('adds a batch as soon as it was read', async () => {
    const run = new NotingRun();
    await run.produce([row(1, 'a')], [row(2, 'b'), row(3, 'c')]);
    expect(run.calls).toEqual([['a'], ['b', 'c']]);
  });

  test('has never more rows under way than the window', async () => {
    const run = new NotingRun();
    run.window = 3;
    const images = Array.from({ length: 12 }, (_, index) => `i${index}`);
    const producing = run.produce(images.map((image, index) => row(index + 1, image)));
    for (const image of images) {
      await waitUntil(`${image} is pending`, () => run.ledger.isPending(image));
      expect(run.ledger.rows).toBeLessThanOrEqual(3);
      run.end(image, 'described');
    }
    await producing;
    expect(run.mostRows).toBe(3);
    expect(run.added).toHaveLength(12);
  });

  test('keeps rows that failed before back until the new ones are in, with what is known of them', async () => {
    const run = new NotingRun();
    run.failedBefore.add('old');
    await run.produce([row(1, 'old'), row(2, 'new'), row(3, 'old')]);
    expect(run.added.map(({ image }) => image)).toEqual(['new', 'old']);
    expect(run.added[1]).toMatchObject({ row: 1, previous: { outcome: { messageId: 'm' } } });
    expect(run.rowsOf('old')).toHaveLength(2);
  });

  test('keeps 5,000 rows back and no more', async () => {
    const run = new NotingRun();
    run.window = 10_000;
    const rows = Array.from({ length: 5001 }, (_, index) => row(index + 1, `i${index}`));
    for (const { image } of rows) run.failedBefore.add(image ?? '');
    await run.produce(rows);
    expect(run.added).toHaveLength(5001);
    expect(run.added[0]?.image).toBe('i5000');
  });

  test('keeps the order of rows that share an image, also where one of them finds no more room to be kept back', async () => {
    const run = new NotingRun();
    run.window = 10_000;
    const rows = Array.from({ length: 5000 }, (_, index) => row(index + 1, `i${Math.floor(index / 2)}`));
    for (const { image } of rows) run.failedBefore.add(image ?? '');
    run.failedBefore.add('other');
    await run.produce([...rows, row(5001, 'i1'), row(5002, 'new'), row(5003, 'i1'), row(5004, 'other')]);
    expect(run.rowsOf('i1')).toEqual([3, 4, 5001, 5003]);
    // The two that went first have made room for another one.
    const added = run.added.map(({ image }) => image);
    expect([...added.slice(0, 3), added.at(-1)]).toEqual(['i1', 'new', 'i0', 'other']);
  });

  test('keeps the order of rows that share an image whose result comes between them', async () => {
    const run = new NotingRun();
    run.failedBefore.add('old');
    run.ledger.begin();
    const batches = async function* () {
      yield await Promise.resolve([row(1, 'old')]);
      void run.ledger.hold(resultOf('old', 'described'));
      yield [row(2, 'old')];
    };
    await new Producer(run.deps(), run.stop.signal).produce(batches());
    expect(run.rowsOf('old')).toEqual([1, 2]);
  });

  test('decides anew about a row that was kept back', async () => {
    const run = new NotingRun();
    run.failedBefore.add('old');
    run.window = 1;
    const producing = run.produce([row(1, 'old'), row(2, 'new'), row(3, 'old')]);
    await waitUntil('the new one is there', () => run.ledger.isPending('new'));
    run.end('new', 'described');
    await waitUntil('the old one is there', () => run.ledger.isPending('old'));
    run.end('old', 'failed');
    await producing;
    expect(run.failed).toEqual([3]);
    expect(run.added).toHaveLength(2);
  });

  test('takes over what was paid for, whatever the limit, and what has a result', async () => {
    const run = new NotingRun(0);
    run.ledger.find('paid', { state: 'paid', submits: 2, polls: 7 });
    void run.ledger.hold(resultOf('early', 'described'));
    await run.produce([row(1, 'paid'), row(2, 'early'), row(3, 'new')]);
    expect(run.ledger.counts.reattached).toBe(2);
    expect(run.ledger.pending()).toEqual(['paid', 'early']);
    expect(run.ledger.get('paid')).toMatchObject({ counted: { submits: 2, polls: 7 } });
    expect(run.added).toEqual([]);
    expect(run.left).toEqual([3]);
  });

  test('lets a job go that waits in the queue, before failed rows come, and replaces one that failed', async () => {
    const run = new NotingRun();
    const failed: QueuedJob = { state: 'failed', submits: 5, polls: 9, lastMessageId: 'last' };
    run.ledger.find('waiting', { state: 'waiting', submits: 1, polls: 0 });
    run.ledger.find('failed', failed);
    run.failedBefore.add('waiting');
    await run.produce([row(1, 'waiting'), row(2, 'failed')]);
    expect(run.added).toMatchObject([
      { image: 'waiting', queued: { state: 'waiting' } },
      { image: 'failed', queued: failed },
    ]);
    expect(run.ledger.get('waiting')).toMatchObject({ counted: { submits: 1 }, reattached: false });
    // The new job counts its calls from nothing.
    expect(run.ledger.get('failed')).toMatchObject({ counted: { submits: 0, polls: 0 } });
  });

  test('pays for at most --limit images; copies and failures cost nothing', async () => {
    const run = new NotingRun(2);
    run.described.add('done');
    const producing = run.produce([
      row(1, 'a'),
      row(2, undefined),
      row(3, 'b'),
      row(4, 'c'),
      row(5, 'd'),
      row(6, 'done'),
    ]);
    await waitUntil('two are pending', () => run.ledger.pending().length === 2);
    run.end('a', 'failed');
    await waitUntil('the third has its place', () => run.ledger.isPending('c'));
    run.end('b', 'described');
    run.end('c', 'described');
    await producing;
    expect(run.added.map(({ image }) => image)).toEqual(['a', 'b', 'c']);
    expect([run.failed, run.copied, run.left]).toEqual([[2], [6], [5]]);
  });

  test('ends at once when the run is stopped: while it waits for room, for a place, and between rows', async () => {
    const forRoom = new NotingRun();
    forRoom.window = 1;
    const forPlace = new NotingRun(1);
    for (const run of [forRoom, forPlace]) {
      const producing = run.produce([row(1, 'a'), row(2, 'b'), row(3, 'c')]);
      await waitUntil('one is pending', () => run.added.length === 1);
      run.stop.abort();
      await producing;
      expect(run.ledger.counts.rows).toBe(2);
      expect(run.added).toHaveLength(1);
    }
    const stopped = new NotingRun();
    stopped.stop.abort();
    await stopped.produce([row(1, 'a')]);
    expect([stopped.ledger.counts.rows, stopped.added]).toEqual([0, []]);
  });

  test('adds what it has when the manifest breaks off', async () => {
    const run = new NotingRun();
    const broken = async function* () {
      yield await Promise.resolve([row(1, 'a')]);
      throw new Error('line 3');
    };
    const producer = new Producer(run.deps(), run.stop.signal);
    await expect(producer.produce(broken())).rejects.toThrow('line 3');
    expect(run.calls).toEqual([['a']]);
  });
});

describe('the budget of --limit', () => {
  test('is spent when as many as the limit are described, whatever failed between', () => {
    const budget = new PayBudget(2);
    expect([budget.take(), budget.take(), budget.take()]).toEqual([true, true, false]);
    budget.spend();
    expect([budget.hasRoom, budget.isSpent]).toEqual([false, false]);
    budget.giveBack();
    expect([budget.hasRoom, budget.take(), budget.hasRoom]).toEqual([true, true, false]);
    budget.spend();
    expect([budget.isSpent, budget.take()]).toEqual([true, false]);
  });
  test('of no limit is never spent', () => {
    const budget = new PayBudget(Infinity);
    for (let image = 0; image < 100; image++) {
      expect(budget.take()).toBe(true);
      budget.spend();
    }
    expect(budget.isSpent).toBe(false);
  });
});
