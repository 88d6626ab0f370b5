import { findTitleColumn } from '../producer/columns.js';
import { toRow } from '../producer/row-reader.js';
import { type ReadFailures, type ReadOutput, planOf } from '../run/read-output.js';
import { FAILURE_COLUMNS, MESSAGE_COLUMNS, answerCell } from '../shared/jobs.js';
import { type Cells, valuesOf } from '../shared/json-cells.js';
import { count } from '../shared/plural.js';
import { Html, html } from './html.js';
import { httpUrl, shortUrl, visible } from './texts.js';

/** More of a cell is not shown. */
const LONGEST = 4000;
export const PER_PAGE = 50;
const SAMPLE = 100;

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

/** Rows that are shown, of how many. */
interface ShownRows {
  readonly rows: readonly ShownRow[];
  readonly total: number;
}

export interface Shown {
  readonly described?: ShownRows | undefined;
  readonly failed?: ShownRows | undefined;
}

const NONE: ShownRows = { rows: [], total: 0 };

/** What is shown of an image: of one on the web the browser can load its link. */
type PictureOf = (url: string, link: string | undefined) => string | undefined;

/**
 * How rows with these columns become what is shown.
 * @param ours columns that are not the manifest's
 * @param sample rows from which it is found which column has titles
 */
export function rowShower(
  read: ReadOutput,
  columns: readonly string[],
  ours: readonly string[],
  sample: readonly Cells[],
) {
  const plan = planOf(read, columns);
  const recordOf = (row: Cells) => ({ number: 0, line: 0, ...row });
  const taken = columns.flatMap((name, at) =>
    ours.includes(name) || at === plan.urlColumn.index ? [at] : [],
  );
  const titleColumn = findTitleColumn(columns, sample.slice(0, SAMPLE).map(recordOf), undefined, taken);
  return (row: Cells, about: Pick<ShownRow, 'n' | 'code'>, pictureOf: PictureOf) => {
    const cells = valuesOf(row).map((value) => {
      const text = answerCell(value);
      return visible(text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);
    });
    const own = { ...plan, titleColumn, keyColumn: undefined, prompt: undefined };
    const { url, title } = toRow(recordOf(row), own);
    const link = url === undefined ? undefined : httpUrl(url);
    const thumb = url === undefined ? undefined : pictureOf(url, link);
    const isData = url?.startsWith('data:') === true;
    const name = isData ? 'an image in the manifest' : shortUrl(url ?? row.cells[plan.urlColumn.index] ?? '');
    const shown = { ...about, name, title: title && visible(title), link, thumb, cells };
    return { shown, url };
  };
}

const FAILED_COLUMNS = [...FAILURE_COLUMNS, 'answer'];

/** The rows that failed, as they are shown. @param pictureOf gets the image's hash too */
export function shownFailures(
  read: ReadOutput,
  { columns, failures }: ReadFailures,
  pictureOf: (url: string, link: string | undefined, image: string) => string | undefined,
): ShownRow[] {
  if (failures.length === 0) return [];
  const rows = failures.map(({ row, outcome }) => {
    const { code, reason, attempts, messageId = '', answer = '' } = outcome;
    const why = [code, reason, String(attempts), messageId, answer];
    return [...columns.map((_, at) => row.cells[at] ?? ''), ...why];
  });
  const sample = rows.map((cells) => ({ cells }));
  const show = rowShower(read, [...columns, ...FAILED_COLUMNS], FAILED_COLUMNS, sample);
  return failures.map(({ row, outcome: { code } }, at) => {
    const picture = (url: string, link: string | undefined) => pictureOf(url, link, row.image ?? '');
    return show({ cells: rows[at] ?? [] }, { code }, picture).shown;
  });
}

/**
 * The viewer, with what it shows.
 * @param about isWhole: all rows are here, of which the script takes those that are asked for. searched: the share of the
 *   rows that was searched, where that is not done
 */
export function viewer(
  { table, answerColumns }: ReadOutput,
  { columns: failedColumns, byCode }: Pick<ReadFailures, 'columns' | 'byCode'>,
  { described = NONE, failed = NONE }: Shown,
  about: { readonly isWhole: boolean; readonly searched?: number | undefined },
): Html {
  const { columns } = table;
  const at = failedColumns.length;
  // Of a list's columns `shown` are shown at once, and `id` is the message's id.
  const data = {
    ...about,
    perPage: PER_PAGE,
    described: {
      ...described,
      columns,
      shown: columns.flatMap((name, i) => (answerColumns.includes(name) ? [i] : [])),
      id: columns.indexOf(MESSAGE_COLUMNS[0]),
    },
    failed: {
      ...failed,
      columns: [...failedColumns, ...FAILED_COLUMNS],
      shown: [at + 1, at + 4],
      id: at + 3,
    },
  };
  const failures = Object.entries(byCode);
  const all = failures.reduce((sum, [, rows]) => sum + rows, 0);
  const codes = failures.length > 1 ? [['all', all] as const, ...failures] : failures;
  // Nothing in it can end the script element or begin another.
  const json = JSON.stringify(data).replaceAll('<', '\\u003c');
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
