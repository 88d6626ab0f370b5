import { Bell } from '../shared/bell.js';

const LOOK_EVERY_MS = 1000;

/**
 * Holds fresh submits back until every image that was taken up again with its message has been asked for once:
 * one that is completed by now makes room, and nothing is paid for before what is paid for already was looked at.
 */
export class FirstPolls {
  #pending = 0;
  readonly #changed = new Bell();

  /** Announces a first poll. @returns its end, to be called once it was made or will not be */
  expect(): () => void {
    let isOver = false;
    this.#pending++;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#pending--;
      this.#changed.ring();
    };
  }

  /** Waits until none is pending; false when the signal aborted first. */
  async made(signal: AbortSignal): Promise<boolean> {
    while (this.#pending > 0 && !signal.aborted) {
      await this.#changed.wait(LOOK_EVERY_MS, signal);
    }
    return !signal.aborted;
  }
}
