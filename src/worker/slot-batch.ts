import type { GivenSlots, LateSlot, Slot, SlotPace } from '../shared/queue/store.js';

/** What one image is told. Times are those of `performance.now()`. */
export interface OneSlot {
  /** Undefined where none is to be had yet. */
  readonly slot: Slot | undefined;
  /** When it is, or when the next one comes: not earlier, since the answer took its time. */
  readonly dueAt: number;
  /** When it is at the earliest, had the question been answered at once. */
  readonly earliestAt: number;
}

interface TimedSlots extends GivenSlots {
  readonly askedAt: number;
  readonly answeredAt: number;
}

/**
 * Takes the slots together that are asked for in the same turn of the event loop.
 * @param take see `SharedStore.takeSlots`
 * @returns takes one slot
 */
export function takeTogether(
  take: (pace: SlotPace, count: number) => Promise<GivenSlots>,
): (pace: SlotPace) => Promise<OneSlot> {
  let together: { count: number; readonly given: Promise<TimedSlots> } | undefined;
  return async (pace) => {
    together ??= {
      count: 0,
      given: new Promise((resolve) => setImmediate(resolve)).then(async () => {
        const count = together?.count ?? 0;
        together = undefined;
        const askedAt = performance.now();
        const given = await take(pace, count);
        return { ...given, askedAt, answeredAt: performance.now() };
      }),
    };
    const place = together.count++;
    const { slots, nextInMs, askedAt, answeredAt } = await together.given;
    const slot = slots[place];
    const inMs = slot?.inMs ?? nextInMs;
    return { slot, dueAt: answeredAt + inMs, earliestAt: askedAt + inMs };
  };
}

/**
 * Tells of late slots together that are told of in the same turn of the event loop.
 * @param tell see `SharedStore.delaySlots`
 */
export function tellTogether(tell: (late: readonly LateSlot[]) => void): (late: LateSlot) => void {
  let together: LateSlot[] = [];
  return (late) => {
    if (together.push(late) > 1) return;
    setImmediate(() => {
      const all = together;
      together = [];
      tell(all);
    });
  };
}
