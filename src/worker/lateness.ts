import type { Rate } from '../shared/durations.js';
import { intervalMs } from '../shared/limits.js';

/** Of so many submits the least late tells how late this process is always: that changes no distance. */
const USUAL_OF = 16;
/** A window of the rate's unit may hold so much more than it says before anybody minds. */
const TOLERANCE = 1 / 20;

/**
 * A submit that is late, since its process was kept waiting or it had to wait for a connection, stands nearer to those
 * behind it, and a window that begins with it may hold one more than the rate says. Tells by how much the slots behind
 * it have to move for that.
 */
export class Lateness {
  #last: number[] = [];

  /** @param margin by which part distances are longer than the rate says */
  constructor(private readonly margin: number) {}

  /**
   * @param lateMs how long after its slot a submit goes
   * @returns milliseconds, at most 0 where nothing has to move
   */
  tooLateMs(lateMs: number, rate: Rate): number {
    this.#last = [...this.#last, lateMs].slice(-USUAL_OF);
    // Half of what the margin leaves in a window; the other half is for the way to the API.
    const roomMs = (rate.perMs * this.margin) / 2 + Math.floor(rate.count * TOLERANCE) * intervalMs(rate);
    return lateMs - Math.min(...this.#last) - roomMs;
  }
}
