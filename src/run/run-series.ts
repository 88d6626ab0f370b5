import type { RunSeries } from '../shared/published.js';

const MOST_BUCKETS = 120;
const FIRST_WIDTH_MS = 5000;

/** Images described and rows failed; what all starts of the run have cost so far. */
interface Counted {
  readonly described: number;
  readonly failed: number;
  readonly cost?: number | undefined;
}

/** A run over its time, for charts. It goes on where an earlier start of the run has left it. */
export class SeriesMeter {
  #before: Counted = { described: 0, failed: 0 };

  /** @param series what an earlier start has left */
  constructor(
    private series: RunSeries | undefined,
    private readonly startedAt: number,
  ) {}

  /** Adds what this start has counted since the last time. */
  read(now: Counted, nowMs: number): RunSeries {
    const { described, failed } = this.#before;
    this.#before = now;
    const more = { ...now, described: now.described - described, failed: now.failed - failed };
    const series = this.series ?? {
      from: this.startedAt,
      widthMs: FIRST_WIDTH_MS,
      described: [],
      failed: [],
    };
    return (this.series = addToSeries(series, more, nowMs));
  }
}

/** A series stays small however long its run takes: where there are too many buckets, each two become one. */
export function addToSeries(series: RunSeries, more: Counted, nowMs: number): RunSeries {
  let { widthMs, described, failed, cost } = series;
  const last = () => Math.floor((nowMs - series.from) / widthMs);
  while (last() >= MOST_BUCKETS) {
    widthMs *= 2;
    described = paired(described, (a, b = 0) => a + b);
    failed = paired(failed, (a, b = 0) => a + b);
    cost = cost && paired(cost, (earlier, later = earlier) => later);
  }
  // A clock that has gone back adds to the newest bucket.
  const at = Math.max(last(), described.length - 1, 0);
  const known = cost ?? (more.cost === undefined ? undefined : []);
  return {
    from: series.from,
    widthMs,
    described: raised(described, at, more.described),
    failed: raised(failed, at, more.failed),
    ...(known && { cost: [...filled(known, at, known.at(-1) ?? 0), more.cost ?? known.at(-1) ?? 0] }),
  };
}

function paired(values: readonly number[], merge: (a: number, b?: number) => number): number[] {
  return values.flatMap((value, i) => (i % 2 === 0 ? [merge(value, values[i + 1])] : []));
}

/** So many values; what is missing was `value`. */
function filled(values: readonly number[], count: number, value: number): number[] {
  return Array.from({ length: count }, (_, i) => values[i] ?? value);
}

/** A row that failed may be described after all: that is nothing that happened less. */
function raised(values: readonly number[], at: number, by: number): number[] {
  const all = filled(values, at + 1, 0);
  return [...all.slice(0, at), Math.max(0, (all[at] ?? 0) + by)];
}
