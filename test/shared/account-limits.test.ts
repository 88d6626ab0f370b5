import { beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { AccountLimits } from '../../src/shared/account-limits.js';
import { DEFAULT_LIMITS, type Limits } from '../../src/shared/limits.js';
import { silentLogger } from '../../src/shared/log.js';
import type { SharedStore } from '../../src/shared/queue/store.js';
import { describeOnBothQueues } from '../helpers/queues.js';

const anyObject = z.record(z.string(), z.unknown());
const FAST = { count: 10, perMs: 1000 };

describeOnBothQueues('the limits of an account', (openQueue) => {
  let store: SharedStore;
  let accounts = 0;

  beforeAll(async () => {
    ({ store } = await (await openQueue()).connect());
  });

  /** A new account: how a process opens it, and where the queue has its values. */
  function account() {
    const name = `account-${accounts++}`;
    const open = (explicit: Partial<Limits> = {}) =>
      AccountLimits.open(store, name, explicit, silentLogger());
    return { open, fields: `account:${name}` };
  }

  test('are the defaults where nothing is given and nothing known', async () => {
    const { open } = account();
    expect((await open()).configured).toEqual(DEFAULT_LIMITS);
  });

  test('what is given explicitly is kept for the others; what is not given is adopted', async () => {
    const { open } = account();
    await open({ rate: FAST });
    const second = await open({ maxInFlight: 3 });
    expect(second.configured).toEqual({ ...DEFAULT_LIMITS, rate: FAST, maxInFlight: 3 });
    expect((await open()).configured).toEqual(second.configured);
  });

  test('a change reaches those who are at work', async () => {
    const { open } = account();
    const worker = await open();
    expect(await worker.refresh()).toBe(false);
    await open({ rate: FAST });
    expect(await worker.refresh()).toBe(true);
    expect(worker.configured.rate).toEqual(FAST);
    expect(await worker.refresh()).toBe(false);
  });

  test('rest without a fall where an answer says that nothing is left to submit, and people see until when', async () => {
    const { open } = account();
    const worker = await open();
    await worker.resting(60_000);
    const other = await open();
    expect(other.heldMs()).toBeGreaterThan(50_000);
    expect([other.share(), other.share(Date.now() + 61_000)]).toEqual([1, 1]);
    await worker.resting(5000);
    expect(worker.heldMs()).toBeGreaterThan(50_000);
  });

  test('survive a queue that was emptied: the next refresh writes them back, and lifts none', async () => {
    const { open, fields } = account();
    const worker = await open({ rate: FAST, maxInFlight: 2 });
    await worker.rateLimited(undefined);
    await forget(store, fields);
    expect(await worker.refresh()).toBe(false);
    const other = await open();
    expect(other.configured).toEqual({ ...DEFAULT_LIMITS, rate: FAST, maxInFlight: 2 });
    expect(other.share()).toBe(0.5);
  });

  test('values that cannot be read count as not set', async () => {
    const { open, fields } = account();
    await open({ rate: FAST });
    await store.setFields(fields, {
      rate: '{"count":-1,"perMs":0}',
      learned: 'nonsense',
      maxInFlight: '2.5',
    });
    const limits = await open();
    expect(limits.configured).toEqual(DEFAULT_LIMITS);
    expect(limits.share()).toBe(1);
  });

  test('a 429 that one worker meets slows all of them down, with its next refresh', async () => {
    const { open } = account();
    const [first, second] = [await open(), await open()];
    expect(await first.rateLimited(3000)).toBe(3000);
    await second.refresh();
    expect([first.share(), second.share(), (await open()).share()]).toEqual([0.5, 0.5, 0.5]);
  });

  test('two workers that meet the same storm halve the rate once', async () => {
    const { open } = account();
    const [first, second] = [await open(), await open()];
    await first.rateLimited(2000);
    // The second one has not looked since.
    await second.rateLimited(2000);
    await Promise.all([first.rateLimited(2000), second.rateLimited(2000), second.rateLimited(undefined)]);
    await first.refresh();
    expect([first.share(), second.share()]).toEqual([0.5, 0.5]);
  });

  test('a worker that has not looked for a while writes over no newer fall', async () => {
    const { open } = account();
    const [first, second] = [await open(), await open()];
    await second.rateLimited(undefined);
    await first.refresh();
    const later = Date.now() + 600_000;
    const back = (limits: AccountLimits) => limits.share(later);
    expect(back(first)).toBe(1);
    await first.rateLimited(900_000);
    // It knows of its own fall alone, and a submit of its own went through.
    await second.submitted();
    await first.refresh();
    expect([back(first), back(second)], 'the long wait is not forgotten').toEqual([0.5, 0.5]);
  });

  test('pauses grow until a submit goes through, for whichever worker', async () => {
    const { open, fields } = account();
    const [first, second] = [await open(), await open()];
    const pauses = [await first.rateLimited(undefined), await nextStorm(second), await nextStorm(first)];
    expect(pauses).toEqual([1000, 2000, 4000]);
    await second.submitted();
    expect(await nextStorm(first)).toBe(1000);

    /** A 429 after the wait that was asked for last. */
    async function nextStorm(limits: AccountLimits): Promise<number> {
      const { learned = '{}' } = await store.getFields(fields);
      const past = { fellAt: 1000, heldUntil: 2000 };
      await store.setFields(fields, {
        learned: JSON.stringify({ ...anyObject.parse(JSON.parse(learned)), ...past }),
      });
      await limits.refresh();
      return limits.rateLimited(undefined);
    }
  });
});

/** What a flushed Redis is to a record. */
async function forget(store: SharedStore, record: string): Promise<void> {
  const fields = Object.keys(await store.getFields(record));
  await store.setFields(record, Object.fromEntries(fields.map((field) => [field, null])));
}
