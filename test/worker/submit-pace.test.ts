import { describe, expect, it } from 'vitest';
import type { Rate } from '../../src/shared/durations.js';
import { EmbeddedSlots } from '../../src/shared/queue/embedded/embedded-slots.js';
import type { SlotPace } from '../../src/shared/queue/store.js';
import { type OneSlot, takeTogether } from '../../src/worker/slot-batch.js';
import { SubmitPace, type SubmitPaceTools } from '../../src/worker/submit-pace.js';

const forever = new AbortController().signal;

/** Timers count whole milliseconds, and may come that much early at both ends. */
const TIMERS_MS = 2;

/** An account's slots, and paces of workers that share them. */
class Account {
  readonly slots = new EmbeddedSlots();
  readonly late: number[] = [];

  constructor(private readonly rate: Rate) {}

  pace(tools: Partial<SubmitPaceTools> = {}): SubmitPace {
    return new SubmitPace({
      rate: () => this.rate,
      takeSlot: (pace) => Promise.resolve(this.takeSlot(pace)),
      delaySlot: (late, window) => {
        this.late.push(late.lateMs);
        this.slots.delay(window, [late], performance.now());
      },
      onWaiting: () => undefined,
      ...tools,
    });
  }

  takeSlot(pace: SlotPace): OneSlot {
    const { slots, nextInMs } = this.slots.take(pace, 1, performance.now());
    const dueAt = performance.now() + (slots[0]?.inMs ?? nextInMs);
    return { slot: slots[0], dueAt, earliestAt: dueAt };
  }
}

/** Keeps the process from its processor. */
function stallUntil(time: number): void {
  while (performance.now() < time);
}

describe('the pace of submits', () => {
  it.each([
    ['slots that are taken far ahead', 20],
    ['slots that are taken when they are near', 60],
  ])('keeps the distance over all workers, however many images wait at once: %s', async (_, intervalMs) => {
    const account = new Account({ count: 1, perMs: intervalMs });
    const startedAt = performance.now();
    const takes = [1, 2, 3].flatMap(() => {
      const pace = account.pace();
      return Array.from({ length: 7 }, () => pace.take(forever));
    });
    expect((await Promise.all(takes)).every((slot) => slot !== undefined)).toBe(true);
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(20 * intervalMs - TIMERS_MS);
  });

  it('takes no slot before it is near, so that a 429 or a late submit can still push it', async () => {
    const account = new Account({ count: 1, perMs: 1000 });
    const pace = account.pace();
    await pace.take(forever);
    const second = pace.take(forever);
    await new Promise((resolve) => setImmediate(resolve));
    const heldAt = performance.now();
    account.slots.hold(1200, heldAt);
    await second;
    expect(performance.now() - heldAt).toBeGreaterThanOrEqual(1200 - TIMERS_MS);
  });

  it('uses a slot that it comes to late, and tells the slots to come', async () => {
    const account = new Account({ count: 10, perMs: 1000 });
    const given: OneSlot[] = [];
    const pace = account.pace({
      takeSlot: (slotPace) => {
        const one = account.takeSlot(slotPace);
        // The second slot's time comes while the process does not get its processor.
        if (one.slot !== undefined && given.push(one) === 2) setImmediate(stallUntil, one.dueAt + 60);
        return Promise.resolve(one);
      },
    });
    (await pace.take(forever))?.sent();
    (await pace.take(forever))?.sent();
    expect(account.late.at(-1)).toBeGreaterThan(50);
  });

  it('takes another slot when it comes to one later than half of the window', async () => {
    const account = new Account({ count: 10, perMs: 1000 });
    account.slots.hold(20, performance.now());
    let taken = 0;
    const pace = account.pace({
      takeSlot: (slotPace) => {
        const one = account.takeSlot(slotPace);
        if (++taken === 1) setImmediate(stallUntil, one.dueAt + 600);
        return Promise.resolve(one);
      },
    });
    expect(await pace.take(forever)).toBeDefined();
    expect(taken).toBeGreaterThanOrEqual(2);
  });

  it('says nothing of a submit that is as late as the sixteen before it', async () => {
    const account = new Account({ count: 100, perMs: 10_000 });
    const pace = account.pace();
    for (let i = 0; i < 24; i++) {
      const slot = await pace.take(forever);
      stallUntil(performance.now() + 60);
      slot?.sent();
    }
    // The others were told, as later than one in time; some may have been later still.
    expect(account.late.length).toBeGreaterThanOrEqual(16);
    expect(account.late.length).toBeLessThan(24);
  });

  it('goes on at once after a queue that was away, and tells of no lateness', async () => {
    const account = new Account({ count: 10, perMs: 1000 });
    let asked = 0;
    const pace = account.pace({
      takeSlot: takeTogether(async (slotPace, count) => {
        if (++asked === 2) await new Promise((resolve) => setTimeout(resolve, 1500));
        return account.slots.take(slotPace, count, performance.now());
      }),
    });
    const sentAt: number[] = [];
    for (let i = 0; i < 4; i++) {
      (await pace.take(forever))?.sent();
      sentAt.push(performance.now());
    }
    const [, second = NaN, , fourth = NaN] = sentAt;
    expect(account.late.filter((ms) => ms > 1000)).toEqual([]);
    expect(fourth - second).toBeLessThan(1000);
  });

  it('is fair to a worker whose answers take longer', async () => {
    const account = new Account({ count: 20, perMs: 1000 });
    const ended = new AbortController();
    let quick = 0;
    let slow = 0;
    const work = async (latencyMs: number, count: () => void) => {
      const wait = () => new Promise((resolve) => setTimeout(resolve, latencyMs));
      const pace = account.pace({
        takeSlot: takeTogether(async (slotPace, count) => {
          await wait();
          const given = account.slots.take(slotPace, count, performance.now());
          await wait();
          return given;
        }),
      });
      while ((await pace.take(ended.signal)) !== undefined) {
        count();
        if (quick + slow >= 60) ended.abort();
      }
    };
    await Promise.all([work(0, () => quick++), work(10, () => slow++)]);
    expect(quick).toBeGreaterThanOrEqual(10);
    expect(slow).toBeGreaterThanOrEqual(10);
  });

  it('tells when the first image waits and when none does, and ends with the signal', async () => {
    const told: boolean[] = [];
    const account = new Account({ count: 1, perMs: 60_000 });
    account.slots.hold(60_000, performance.now());
    const stopping = new AbortController();
    const pace = account.pace({ onWaiting: (isWaiting) => told.push(isWaiting) });
    const takes = [pace.take(stopping.signal), pace.take(stopping.signal)];
    expect([pace.isWaiting, told]).toEqual([true, [true]]);
    stopping.abort();
    expect(await Promise.all(takes)).toEqual([undefined, undefined]);
    expect([pace.isWaiting, told]).toEqual([false, [true, false]]);
  });
});
