import type { GivenSlots, LateSlot, Slot, SlotPace, SlotWindow } from '../shared/queue/store.js';
import { LeastOfLast } from './least-of-last.js';

/** What one image is told. Times are those of `performance.now()`. */
export interface OneSlot {
  /** Undefined where none is to be had yet. */
  readonly slot: Slot | undefined;
  /** When it is; not earlier, since the answer took its time. Without a slot: when to ask again for the next one. */
  readonly dueAt: number;
  /** When it is, had the answer been here as soon as answers usually are. */
  readonly earliestAt: number;
}

interface TimedSlots extends GivenSlots {
  readonly answeredAt: number;
  /** How long questions take that nothing holds up. */
  readonly roundTripMs: number;
  /** How much longer this one took. */
  readonly heldUpMs: number;
}

/**
 * Takes the slots together that are asked for in the same turn of the event loop.
 * @param take see `SharedStore.takeSlots`; it may wait for a queue that is away
 * @returns takes one slot
 */
export function takeTogether(
  take: (pace: SlotPace, count: number) => Promise<GivenSlots>,
): (pace: SlotPace) => Promise<OneSlot> {
  let together: { count: number; readonly given: Promise<TimedSlots> } | undefined;
  const roundTrips = new LeastOfLast();
  const takeTimed = async (pace: SlotPace, count: number): Promise<TimedSlots> => {
    const askedAt = performance.now();
    const given = await take(pace, count);
    const answeredAt = performance.now();
    const tookMs = answeredAt - askedAt;
    roundTrips.add(tookMs);
    const roundTripMs = roundTrips.least;
    return { ...given, answeredAt, roundTripMs, heldUpMs: tookMs - roundTripMs };
  };
  return async (pace) => {
    together ??= {
      count: 0,
      given: new Promise((resolve) => setImmediate(resolve)).then(() => {
        const count = together?.count ?? 0;
        together = undefined;
        return takeTimed(pace, count);
      }),
    };
    const place = together.count++;
    const { slots, nextInMs, answeredAt, roundTripMs, heldUpMs } = await together.given;
    const slot = slots[place];
    const dueAt = answeredAt + (slot?.inMs ?? nextInMs - roundTripMs);
    return { slot, dueAt, earliestAt: dueAt - heldUpMs };
  };
}

/**
 * Tells of late slots together that are told of in the same turn of the event loop.
 * @param tell see `SharedStore.delaySlots`
 */
export function tellTogether(
  tell: (late: readonly LateSlot[], window: SlotWindow) => void,
): (late: LateSlot, window: SlotWindow) => void {
  let together: LateSlot[] = [];
  return (late, window) => {
    if (together.push(late) > 1) return;
    setImmediate(() => {
      const all = together;
      together = [];
      tell(all, window);
    });
  };
}
