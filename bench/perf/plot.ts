export interface Series {
  readonly name: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

const WIDTH = 720;
const HEIGHT = 300;
const LEFT = 55;
const BOTTOM = 45;
const TOP = 30;
const RIGHT = 90;
const COLOURS = ['#1f77b4', '#d62728', '#2ca02c', '#9467bd', '#8c564b', '#e377c2'];
const MOST_POINTS = 200;

/** A small line plot as SVG, from zero. */
export function linePlot(plot: { title: string; x: string; y: string; series: readonly Series[] }): string {
  const all = plot.series.flatMap(({ points }) => points);
  const maxX = niceTop(Math.max(1, ...all.map(({ x }) => x)));
  const maxY = niceTop(Math.max(1, ...all.map(({ y }) => y)));
  const px = (x: number) => Math.round(LEFT + (x / maxX) * (WIDTH - LEFT - RIGHT));
  const py = (y: number) => Math.round(HEIGHT - BOTTOM - (y / maxY) * (HEIGHT - BOTTOM - TOP));
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  const grid = ticks.map(
    (share) =>
      `<path d="M${LEFT} ${py(share * maxY)}H${WIDTH - RIGHT}" stroke="#ddd"/>` +
      `<text x="${LEFT - 6}" y="${py(share * maxY) + 4}" text-anchor="end">${label(share * maxY)}</text>` +
      `<text x="${px(share * maxX)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${label(share * maxX)}</text>`,
  );
  const lines = plot.series.map(({ name, points }, number) => {
    const colour = COLOURS[number % COLOURS.length] ?? '#000';
    const path = thin(points).map(({ x, y }, i) => `${i === 0 ? 'M' : 'L'}${px(x)} ${py(y)}`);
    const last = points.at(-1) ?? { x: 0, y: 0 };
    return (
      `<path d="${path.join('')}" fill="none" stroke="${colour}" stroke-width="1.5"/>` +
      `<text x="${px(last.x) + 6}" y="${py(last.y) + 4}" fill="${colour}">${name}</text>`
    );
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    `<text x="${LEFT}" y="18" font-size="14">${plot.title}</text>`,
    ...grid,
    `<text x="${(WIDTH - RIGHT + LEFT) / 2}" y="${HEIGHT - 8}" text-anchor="middle">${plot.x}</text>`,
    `<text x="14" y="${HEIGHT / 2}" transform="rotate(-90 14 ${HEIGHT / 2})" text-anchor="middle">${plot.y}</text>`,
    ...lines,
    '</svg>\n',
  ].join('\n');
}

function label(value: number): string {
  if (value >= 1_000_000) return `${value / 1_000_000}M`;
  return value >= 1000 ? `${value / 1000}k` : String(value);
}

function niceTop(value: number): number {
  const unit = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 2.5, 4, 5, 8, 10].find((times) => times * unit >= value) ?? 10) * unit;
}

function thin<T>(points: readonly T[]): readonly T[] {
  const step = Math.max(1, Math.ceil(points.length / MOST_POINTS));
  return points.filter((_, index) => index % step === 0 || index === points.length - 1);
}
