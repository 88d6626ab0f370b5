import {
  CATCH_UP_DISTANCE,
  type GivenSlots,
  type LateSlot,
  type Slot,
  type SlotPace,
  type SlotWindow,
} from '../store.js';

/** The slots of one name of the embedded queue. Times are milliseconds of a clock that nobody sets. */
export class EmbeddedSlots {
  /** When the next one is free. */
  #free = -Infinity;
  /** The last ones, by when they were used; no more than a window may hold. */
  #used: { readonly id: string; at: number }[] = [];

  take({ intervalMs, window, withinMs = Infinity }: SlotPace, count: number, now: number): GivenSlots {
    let free = this.#free < now - (window?.catchUpMs ?? 0) ? now : this.#free;
    const slots: Slot[] = [];
    while (slots.length < count) {
      let at = Math.max(now, free);
      if (window !== undefined) {
        const last = this.#used.at(-1)?.at ?? -Infinity;
        // The one that has to have left the window.
        const first = this.#used.at(-window.count)?.at ?? -Infinity;
        at = Math.max(at, last + intervalMs * CATCH_UP_DISTANCE, first + window.ms);
      }
      if (at - now > withinMs) return { slots, nextInMs: at - now };
      const id = at.toFixed(3);
      slots.push({ id, inMs: at - now });
      free += intervalMs;
      this.#free = free;
      if (window !== undefined) this.#used = [...this.#used, { id, at }].slice(-window.count);
    }
    return { slots, nextInMs: 0 };
  }

  /** One that is not kept any more may have been used just now. */
  delay(window: SlotWindow, late: readonly LateSlot[], now: number): void {
    for (const { slot, lateMs } of late) {
      const at = Math.min(now, Number(slot.id) + lateMs);
      const known = this.#used.find(({ id }) => id === slot.id);
      if (known !== undefined) known.at = Math.max(known.at, at);
      else if (at > now - window.ms) this.#used.push({ id: slot.id, at });
    }
    this.#used.sort((a, b) => a.at - b.at);
  }

  /** @returns in how many milliseconds the next one is free */
  hold(ms: number, now: number): number {
    this.#free = Math.max(this.#free, now + ms);
    return this.#free - now;
  }
}
