import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { renderMetrics } from '../../src/dashboard/metrics.js';
import { TROUBLE_KINDS } from '../../src/service/troubles.js';
import { RUNS_QUEUE } from '../../src/shared/jobs.js';
import { describeOnAnyQueue } from '../helpers/queues.js';
import { manifestOf } from '../helpers/workspace.js';
import { RunFixture } from '../helpers/run-fixture.js';

describeOnAnyQueue('the metrics', (openQueue) => {
  const fixture = RunFixture.forSuite(openQueue);

  test('can be parsed, and equal what the API saw', async () => {
    fixture.simulator.setOptions({
      failures: { reject: 0.2 },
      latencyMs: 300,
      latencySpread: 0.5,
      // Whatever the machine does, it is faster than this.
      rateLimit: { count: 4, perMs: 1000 },
    });
    let text = '';
    const manifest = await fixture.workspace.write('m.csv', manifestOf(20));
    const { receipt } = await fixture.run({
      manifest,
      stopFailing: 100,
      limits: { rate: { count: 200, perMs: 1000 }, pollRate: { count: 200, perMs: 1000 }, maxInFlight: 40 },
      schedule: 'nightly',
      // The queue is looked at when the worker has told its last.
      companions: [
        async (connection) => {
          const runs = connection.queue(RUNS_QUEUE);
          await runs.upsertJobScheduler(
            'nightly',
            { pattern: '0 2 * * *' },
            { name: 'run', data: { manifest: 'm.csv' } },
          );
          const lastSuccessAt = Date.UTC(2026, 2, 1, 2);
          const record = { lastAt: String(lastSuccessAt + 1000), lastSuccessAt: String(lastSuccessAt) };
          await connection.store.setFields('schedule:nightly', record);
          return async () => {
            ({ text } = await renderMetrics(connection));
            await runs.removeJobScheduler('nightly');
          };
        },
      ],
    });
    const stats = fixture.simulator.stats();
    const samples = parseExposition(text);
    const value = (name: string, labels: Record<string, string> = {}) => {
      const found = samples.filter(
        (sample) =>
          sample.name === `bulk_describe_${name}` &&
          Object.entries(labels).every(([label, text]) => sample.labels[label] === text),
      );
      expect(found, `${name} ${JSON.stringify(labels)}`).toHaveLength(1);
      return found[0]?.value;
    };
    expect(stats.answered429).toBeGreaterThan(0);
    expect(value('submits_total')).toBe(stats.submits);
    expect(value('polls_total')).toBe(stats.polls);
    expect(value('throttled_total', { call: 'submit' })).toBe(stats.answered429);
    expect(value('outcomes_total', { code: 'described' })).toBe(receipt.described);
    expect(value('outcomes_total', { code: 'rejected' })).toBe(receipt.failed);
    expect(value('outcomes_total', { code: 'lost' })).toBe(0);
    for (const name of ['latency_seconds', 'poll_lag_seconds']) {
      expect(value(`${name}_count`)).toBe(receipt.described);
      expect(value(`${name}_bucket`, { le: '+Inf' })).toBe(receipt.described);
      expect(value(`${name}_sum`)).toBeGreaterThan(0);
      const buckets = samples.filter((sample) => sample.name === `bulk_describe_${name}_bucket`);
      const counts = buckets.map((sample) => sample.value);
      expect(counts).toEqual([...counts].sort((a, b) => a - b));
    }
    // Half of the messages take up to 300 ms; none of them can have been noticed before.
    expect(value('latency_seconds_sum')).toBeGreaterThan(0.3 * (receipt.described / 2));
    expect(value('queue_jobs', { state: 'failed' })).toBe(receipt.failed);
    expect(value('queue_jobs', { state: 'completed' })).toBe(receipt.described);
    expect(value('in_flight')).toBe(0);
    expect(value('in_flight_limit')).toBe(40);
    expect(value('configured_rate_per_second')).toBe(200);
    expect(value('learned_rate_per_second')).toBeLessThan(200);
    expect(value('runs', { state: 'ended' })).toBe(1);
    expect(value('schedule_last_success_timestamp_seconds', { schedule: 'nightly' })).toBe(
      Date.UTC(2026, 2, 1, 2) / 1000,
    );
    for (const kind of TROUBLE_KINDS) expect(value('troubles', { kind })).toBe(0);
    for (const expr of await documentedAlerts()) {
      const names = [...expr.matchAll(/bulk_describe_(\w+)/g)].map(([, name = '']) => name);
      for (const name of names) expect(text).toContain(`# TYPE bulk_describe_${name} `);
      const [, kinds = ''] = /kind[!=]~"(.*?)"/.exec(expr) ?? [];
      for (const kind of kinds === '' ? [] : kinds.split('|')) expect(TROUBLE_KINDS).toContain(kind);
    }
  });
});

const alertsSchema = z.object({
  groups: z.array(z.object({ rules: z.array(z.object({ alert: z.string(), expr: z.string() })).min(5) })),
});

/** The conditions of docs/metrics.md's alerts. */
async function documentedAlerts(): Promise<string[]> {
  const page = await readFile(fileURLToPath(new URL('../../docs/metrics.md', import.meta.url)), 'utf8');
  const [, block] = /## Alerts to copy\s+```yaml\n([^`]*(?:`[^`]+`[^`]*)*?)```/.exec(page) ?? [];
  return alertsSchema.parse(parse(block ?? '')).groups.flatMap(({ rules }) => rules.map(({ expr }) => expr));
}

interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Reads Prometheus' text format strictly: every sample has been announced with its help and its type. */
function parseExposition(text: string): Sample[] {
  expect(text.endsWith('\n')).toBe(true);
  const types = new Map<string, string>();
  const helped = new Set<string>();
  const samples: Sample[] = [];
  for (const line of text.split('\n').filter((each) => each !== '')) {
    const help = /^# HELP ([a-z_]+) \S.*$/.exec(line)?.[1];
    const type = /^# TYPE ([a-z_]+) (counter|gauge|histogram)$/.exec(line);
    if (help !== undefined) helped.add(help);
    else if (type !== null) types.set(type[1] ?? '', type[2] ?? '');
    else samples.push(parseSample(line, types, helped));
  }
  for (const [name, type] of types) {
    if (type === 'counter') expect(name).toMatch(/_total$/);
    expect(name).toMatch(/^bulk_describe_/);
  }
  return samples;
}

function parseSample(line: string, types: ReadonlyMap<string, string>, helped: ReadonlySet<string>): Sample {
  const match = /^([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$/.exec(line);
  expect(match, line).not.toBeNull();
  const [, name = '', labelText = '', value = ''] = match ?? [];
  const base = types.has(name) ? name : name.replace(/_(?:bucket|sum|count)$/, '');
  expect(types.get(base), line).toBeDefined();
  expect(helped.has(base), line).toBe(true);
  if (base !== name) expect(types.get(base), line).toBe('histogram');
  expect(Number(value), line).not.toBeNaN();
  const pairs = [...labelText.matchAll(/([a-z]+)="((?:[^"\\]|\\.)*)"/g)];
  return {
    name,
    labels: Object.fromEntries(pairs.map(([, label = '', text = '']) => [label, text])),
    value: Number(value),
  };
}
