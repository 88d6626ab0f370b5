import { resolveImageUrl } from '../producer/image-url.js';
import type { RowPlan } from '../producer/row-reader.js';
import type { ReadFailures } from '../run/read-output.js';
import { FAILURE_COLUMNS, MESSAGE_COLUMNS, answerCell } from '../shared/jobs.js';
import { type Cells, cellAt, valuesOf } from '../shared/json-cells.js';
import { Html, html } from './html.js';
import { count, httpUrl, shortUrl, visible } from './texts.js';

/** More of a cell is not shown. */
const LONGEST = 4000;
export const PER_PAGE = 50;
const TITLE = /^(title|name|caption|headline|label)$/i;

/** A row as the script shows it. */
export interface ShownRow {
  /** Which one it is in the file, from 1. */
  readonly n?: number;
  readonly name: string;
  readonly title?: string | undefined;
  /** Why it has failed. */
  readonly code?: string | undefined;
  /** Of the image, http(s) alone; and what is shown of it. */
  readonly link?: string | undefined;
  readonly thumb?: string | undefined;
  readonly cells: readonly string[];
}

export interface ShownList {
  readonly columns: readonly string[];
  /** Which of them are shown at once, and which one is the message's id. */
  readonly shown: readonly number[];
  readonly id: number;
  readonly rows: readonly ShownRow[];
  readonly total: number;
}

interface ViewerData {
  /** Whether all rows are here, of which the script takes those that are asked for. */
  readonly isWhole: boolean;
  readonly described: ShownList;
  readonly failed: ShownList;
  /** The share of the rows that was searched, where that is not done. */
  readonly searched?: number | undefined;
}

/** How rows with these columns become what is shown. @param local what is shown of an image that is not on the web */
export function rowShower(plan: RowPlan, columns: readonly string[], ours: readonly string[]) {
  const title = columns.findIndex((name) => TITLE.test(name) && !ours.includes(name));
  return (row: Cells, about: Pick<ShownRow, 'n' | 'code'>, local: (url: string) => string | undefined) => {
    const values = valuesOf(row);
    const cells = values.map((value) => {
      const text = answerCell(value);
      return visible(text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);
    });
    const raw = cellAt(row.cells[plan.urlColumn] ?? '', plan.urlPath);
    const resolved = resolveImageUrl(raw, plan.baseUrl, plan.imageRoot, plan.areNames);
    const url = 'url' in resolved ? resolved.url : undefined;
    const link = url === undefined ? undefined : httpUrl(url);
    const thumb = link ?? (url === undefined ? undefined : local(url));
    const name = url?.startsWith('data:') === true ? 'an image in the manifest' : shortUrl(url ?? raw);
    const shown: ShownRow = { ...about, name, title: cells[title] || undefined, link, thumb, cells };
    return { shown, url };
  };
}

/** The list of described rows. */
export function describedList(
  columns: readonly string[],
  answerColumns: readonly string[],
  rows: readonly ShownRow[],
  total: number,
): ShownList {
  const shown = columns.flatMap((name, at) => (answerColumns.includes(name) ? [at] : []));
  return { columns, shown, id: columns.indexOf(MESSAGE_COLUMNS[0]), rows, total };
}

export const FAILED_COLUMNS = [...FAILURE_COLUMNS, 'answer'];

/** The rows that failed, as they are shown. @param local see `rowShower`, with the image's hash */
export function shownFailures(
  { columns, failures }: ReadFailures,
  planOf: (columns: readonly string[]) => RowPlan,
  local: (url: string, image: string) => string | undefined,
): ShownRow[] {
  if (failures.length === 0) return [];
  const show = rowShower(planOf(columns), [...columns, ...FAILED_COLUMNS], FAILED_COLUMNS);
  return failures.map(({ row, outcome }) => {
    const { code, reason, attempts, messageId = '', answer = '' } = outcome;
    const own = columns.map((_, at) => row.cells[at] ?? '');
    const cells = [...own, code, reason, String(attempts), messageId, answer];
    return show({ cells }, { code }, (url) => local(url, row.image ?? '')).shown;
  });
}

export function failedList({ columns }: ReadFailures, rows: readonly ShownRow[], total: number): ShownList {
  const at = columns.length;
  return { columns: [...columns, ...FAILED_COLUMNS], shown: [at + 1, at + 4], id: at + 3, rows, total };
}

/** The viewer, with what it shows. */
export function viewer(data: ViewerData, byCode: Readonly<Record<string, number>>): Html {
  const failures = Object.entries(byCode);
  const all = failures.reduce((sum, [, rows]) => sum + rows, 0);
  const codes = failures.length > 1 ? [['all', all] as const, ...failures] : failures;
  // Nothing in it can end the script element or begin another.
  const json = JSON.stringify({ ...data, perPage: PER_PAGE }).replaceAll('<', '\\u003c');
  return html`<form id="find" role="search">
      <label>Search <input name="q" type="search" autocomplete="off" /></label>
      <label
        >Rows
        <select name="code">
          <option value="">described</option>
          ${codes.map(([code, rows]) => html`<option value="${code}">failed: ${code} (${count(rows)})</option>`)}
        </select></label
      >
      <label
        >Order
        <select name="sort">
          <option value="">newest first</option>
          <option value="written">as written</option>
        </select></label
      >
      <button>Find</button>
    </form>
    <p id="count" role="status"></p>
    <ul id="rows" class="images"></ul>
    <nav id="pages" aria-label="Pages"></nav>
    <p class="soft keys">Keys: <kbd>/</kbd> search, <kbd>n</kbd> and <kbd>p</kbd> next and previous page.</p>
    <noscript><p class="empty">The rows are shown by a script.</p></noscript>
    ${new Html(`<script type="application/json" id="data">${json}</script>`)}`;
}
