import { beforeAll, expect, test, vi } from 'vitest';
import type { SharedStore } from '../../src/shared/queue/store.js';
import { type QueueFixture, describeOnBothQueues } from '../helpers/queues.js';
import { soon } from '../helpers/wait-until.js';

describeOnBothQueues('the shared store', (open, kind) => {
  let fixture: QueueFixture;
  /** The store as two processes have it, which the embedded queue cannot have. */
  let stores: [SharedStore, SharedStore];
  beforeAll(async () => {
    fixture = await open();
    const { store } = await fixture.connect();
    stores = [store, kind === 'redis' ? (await fixture.connect()).store : store];
  });

  test('sets and removes fields, and leaves the others', async () => {
    const [a, b] = stores;
    expect(await a.getFields('record')).toEqual({});
    await a.setFields('record', { one: '1', two: '2', empty: '' });
    await b.setFields('record', { two: null, one: 'I', three: '3', absent: null });
    expect(await a.getFields('record')).toEqual({ one: 'I', three: '3', empty: '' });
    await a.setFields('record', {});
    await a.setFields('record', { one: null, three: null, empty: null });
    expect(await b.getFields('record')).toEqual({});
  });

  test('adds to the numbers of a record over all processes, and loses none', async () => {
    const [a, b] = stores;
    await a.setFields('sums', { other: 'text', broken: 'no number' });
    await Promise.all(
      Array.from({ length: 40 }, (_, i) =>
        (i % 2 === 0 ? a : b).addToFields('sums', { count: 1, seconds: 0.25, 'with spaces': 2 }),
      ),
    );
    await a.addToFields('sums', { large: 3_000_000_000, broken: 5, tiny: 0.0001, down: -2 });
    expect(await b.addToFields('sums', {})).toEqual({});
    expect(await b.addToFields('sums', { count: 0, large: 1, none: 0 })).toEqual({
      ...{ count: 40, large: 3_000_000_001, none: 0 },
    });
    const { other, ...sums } = await b.getFields('sums');
    expect(other).toBe('text');
    expect(Object.fromEntries(Object.entries(sums).map(([name, text]) => [name, Number(text)]))).toEqual({
      count: 40,
      seconds: 10,
      'with spaces': 80,
      large: 3_000_000_001,
      none: 0,
      broken: 5,
      tiny: 0.0001,
      down: -2,
    });
  });

  test('gives a lease to one owner at a time', async () => {
    const [a, b] = stores;
    expect(await a.lease('run', 'ada', 60_000)).toBe(true);
    expect(await b.lease('run', 'bob', 60_000)).toBe(false);
    expect(await a.lease('run', 'ada', 60_000)).toBe(true);
    expect(await b.leaseOwner('run')).toBe('ada');
    await b.release('run', 'bob');
    expect(await b.leaseOwner('run')).toBe('ada');
    await a.release('run', 'ada');
    expect(await a.leaseOwner('run')).toBeUndefined();
    expect(await b.lease('run', 'bob', 60_000)).toBe(true);
  });

  test('ends a lease that is not renewed', async () => {
    const [a, b] = stores;
    await a.lease('short', 'ada', 50);
    await vi.waitFor(async () => expect(await b.lease('short', 'bob', 60_000)).toBe(true), soon);
    expect(await a.lease('short', 'ada', 50)).toBe(false);
  });

  test('lists the members whose time is not over, with what they say', async () => {
    const [a, b] = stores;
    await a.announce('workers', 'w1', '{"pid":1}', 60_000);
    await b.announce('workers', 'w2', 'a|b|c', 60_000);
    await b.announce('workers', 'w3', 'short', 50);
    await a.announce('workers', 'w1', '{"pid":2}', 60_000);
    await vi.waitFor(async () => expect((await a.members('workers')).has('w3')).toBe(false), soon);
    expect(await b.members('workers')).toEqual(
      new Map([
        ['w1', '{"pid":2}'],
        ['w2', 'a|b|c'],
      ]),
    );
    await b.withdraw('workers', 'w1');
    expect([...(await a.members('workers')).keys()]).toEqual(['w2']);
    expect(await a.members('nobody')).toEqual(new Map());
  });

  test('keeps fields when everybody has gone', async () => {
    const other = await open();
    const first = await other.connect();
    await first.store.setFields('account', { rate: '20/min' });
    await first.close();
    const second = await other.connect();
    expect(await second.store.getFields('account')).toEqual({ rate: '20/min' });
  });

  test('forgets a queue without jobs, and leaves one that has some', async () => {
    const other = await (await open()).connect();
    const queue = other.queue<{ readonly n: number }, null>('short');
    const job = await queue.add('one', { n: 1 });
    await other.store.forgetQueue('short');
    expect(await queue.getVersion()).not.toBeNull();
    expect((await queue.getJob(job.id ?? ''))?.data).toEqual({ n: 1 });
    await job.remove();
    await other.store.forgetQueue('short');
    expect(await queue.getVersion()).toBeNull();
  });
});
