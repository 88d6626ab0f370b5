import type { Draw } from './draw.js';

/** A manifest row, and how it has to end. */
export interface PlannedRow {
  /** Tells rows apart when they are counted. */
  readonly number: string;
  readonly key: string;
  readonly title: string;
  readonly url: string;
  /** The absolute URL as the API is to see it; undefined for a row that is never submitted. */
  readonly image: string | undefined;
  /** Why the manifest alone makes it fail. */
  readonly problem: 'invalid-url' | 'duplicate-key' | undefined;
}

const TITLES = ['plain', 'with "quotes", and a comma', 'in two\nlines', ' Ünïcode \u{1f600} ', ''] as const;
const NO_URLS = ['', 'not a url', 'ftp://images.test/1.jpg'] as const;

/** 10 to 60 rows: some share an image, some have no URL, and with keys some repeat one. */
export function planRows(draw: Draw, keyed: boolean): PlannedRow[] {
  const rows: PlannedRow[] = [];
  const count = draw.between(10, 60);
  for (let number = 1; number <= count; number++) rows.push(planRow(draw, keyed, number, rows));
  return rows;
}

function planRow(draw: Draw, keyed: boolean, number: number, earlier: readonly PlannedRow[]): PlannedRow {
  const about = { number: String(number), title: draw.oneOf(...TITLES) };
  const key = `key-${number}`;
  if (draw.happens(0.06)) {
    return { ...about, key, url: draw.oneOf(...NO_URLS), image: undefined, problem: 'invalid-url' };
  }
  const image = planImage(draw, number, earlier);
  // The host's case makes no other image.
  const url = draw.happens(0.1) ? image.replace('images.test', 'IMAGES.test') : image;
  const taken = keyed && draw.happens(0.04) ? keyInUse(draw, earlier) : undefined;
  if (taken !== undefined) return { ...about, key: taken, url, image: undefined, problem: 'duplicate-key' };
  return { ...about, key, url, image, problem: undefined };
}

function planImage(draw: Draw, number: number, earlier: readonly PlannedRow[]): string {
  const shared = draw.happens(0.15) ? earlier[draw.between(0, earlier.length - 1)]?.image : undefined;
  return shared ?? `http://images.test/${number}.jpg`;
}

function keyInUse(draw: Draw, earlier: readonly PlannedRow[]): string | undefined {
  const good = earlier.filter(({ problem }) => problem === undefined);
  return good[draw.between(0, good.length - 1)]?.key;
}
