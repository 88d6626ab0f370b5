import { expect, test } from 'vitest';
import { costChart, failuresChart, latencyChart, rateChart } from '../../src/dashboard/charts.js';

const MINUTE = 60_000;

test('draws what was described a minute, with the failures on top, and says it in words', () => {
  const series = { from: 0, widthMs: 2 * MINUTE, described: [40, 0, 20], failed: [0, 0, 4] };
  const { markup } = rateChart(series, 5 * MINUTE);
  // The newest bucket has lasted a minute.
  expect(markup).toContain(
    'aria-label="Images a minute: 60 described and 4 failed in 5 min; 12 a minute on average, 24 at most"',
  );
  const bars = (name: string) =>
    new RegExp(`class="${name}" d="([^"]*)"`).exec(markup)?.[1]?.match(/M/g)?.length;
  expect([bars('described'), bars('failed')]).toEqual([2, 1]);
  expect(markup).toMatch(/>25<[\s\S]*since the start/);
  expect(markup).toMatch(/\s6 min\s/);
});

test('draws a run that has just begun, and one in which nothing came', () => {
  const empty = { from: 5, widthMs: 5000, described: [], failed: [] };
  for (const series of [empty, { ...empty, described: [0], failed: [0] }]) {
    const { markup } = rateChart(series, 5);
    expect(markup).toContain('0 described and 0 failed');
    expect(markup).not.toMatch(/NaN|Infinity|undefined/);
  }
});

test('draws what a run has cost with prices alone', () => {
  const series = { from: 0, widthMs: 1000, described: [1, 1], failed: [0, 0] };
  expect(costChart(series)).toBeUndefined();
  expect(costChart({ ...series, cost: [0.25, 0.5] })?.markup).toContain('aria-label="Cost: 0.5 so far"');
});

test('draws the latencies between the shortest and the longest that there were', () => {
  const counted = [1, 5, 30, Infinity].map((seconds) => ({ seconds, count: seconds === 1 ? 0 : 2 }));
  const { markup = '' } = latencyChart(counted, 'How long') ?? {};
  expect(markup).toContain('aria-label="How long: 6 images; half of them took at most 30 seconds"');
  expect(markup.match(/>\s+(5|30|over 30)\s+</g)?.map((text) => text.slice(1, -1).trim())).toEqual([
    '5',
    '30',
    'over 30',
  ]);
  expect(latencyChart([{ seconds: 1, count: 0 }], 'How long')).toBeUndefined();
});

test('shows failures by code, the most first, as links, whatever the codes are', () => {
  const byCode = { http: 1, '<script>"': 12_000 };
  const { markup = '' } =
    failuresChart(byCode, 'http', (code) => `/runs/r?code=${encodeURIComponent(code)}`) ?? {};
  expect(markup).toMatch(/&lt;script&gt;&quot;<\/a>\s*12,000[\s\S]*aria-current="true"[^>]*>http</);
  expect(markup).not.toContain('<script>');
  expect(failuresChart({}, undefined, String)).toBeUndefined();
});
