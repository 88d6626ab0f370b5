/** A binary heap of points in time: the earliest is at hand, adding and taking it cost log n. */
export class TimeHeap {
  private readonly times: number[] = [];

  get size(): number {
    return this.times.length;
  }

  get earliest(): number | undefined {
    return this.times[0];
  }

  push(time: number): void {
    let at = this.times.push(time) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.get(parent) <= time) break;
      this.times[at] = this.get(parent);
      at = parent;
    }
    this.times[at] = time;
  }

  /** Takes out everything up to and including `time`. */
  dropUntil(time: number): void {
    while (this.times.length > 0 && this.get(0) <= time) this.dropEarliest();
  }

  private get(index: number): number {
    return this.times[index] ?? Infinity;
  }

  private dropEarliest(): void {
    const last = this.times.pop();
    if (last === undefined || this.times.length === 0) return;
    let at = 0;
    for (;;) {
      const left = 2 * at + 1;
      const child = this.get(left + 1) < this.get(left) ? left + 1 : left;
      if (this.get(child) >= last) break;
      this.times[at] = this.get(child);
      at = child;
    }
    this.times[at] = last;
  }
}
