import { Counter, Gauge, type Registry } from 'prom-client';

export const PREFIX = 'bulk_describe_';

export interface Sample {
  readonly labels: Record<string, string>;
  readonly value: number;
}

type Telling = [
  registry: Registry,
  /** Without the prefix. */
  name: string,
  help: string,
  labelNames: string[],
  samples: readonly Sample[],
];

/** Tells of something that only grows. */
export function counter(...telling: Telling): void {
  const metric = new Counter(definitionOf(telling));
  for (const { labels, value } of telling[4]) metric.inc(labels, value);
}

/** Tells of something as it is now. */
export function gauge(...telling: Telling): void {
  const metric = new Gauge(definitionOf(telling));
  for (const { labels, value } of telling[4]) metric.set(labels, value);
}

function definitionOf([registry, name, help, labelNames]: Telling) {
  return { name: `${PREFIX}${name}`, help, labelNames, registers: [registry] };
}
