/** Of so many submits the least late tells how late this process is always: that changes no distance between its own. */
const USUAL_OF = 16;

/**
 * How late submits go out for their slots: their process was kept waiting, or they had to wait for a connection, as the
 * first one of a process does. One that is later than others stands nearer to those behind it.
 */
export class Lateness {
  #last: readonly number[] = [0];

  /** @returns by how much longer than usual this one took */
  beyondUsual(lateMs: number): number {
    const usualMs = Math.min(...this.#last);
    this.#last = [...this.#last, lateMs].slice(-USUAL_OF);
    return lateMs - usualMs;
  }
}
