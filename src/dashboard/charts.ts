import { formatDuration } from '../shared/limits.js';
import { count } from '../shared/plural.js';
import type { RunSeries } from '../shared/published.js';
import { type Html, html } from './html.js';

/*
 * Charts as inline SVG: numbers in, markup out. Colours come from classes, which the style of the pages has.
 */

const WIDTH = 360;
const HEIGHT = 170;
const PLOT = { left: 44, right: 352, top: 22, bottom: 136 };
const MINUTE_MS = 60_000;

interface Frame {
  readonly title: string;
  /** All that it says, for who does not see it. */
  readonly alt: string;
  /** What the axes count. */
  readonly x: string;
  readonly y: string;
  /** The value at the top of the y axis. */
  readonly top: number;
  /** Where along the x axis, from 0 to 1, which texts are. */
  readonly marks: readonly { readonly at: number; readonly text: string }[];
}

function frame({ title, alt, x, y, top, marks }: Frame, drawn: Html): Html {
  const grid = [0, 0.5, 1].map((part) => {
    const at = yOf(part);
    return html`<line class="grid" x1="${PLOT.left}" x2="${PLOT.right}" y1="${at}" y2="${at}" />
      <text x="${PLOT.left - 5}" y="${at + 4}" text-anchor="end">${figure(top * part)}</text>`;
  });
  const labels = marks.map(
    ({ at, text }) =>
      html`<text
        x="${xOf(at)}"
        y="${PLOT.bottom + 15}"
        text-anchor="${at < 0.05 ? 'start' : at > 0.95 ? 'end' : 'middle'}"
      >
        ${text}
      </text>`,
  );
  return html`<figure class="chart">
    <figcaption>${title}</figcaption>
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${title}: ${alt}">
      <text x="${PLOT.left}" y="11">${y}</text>
      ${grid} ${drawn} ${labels}
      <text x="${PLOT.right}" y="${HEIGHT - 4}" text-anchor="end">${x}</text>
    </svg>
  </figure>`;
}

/** Images that were described, and rows that failed, a minute over a run. */
export function rateChart({ from, widthMs, described, failed }: RunSeries, untilMs: number): Html {
  // The newest bucket is not over; what has just begun would be a peak that is none.
  const minutesOf = (i: number) =>
    Math.min(widthMs, Math.max(widthMs / 2, untilMs - from - i * widthMs)) / MINUTE_MS;
  const aMinute = (values: readonly number[]) => values.map((value, i) => value / minutesOf(i));
  const [good, bad] = [aMinute(described), aMinute(failed)];
  const all = good.map((value, i) => value + (bad[i] ?? 0));
  const total = sum(described);
  const lasted = Math.max(1, untilMs - from);
  return frame(
    {
      title: 'Images a minute',
      alt: `${count(total)} described and ${count(sum(failed))} failed in ${formatDuration(lasted)}; ${figure((total / lasted) * MINUTE_MS)} a minute on average, ${figure(Math.max(0, ...all))} at most`,
      y: 'described (failed on top), a minute',
      ...timeAxis(widthMs * all.length),
      top: niceTop(all),
    },
    html`<path class="described" d="${bars(good, [], niceTop(all))}" />
      <path class="failed" d="${bars(bad, good, niceTop(all))}" />`,
  );
}

/** What a run has cost over its time, in the currency of its prices; nothing without prices. */
export function costChart({ widthMs, cost = [] }: RunSeries): Html | undefined {
  const last = cost.at(-1);
  if (last === undefined) return undefined;
  const top = niceTop(cost);
  const points = cost.map((value, i) => `${xOf((i + 1) / cost.length)},${yOf(value / top)}`);
  const axis = timeAxis(widthMs * cost.length);
  return frame(
    { title: 'Cost', alt: `${figure(last)} so far`, y: 'in the currency of the prices', ...axis, top },
    html`<polyline class="line" points="${xOf(0)},${yOf(0)} ${points.join(' ')}" />`,
  );
}

/**
 * How long images have taken.
 * @param counted how many took at most so many seconds, and more than the bound before; the last one may be Infinity
 */
export function latencyChart(
  counted: readonly { readonly seconds: number; readonly count: number }[],
  title: string,
): Html | undefined {
  const first = counted.findIndex(({ count }) => count > 0);
  if (first === -1) return undefined;
  const shown = counted.slice(first, counted.findLastIndex(({ count }) => count > 0) + 1);
  const values = shown.map((bucket) => bucket.count);
  const total = sum(values);
  let before = 0;
  const median = shown.find((bucket) => (before += bucket.count) >= total / 2)?.seconds ?? 0;
  const name = (i: number) => {
    const { seconds = 0 } = shown[i] ?? {};
    return seconds === Infinity ? `over ${shown[i - 1]?.seconds ?? 0}` : String(seconds);
  };
  const each = Math.ceil(shown.length / 8);
  const marks = values.map((_, i) => ({ at: (i + 0.5) / values.length, text: name(i) }));
  const top = niceTop(values);
  return frame(
    {
      title,
      alt: `${count(total)} images; half of them took ${median === Infinity ? 'long' : `at most ${median} seconds`}`,
      y: 'images',
      x: 'seconds at most',
      top,
      marks: marks.filter((_, i) => i % each === 0),
    },
    html`<path class="plain" d="${bars(values, [], top)}" />`,
  );
}

/**
 * Failed rows by their codes, each a link that shows its images.
 * @param current the one that is shown
 */
export function failuresChart(
  byCode: Readonly<Record<string, number>>,
  current: string | undefined,
  hrefOf: (code: string) => string,
): Html | undefined {
  const codes = Object.entries(byCode).sort(([, a], [, b]) => b - a);
  const [[, most] = ['', 0]] = codes;
  if (most === 0) return undefined;
  return html`<figure class="chart">
    <figcaption>Failures by code, rows</figcaption>
    <ul class="codes">
      ${codes.map(
        ([code, rows]) =>
          html`<li>
            <a href="${hrefOf(code)}" ${code === current && html`aria-current="true"`}>${code}</a>
            ${count(rows)}
            <svg class="bar" aria-hidden="true">
              <rect class="failed" width="${round((100 * rows) / most)}%" height="100%" />
            </svg>
          </li>`,
      )}
    </ul>
  </figure>`;
}

function timeAxis(lastsMs: number): Pick<Frame, 'x' | 'marks'> {
  const marks = [0, 0.5, 1].map((at) => ({ at, text: at === 0 ? '0' : formatDuration(lastsMs * at) }));
  return { x: 'since the start', marks };
}

/** A path of bars, each on top of the value below it. */
function bars(values: readonly number[], below: readonly number[], top: number): string {
  const step = 1 / Math.max(1, values.length);
  const width = round(Math.max(1, (PLOT.right - PLOT.left) * step * 0.82));
  return values
    .map((value, i) => {
      const base = below[i] ?? 0;
      if (value <= 0) return '';
      return `M${xOf((i + 0.09) * step)} ${yOf(base / top)}h${width}V${yOf((base + value) / top)}h-${width}z`;
    })
    .join('');
}

function niceTop(values: readonly number[]): number {
  const most = Math.max(...values, 0);
  if (most === 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return power * ([1, 2, 2.5, 3, 4, 5, 6, 8].find((step) => step * power >= most) ?? 10);
}

/** Numbers of any size, in few characters. */
function figure(value: number): string {
  return value.toLocaleString('en-US', {
    maximumSignificantDigits: 3,
    notation: value >= 1e5 ? 'compact' : 'standard',
  });
}

function xOf(part: number): number {
  return round(PLOT.left + (PLOT.right - PLOT.left) * part);
}

function yOf(part: number): number {
  return round(PLOT.bottom - (PLOT.bottom - PLOT.top) * part);
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function sum(values: readonly number[]): number {
  return values.reduce((all, value) => all + value, 0);
}
