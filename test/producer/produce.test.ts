import { describe, expect, it } from 'vitest';
import { UnfinishedRows } from '../../src/producer/count-manifest.js';
import {
  type NewImage,
  PayBudget,
  Producer,
  type ProducerDeps,
  type QueuedJob,
} from '../../src/producer/produce.js';
import type { Row } from '../../src/producer/row-reader.js';
import type { FailedOutcome } from '../../src/shared/outcome.js';
import { Outstanding } from '../../src/shared/outstanding.js';
import { createRunCounts } from '../../src/shared/run-counts.js';
import { waitUntil } from '../helpers/wait-until.js';

const outcome: FailedOutcome = { status: 'failed', code: 'http', reason: 'why', attempts: 5, messageId: 'm' };

/** A row that shows the image of that name. */
function row(number: number, image: string | undefined): Row {
  const place = { number, line: number + 1, cells: [String(number)] };
  if (image === undefined)
    return { ...place, problem: { code: 'invalid-url', reason: `line ${number + 1}: no URL` } };
  return { ...place, url: `http://h.test/${image}`, image };
}

/** A home that only takes notes; what waits for an outcome gets it by `end`. */
class NotingHome {
  readonly outstanding = new Outstanding<Row>();
  readonly counts = createRunCounts();
  readonly stop = new AbortController();
  readonly calls: string[][] = [];
  readonly added: NewImage[] = [];
  readonly failed: number[] = [];
  readonly copied: number[] = [];
  readonly left: number[] = [];
  readonly settledEarly: string[] = [];
  readonly described = new Set<string>();
  readonly failedNow = new Set<string>();
  readonly failedBefore = new Set<string>();
  readonly queued = new Map<string, QueuedJob>();
  readonly early = new Set<string>();
  budget = new PayBudget(Infinity);
  window = 1000;
  mostOutstanding = 0;

  produce(...batches: Row[][]): Promise<void> {
    return new Producer(this.deps(), this.stop.signal).produce(streamOf(batches));
  }

  produceUnfinished(unfinished: UnfinishedRows): Promise<void> {
    return new Producer(this.deps(), this.stop.signal).produceUnfinished(unfinished);
  }

  /** The image's outcome is on disk. */
  end(image: string, how: 'described' | 'failed'): void {
    const pending = this.outstanding.take(image);
    if (pending === undefined) throw new Error(`${image} is not outstanding`);
    (how === 'described' ? this.described : this.failedNow).add(image);
    if (how === 'described') this.budget.spend();
    else this.budget.giveBack();
    this.outstanding.release(pending.rows.length);
  }

  deps(): ProducerDeps {
    const { outstanding } = this;
    return {
      lookup: {
        markSeen: () => true,
        isInOutput: () => false,
        isDescribed: (image) => this.described.has(image),
        isOutstanding: (image) => outstanding.images.has(image),
        failedNow: (image) => (this.failedNow.has(image) ? outcome : undefined),
        previousFailure: ({ image }) =>
          image !== undefined && this.failedBefore.has(image) ? { outcome, image } : undefined,
        isTakenUp: (image) => this.queued.has(image),
        isLeftUnlessFailed: () => false,
      },
      outstanding,
      counts: this.counts,
      budget: this.budget,
      windowRows: () => this.window,
      queuedJob: (image) => this.queued.get(image),
      hasEarlyResult: (image) => this.early.has(image),
      settleEarlyResult: (image) => void this.settledEarly.push(image),
      leave: ({ number }) => void this.left.push(number),
      addImages: (images) => {
        this.calls.push(images.map(({ image }) => image));
        this.added.push(...images);
        this.mostOutstanding = Math.max(this.mostOutstanding, outstanding.rows);
        return Promise.resolve();
      },
      writeFailure: ({ number }) => void this.failed.push(number),
      writeCopy: ({ number }) => void this.copied.push(number),
    };
  }
}

async function* streamOf(batches: Row[][]): AsyncGenerator<readonly Row[]> {
  for (const batch of batches) yield await Promise.resolve(batch);
}

describe('the producer', () => {
  it('adds each image once; rows that share it wait for it', async () => {
    const home = new NotingHome();
    await home.produce([row(1, 'a'), row(2, 'b'), row(3, 'a')], [row(4, 'a')]);
    expect(home.added.map(({ image }) => image)).toEqual(['a', 'b']);
    expect(home.outstanding.images.get('a')?.rows.map(({ number }) => number)).toEqual([1, 3, 4]);
    expect(home.counts.rows).toBe(4);
  });

  it('hands a batch over as soon as it was read', async () => {
    const home = new NotingHome();
    await home.produce([row(1, 'a')], [row(2, 'b'), row(3, 'c')]);
    expect(home.calls).toEqual([['a'], ['b', 'c']]);
  });

  it('counts the rows between unfinished ones as resumed, also where it is stopped', async () => {
    const home = new NotingHome();
    home.window = 1;
    const unfinished = new UnfinishedRows();
    for (const met of [row(3, 'a'), row(5, undefined), row(9, 'b')]) unfinished.add(met, false);
    unfinished.end(12);
    const producing = home.produceUnfinished(unfinished);
    await waitUntil('the second one waits for room', () => home.counts.rows === 5);
    expect(home.counts).toMatchObject({ rows: 5, resumed: 3 });
    home.end('a', 'described');
    await producing;
    expect(home.failed).toEqual([5]);
    expect(home.added.map(({ image }) => image)).toEqual(['a', 'b']);
    expect(home.counts).toMatchObject({ rows: 12, resumed: 9 });

    const stopped = new NotingHome();
    stopped.stop.abort();
    await stopped.produceUnfinished(unfinished);
    expect(stopped.counts).toMatchObject({ rows: 0, resumed: 0 });
  });

  it('has never more rows outstanding than the window', async () => {
    const home = new NotingHome();
    home.window = 3;
    const images = Array.from({ length: 12 }, (_, index) => `i${index}`);
    const producing = home.produce(images.map((image, index) => row(index + 1, image)));
    for (const image of images) {
      await waitUntil(`${image} is outstanding`, () => home.outstanding.images.has(image));
      expect(home.outstanding.rows).toBeLessThanOrEqual(3);
      home.end(image, 'described');
    }
    await producing;
    expect(home.mostOutstanding).toBe(3);
    expect(home.added).toHaveLength(12);
  });

  it('keeps rows that failed before back until the new ones are in, with what is known of them', async () => {
    const home = new NotingHome();
    home.failedBefore.add('old');
    await home.produce([row(1, 'old'), row(2, 'new'), row(3, 'old')]);
    expect(home.added.map(({ image }) => image)).toEqual(['new', 'old']);
    expect(home.added[1]).toMatchObject({ row: 1, previous: { outcome: { messageId: 'm' } } });
    expect(home.outstanding.images.get('old')?.rows).toHaveLength(2);
  });

  it('keeps 5,000 rows back and no more', async () => {
    const home = new NotingHome();
    home.window = 10_000;
    const rows = Array.from({ length: 5001 }, (_, index) => row(index + 1, `i${index}`));
    for (const { image } of rows) home.failedBefore.add(image ?? '');
    await home.produce(rows);
    expect(home.added).toHaveLength(5001);
    expect(home.added[0]?.image).toBe('i5000');
  });

  it('decides anew about a row that was kept back', async () => {
    const home = new NotingHome();
    home.failedBefore.add('old');
    home.window = 1;
    const producing = home.produce([row(1, 'old'), row(2, 'new'), row(3, 'old')]);
    await waitUntil('the new one is there', () => home.outstanding.images.has('new'));
    home.end('new', 'described');
    await waitUntil('the old one is there', () => home.outstanding.images.has('old'));
    home.end('old', 'failed');
    await producing;
    expect(home.failed).toEqual([3]);
    expect(home.added).toHaveLength(2);
  });

  it('takes over what was paid for, whatever the limit, and what has a result', async () => {
    const home = new NotingHome();
    home.budget = new PayBudget(0);
    home.queued.set('paid', { state: 'paid', submits: 2, polls: 7 });
    home.early.add('early');
    await home.produce([row(1, 'paid'), row(2, 'early'), row(3, 'new')]);
    expect(home.counts.reattached).toBe(2);
    expect(home.settledEarly).toEqual(['paid', 'early']);
    expect(home.outstanding.images.get('paid')).toMatchObject({ submitsBefore: 2, pollsBefore: 7 });
    expect(home.added).toEqual([]);
    expect(home.left).toEqual([3]);
  });

  it('waits for a job that is in the queue, without adding it, and replaces one that failed', async () => {
    const home = new NotingHome();
    const failed: QueuedJob = { state: 'failed', submits: 5, polls: 9, lastMessageId: 'last' };
    home.queued.set('waiting', { state: 'waiting', submits: 1, polls: 0 });
    home.queued.set('failed', failed);
    home.failedBefore.add('waiting');
    await home.produce([row(1, 'waiting'), row(2, 'failed')]);
    expect(home.added).toMatchObject([{ image: 'failed', replaces: failed }]);
    expect(home.outstanding.images.get('waiting')).toMatchObject({ submitsBefore: 1, reattached: false });
    // The new job counts its calls from nothing.
    expect(home.outstanding.images.get('failed')).toMatchObject({ submitsBefore: 0, pollsBefore: 0 });
  });

  it('pays for at most --limit images; copies and failures cost nothing', async () => {
    const home = new NotingHome();
    home.budget = new PayBudget(2);
    home.described.add('done');
    const producing = home.produce([
      row(1, 'a'),
      row(2, undefined),
      row(3, 'b'),
      row(4, 'c'),
      row(5, 'd'),
      row(6, 'done'),
    ]);
    await waitUntil('two are outstanding', () => home.outstanding.images.size === 2);
    home.end('a', 'failed');
    await waitUntil('the third has its place', () => home.outstanding.images.has('c'));
    home.end('b', 'described');
    home.end('c', 'described');
    await producing;
    expect(home.added.map(({ image }) => image)).toEqual(['a', 'b', 'c']);
    expect([home.failed, home.copied, home.left]).toEqual([[2], [6], [5]]);
  });

  it('ends at once when the run is stopped: while it waits for room, for a place, and between rows', async () => {
    const forRoom = new NotingHome();
    forRoom.window = 1;
    const forPlace = new NotingHome();
    forPlace.budget = new PayBudget(1);
    for (const home of [forRoom, forPlace]) {
      const producing = home.produce([row(1, 'a'), row(2, 'b'), row(3, 'c')]);
      await waitUntil('one is outstanding', () => home.added.length === 1);
      home.stop.abort();
      await producing;
      expect(home.counts.rows).toBe(2);
      expect(home.added).toHaveLength(1);
    }
    const stopped = new NotingHome();
    stopped.stop.abort();
    await stopped.produce([row(1, 'a')]);
    expect([stopped.counts.rows, stopped.added]).toEqual([0, []]);
  });

  it('hands over what it has when the manifest breaks off', async () => {
    const home = new NotingHome();
    const broken = async function* () {
      yield await Promise.resolve([row(1, 'a')]);
      throw new Error('line 3');
    };
    const producer = new Producer(home.deps(), home.stop.signal);
    await expect(producer.produce(broken())).rejects.toThrow('line 3');
    expect(home.calls).toEqual([['a']]);
  });
});

describe('the budget of --limit', () => {
  it('is spent when as many as the limit are described, whatever failed between', () => {
    const budget = new PayBudget(2);
    expect([budget.take(), budget.take(), budget.take()]).toEqual([true, true, false]);
    budget.spend();
    expect([budget.hasRoom, budget.isSpent]).toEqual([false, false]);
    budget.giveBack();
    expect([budget.hasRoom, budget.take(), budget.hasRoom]).toEqual([true, true, false]);
    budget.spend();
    expect([budget.isSpent, budget.take()]).toEqual([true, false]);
  });
  it('of no limit is never spent', () => {
    const budget = new PayBudget(Infinity);
    for (let image = 0; image < 100; image++) {
      expect(budget.take()).toBe(true);
      budget.spend();
    }
    expect(budget.isSpent).toBe(false);
  });
});
