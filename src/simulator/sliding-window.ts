/**
 * Counts events in a window that slides with time. Each event enters and leaves once, so counting costs the
 * same however many there are; what has left is let go in bulk.
 */
export class SlidingWindow {
  private times: number[] = [];
  private first = 0;

  /** Events in the `perMs` milliseconds before `nowMs`; older ones are forgotten for good. */
  count(nowMs: number, perMs: number): number {
    while (this.first < this.times.length && (this.times[this.first] ?? 0) <= nowMs - perMs) this.first++;
    if (this.first > 1024 && this.first * 2 > this.times.length) {
      this.times = this.times.slice(this.first);
      this.first = 0;
    }
    return this.times.length - this.first;
  }

  /** @param nowMs by the clock that `count` is asked with */
  add(nowMs: number): void {
    this.times.push(nowMs);
  }

  /** The n-th oldest event that is still in the window, from 0. */
  at(index: number): number | undefined {
    return this.times[this.first + index];
  }
}
