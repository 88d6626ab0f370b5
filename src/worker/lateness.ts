import { LeastOfLast } from './least-of-last.js';

/**
 * How late submits go out for their slots: their process was kept waiting, or they had to wait for a connection, as the
 * first one of a process does. One that is later than others stands nearer to those behind it; how late a process is
 * always changes no distance between its own.
 */
export class Lateness {
  readonly #usual = new LeastOfLast(0);

  /** @returns by how much longer than usual this one took */
  beyondUsual(lateMs: number): number {
    const beyondMs = lateMs - this.#usual.least;
    this.#usual.add(lateMs);
    return beyondMs;
  }
}
