import { Histogram, type Registry } from 'prom-client';
import { HISTOGRAM_BOUNDS, type HistogramName } from '../../shared/published.js';

/** A line of the text format. */
interface Line {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A histogram whose observations are not made in this process, but read from what the workers have counted. */
export class StoredHistogram extends Histogram<'account'> {
  readonly #values: Line[] = [];

  constructor(
    private readonly config: {
      name: string;
      help: string;
      field: HistogramName;
      registers: Registry[];
    },
  ) {
    const { name, help, field, registers } = config;
    super({ name, help, labelNames: ['account'], buckets: [...HISTOGRAM_BOUNDS[field]], registers });
  }

  /** Takes an account's counts: each bucket has its own, and Prometheus wants each with those below it. */
  add(account: string, counts: ReadonlyMap<string, number>): void {
    const { name, field } = this.config;
    let total = 0;
    for (const le of [...HISTOGRAM_BOUNDS[field].map(String), '+Inf']) {
      total += counts.get(`${field}:le:${le}`) ?? 0;
      this.#values.push({ metricName: `${name}_bucket`, labels: { account, le }, value: total });
    }
    const labels = { account };
    this.#values.push({ metricName: `${name}_sum`, labels, value: counts.get(`${field}:sum`) ?? 0 });
    this.#values.push({ metricName: `${name}_count`, labels, value: total });
  }

  /** What prom-client asks for when it writes text. */
  getForPromString(): Promise<object> {
    const { name, help } = this.config;
    return Promise.resolve({ name, help, type: 'histogram', aggregator: 'sum', values: this.#values });
  }
}
