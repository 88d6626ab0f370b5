import type { RunCounts } from '../shared/run-counts.js';
import { failedRows } from '../shared/run-counts.js';
import type { Progress } from './run-options.js';

const WINDOW_MS = 30_000;

/** Turns the counts into progress: the rate of the last half a minute, and from it the time that is left. */
export class ProgressMeter {
  #samples: { readonly atMs: number; readonly settled: number }[] = [];

  /** @param manifest its rows, and those of them that were described before, where all of it could be counted */
  constructor(private readonly manifest: { readonly rows: number; readonly described: number } | undefined) {}

  read(counts: RunCounts, live: { inFlight: number; share: number }, nowMs: number): Progress {
    const failed = failedRows(counts);
    const done = counts.described + counts.copied + failed;
    this.#samples.push({ atMs: nowMs, settled: done });
    while (this.#samples.length > 2 && nowMs - (this.#samples[0]?.atMs ?? nowMs) > WINDOW_MS) {
      this.#samples.shift();
    }
    const [oldest] = this.#samples;
    const spanMs = nowMs - (oldest?.atMs ?? nowMs);
    const perSecond = spanMs > 0 ? ((done - (oldest?.settled ?? 0)) / spanMs) * 1000 : 0;
    // Described rows are counted as they are met, which may be behind those that are left to do.
    const left = this.manifest && Math.max(0, this.manifest.rows - this.manifest.described - done);
    return {
      rows: counts.rows,
      totalRows: this.manifest?.rows,
      settled: done + counts.resumed,
      described: counts.described,
      resumed: counts.resumed,
      copied: counts.copied,
      failed,
      ...live,
      perSecond,
      etaMs: left === undefined || perSecond === 0 ? undefined : (left / perSecond) * 1000,
    };
  }
}
