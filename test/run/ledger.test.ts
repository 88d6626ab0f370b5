import { describe, expect, test } from 'vitest';
import { PayBudget } from '../../src/run/budget.js';
import type { QueuedJob } from '../../src/run/run-jobs.js';
import { type ImageState, Ledger } from '../../src/run/ledger.js';
import type { ResultJobData } from '../../src/shared/jobs.js';
import { failedRows } from '../../src/shared/run-counts.js';

const row = (number: number, image = 'a') => ({ number, line: number + 1, cells: [], image });
const failure = { status: 'failed', code: 'http', reason: 'why', attempts: 5 } as const;
const prompts = {
  status: 'described',
  prompts: ['a', 'b', 'c', 'd'],
  messageId: 'm',
  describedAt: '2026-01-02T03:04:05.678Z',
} as const;

function result(
  outcome: ResultJobData['outcome'],
  calls = { submits: 1, polls: 2 },
  image = 'a',
): ResultJobData {
  return { image, outcome, ...calls, maybePaid: 0 };
}
const described = (calls?: { submits: number; polls: number }) => result(prompts, calls);
const failed = (calls?: { submits: number; polls: number }) => result(failure, calls);
const queued = (state: QueuedJob['state']): QueuedJob => ({ state, submits: 1, polls: 4 });
const never = () => new AbortController().signal;

const events = {
  find: (ledger: Ledger) => ledger.find('a', queued('paid')),
  hold: (ledger: Ledger) => void ledger.hold(described()),
  takeOn: (ledger: Ledger) => void ledger.takeOn('a', row(1), false),
  failRow: (ledger: Ledger) => ledger.failRow(row(1), failure),
  attach: (ledger: Ledger) => void ledger.attach('a', row(2)),
  describe: (ledger: Ledger) => void ledger.settle(described(), 1),
  fail: (ledger: Ledger) => void ledger.settle(failed(), 1),
  reopen: (ledger: Ledger) => ledger.reopen('a'),
  giveUp: (ledger: Ledger) => void ledger.giveUp('a'),
};
type Event = keyof typeof events;

/** How an image gets into a state. */
const ways: Record<'unknown' | ImageState, readonly Event[]> = {
  unknown: [],
  found: ['find'],
  answered: ['hold'],
  pending: ['takeOn'],
  settled: ['takeOn', 'fail'],
};

describe('the state of an image', () => {
  test.each<[from: keyof typeof ways, event: Event, to: ImageState | undefined]>([
    ['unknown', 'find', 'found'],
    ['unknown', 'hold', 'answered'],
    ['unknown', 'takeOn', 'pending'],
    ['unknown', 'failRow', 'settled'],
    ['unknown', 'attach', undefined],
    ['unknown', 'describe', undefined],
    ['unknown', 'reopen', undefined],
    ['found', 'hold', 'answered'],
    ['found', 'takeOn', 'pending'],
    ['found', 'failRow', 'settled'],
    ['found', 'attach', 'found'],
    ['found', 'describe', 'found'],
    ['found', 'giveUp', 'found'],
    ['answered', 'find', 'answered'],
    ['answered', 'hold', 'answered'],
    ['answered', 'takeOn', 'pending'],
    ['answered', 'failRow', 'settled'],
    ['answered', 'attach', 'answered'],
    ['answered', 'giveUp', 'answered'],
    ['pending', 'failRow', 'pending'],
    ['pending', 'attach', 'pending'],
    ['pending', 'describe', undefined],
    ['pending', 'fail', 'settled'],
    ['pending', 'reopen', 'pending'],
    ['pending', 'giveUp', undefined],
    ['settled', 'failRow', 'settled'],
    ['settled', 'attach', 'settled'],
    ['settled', 'describe', 'settled'],
    ['settled', 'reopen', 'pending'],
    ['settled', 'takeOn', 'pending'],
    ['settled', 'giveUp', 'settled'],
  ])('%s -- %s --> %s', (from, event, to) => {
    const ledger = new Ledger(new PayBudget(Infinity));
    for (const step of [...ways[from], event]) events[step](ledger);
    expect(ledger.get('a')?.state).toBe(to);
    expect(ledger.isPending('a')).toBe(to === 'pending');
  });
});

describe('a ledger', () => {
  const open = (limit = Infinity, most?: { images: number; rowsOfOne: number }) => {
    const budget = new PayBudget(limit);
    return { budget, ledger: new Ledger(budget, most) };
  };

  test('counts rows as under way from being read until they are on disk or given up', () => {
    const { ledger } = open();
    ledger.takeOn('a', row(1), false);
    ledger.attach('a', row(2));
    ledger.takeOn('b', row(3, 'b'), false);
    ledger.addUnwritten(1);
    expect([ledger.rows, ledger.unwritten, ledger.pending()]).toEqual([4, 1, ['a', 'b']]);
    expect(ledger.settle(described(), 2)).toEqual([]);
    ledger.releaseUnwritten(1);
    expect(ledger.giveUp('b')).toEqual([row(3, 'b')]);
    expect([ledger.rows, ledger.unwritten, ledger.pending()]).toEqual([0, 0, []]);
  });

  test('gives back the rows that were read while the first ones went to disk', () => {
    const { ledger } = open();
    ledger.takeOn('a', row(1), false);
    ledger.attach('a', row(2));
    expect(ledger.settle(failed(), 1)).toEqual([row(2)]);
    expect([ledger.rows, failedRows(ledger.counts)]).toEqual([0, 1]);
  });

  test.each<[string, QueuedJob | undefined, ResultJobData | undefined, { submits: number; polls: number }]>([
    ['of a fresh image all', undefined, undefined, { submits: 3, polls: 9 }],
    ['of a job that goes on those of this run', queued('paid'), undefined, { submits: 2, polls: 5 }],
    ['of a job that replaces a failed one all', queued('failed'), undefined, { submits: 3, polls: 9 }],
    [
      'of a result that was there before none',
      undefined,
      described({ submits: 3, polls: 9 }),
      { submits: 0, polls: 0 },
    ],
  ])('counts calls: %s', (_which, job, held, counts) => {
    const { ledger } = open();
    if (held !== undefined) void ledger.hold(held);
    if (job !== undefined) ledger.find('a', job);
    ledger.begin();
    ledger.takeOn('a', row(1), job?.state === 'paid' || held !== undefined);
    ledger.countCalls('a', { submits: 3, polls: 9 });
    expect(ledger.counts).toMatchObject(counts);
  });

  test('gives the place of a failed image back, uses that of a described one up, and takes none for a reattached one', () => {
    const { ledger, budget } = open(1);
    budget.take();
    ledger.takeOn('a', row(1), false);
    ledger.settle(failed(), 1);
    expect([budget.hasRoom, budget.isSpent]).toEqual([true, false]);
    ledger.takeOn('b', row(2, 'b'), true);
    ledger.settle(result(prompts, undefined, 'b'), 1);
    expect([budget.hasRoom, budget.isSpent, ledger.counts.reattached]).toEqual([true, false, 1]);
    ledger.reopen('a');
    ledger.settle(described(), 1);
    expect([budget.hasRoom, budget.isSpent]).toEqual([false, true]);
  });

  test('acknowledges the old failure that was held for an image, when prompts follow it', async () => {
    const { ledger } = open();
    const fate = ledger.hold(failed());
    ledger.begin();
    ledger.failRow(row(1), failure);
    ledger.reopen('a');
    expect(await fate).toBe('done');
  });

  test('takes no place for an image that is put back beyond the limit', () => {
    const { ledger, budget } = open(1);
    budget.take();
    ledger.takeOn('a', row(1), false);
    ledger.settle(failed(), 1);
    budget.take();
    ledger.takeOn('b', row(2, 'b'), false);
    ledger.reopen('a');
    ledger.settle(described(), 1);
    expect(budget.isSpent).toBe(false);
    ledger.settle(result(prompts, undefined, 'b'), 1);
    expect(budget.isSpent).toBe(true);
  });

  test('counts rows of an image that is described after it failed as described and copied, not as failed', () => {
    const { ledger } = open();
    ledger.takeOn('a', row(1), false);
    ledger.attach('a', row(2));
    ledger.settle(failed(), 2);
    ledger.reopen('a');
    expect(ledger.rows).toBe(2);
    ledger.settle(described(), 2);
    expect(ledger.counts).toMatchObject({ described: 1, copied: 1 });
    expect([ledger.rows, failedRows(ledger.counts)]).toEqual([0, 0]);
  });

  test('counts submits that may have been paid for once', () => {
    const { ledger } = open();
    ledger.takeOn('a', row(1), false);
    expect(ledger.countCalls('a', { submits: 2, polls: 0, maybePaid: 2 })).toBe(2);
    ledger.settle(failed(), 1);
    expect(ledger.countCalls('a', { submits: 3, polls: 0, maybePaid: 3 })).toBe(1);
    // A job that was taken for lost knows of none, and its result comes all the same.
    expect(ledger.countCalls('a', { submits: 0, polls: 0, maybePaid: 0 })).toBe(0);
    expect(ledger.countCalls('a', { submits: 3, polls: 0, maybePaid: 3 })).toBe(0);
    expect(ledger.counts.maybePaidTwice).toBe(3);
  });

  test('does not give up an image whose outcome is on the way to the disk', () => {
    const { ledger } = open();
    ledger.takeOn('a', row(1), false);
    const entry = ledger.get('a');
    if (entry !== undefined) entry.writing = Promise.resolve('done');
    expect(ledger.giveUp('a')).toEqual([]);
    expect(ledger.rows).toBe(1);
  });

  test('remembers failed images and their rows up to a bound, the newest of them', () => {
    const { ledger } = open(Infinity, { images: 2, rowsOfOne: 3 });
    for (const [number, image] of ['a', 'b', 'c'].entries()) {
      ledger.takeOn(image, row(number, image), false);
      ledger.settle(result(failure, undefined, image), 1);
    }
    expect(['a', 'b', 'c'].map((image) => ledger.get(image)?.state)).toEqual([
      undefined,
      'settled',
      'settled',
    ]);
    // Not all of its failed rows would be known.
    ledger.failRow(row(4), failure);
    expect(ledger.get('a')).toBeUndefined();
    for (const number of [5, 6, 7]) ledger.failRow(row(number, 'c'), failure);
    expect(ledger.get('c')).toBeUndefined();
  });

  test.each<['found' | 'answered', (ledger: Ledger) => void]>([
    ['found', (ledger) => ledger.find('a', queued('failed'))],
    ['answered', (ledger) => void ledger.hold(failed())],
  ])('forgets rows that failed by what is in the queue, and not that it is there: %s', (state, begin) => {
    const { ledger } = open(Infinity, { images: 1, rowsOfOne: 1 });
    begin(ledger);
    for (const number of [1, 2]) ledger.failRow(row(number), failure);
    expect(ledger.get('a')).toMatchObject({ state, failed: [] });
  });
});

describe('whoever waits for a ledger', () => {
  const waiting = () => {
    const ledger = new Ledger(new PayBudget(Infinity));
    ledger.addUnwritten(3);
    return ledger;
  };

  test('is asked again after each change', async () => {
    const ledger = waiting();
    const asked: number[] = [];
    const waited = ledger.waitUntil(() => {
      asked.push(ledger.rows);
      return ledger.rows < 2;
    }, never());
    ledger.releaseUnwritten(1);
    await Promise.resolve();
    ledger.releaseUnwritten(1);
    expect(await waited).toBe(true);
    expect([asked[0], asked.at(-1)]).toEqual([3, 1]);
  });

  test('is not alone in it', async () => {
    const ledger = waiting();
    let ready = false;
    const waited = [1, 2, 3].map(() => ledger.waitUntil(() => ready, never()));
    ready = true;
    ledger.releaseUnwritten(1);
    expect(await Promise.all(waited)).toEqual([true, true, true]);
  });

  test('misses no change between being asked and waiting', async () => {
    const ledger = waiting();
    const waited = ledger.waitUntil(() => ledger.rows === 0, never());
    ledger.releaseUnwritten(3);
    const startedAt = performance.now();
    expect(await waited).toBe(true);
    // Without the change it would have looked again a second later.
    expect(performance.now() - startedAt).toBeLessThan(900);
  });

  test('gives up when the signal aborts, at once', async () => {
    const ledger = waiting();
    const stop = new AbortController();
    const waited = ledger.waitUntil(() => false, stop.signal);
    stop.abort();
    expect(await waited).toBe(false);
    expect(await ledger.waitUntil(() => true, stop.signal)).toBe(false);
  });
});
