import { existsSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname, extname, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type ReadFailures,
  type ReadOutput,
  openToRead,
  planOf,
  readFailuresOf,
} from '../run/read-output.js';
import { costOf } from '../run/budget.js';
import type { Prices } from '../run/run-options.js';
import { makeThumbnails } from '../run/thumbnails.js';
import { UsageError } from '../shared/errors.js';
import { isLocked } from '../shared/file-lock.js';
import { count } from '../shared/plural.js';
import { NOTHING_SPENT } from '../shared/run-spending.js';
import { replaceFile } from '../writer/durable-file.js';
import { type RunPaths, realName } from '../writer/output-paths.js';
import { endsRow, outputAt } from '../writer/output-table.js';
import type { TableRow } from '../writer/table.js';
import { costChart, failuresChart, rateChart } from './charts.js';
import { type Html, fact, html, layout } from './html.js';
import { fileNameOf } from './texts.js';
import { type ShownRow, rowShower, shownFailures, viewer } from './viewer.js';

export interface ReportOptions {
  /** The output of a run, which may be going on: the rows that are there now count. */
  readonly output: string;
  /** The report; by default beside the output. */
  readonly dest?: string | undefined;
  /** So many rows are in it, the newest. */
  readonly limit?: number | undefined;
  /** Whether small pictures are in it too. */
  readonly embed?: boolean | undefined;
  readonly allowPrivate?: boolean | undefined;
  /** Whether a file that is no report may be replaced. */
  readonly overwrite?: boolean | undefined;
  readonly prices?: Prices | undefined;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
}

/** A longer text than that of the most rows cannot be made at once, and no browser would open it. */
const ROWS = { plain: { usual: 20_000, most: 100_000 }, embedded: { usual: 2000, most: 20_000 } } as const;
const MOST_BARS = 60;
const PROGRESS_EVERY = 50;
const STEP_MS = 5000;
/** What `layout` has near the beginning of each page. */
const MARK = 'name="generator" content="bulk-describe"';
const MARK_WITHIN = 2000;

interface Reported {
  readonly path: string;
  readonly bytes: number;
  /** Rows that are described and failed, and how many of both are shown. */
  readonly described: number;
  readonly failed: number;
  readonly shown: number;
  /** Pictures that could not be had; undefined without any. */
  readonly missing: number | undefined;
}

/**
 * Writes all results of a run as one HTML file that opens offline. Only reads the output, and waits for nobody.
 * @throws {UsageError} when there are no results of ours, a file is damaged, or the report would take another file's place
 * @throws {FatalError} when it cannot be written
 */
export async function writeReport(options: ReportOptions): Promise<Reported> {
  const { embed = false, signal } = options;
  const { usual, most } = embed ? ROWS.embedded : ROWS.plain;
  const { limit = usual } = options;
  if (limit > most)
    throw new UsageError(
      `--limit ${limit}: a report holds ${count(most)} rows at most${embed ? ' with --embed' : ''}; \`dashboard\` shows all`,
    );
  const read = await openToRead(options.output);
  try {
    const dest = await findDest(options, read.paths);
    // Without the run file nothing is read.
    if (!read.isEmpty) planOf(read);
    const isGoingOn = await isLocked(read.paths.lock);
    const asOf = new Date();
    const { rows, times } = await readRows(read, limit, signal);
    const failures = await readFailuresOf(read, limit, signal);
    if (rows.length + failures.failures.length === 0)
      throw new UsageError(`${outputAt(read.path)} has no rows yet, and none that failed`);
    const first = times.length - rows.length + 1;
    const { missing, ...shown } = await showRows(read, { rows, first, failures }, dest, options);
    const counts = {
      described: times.length,
      failed: Object.values(failures.byCode).reduce((sum, failed) => sum + failed, 0),
      shown: shown.described.length + shown.failed.length,
    };
    const written = { asOf, isGoingOn, prices: options.prices };
    const text = render(read, { ...shown, ...written, times, failures, counts });
    await replaceFile(dest, (temp) => temp.writeFile(text));
    return { path: dest, bytes: Buffer.byteLength(text), ...counts, missing };
  } finally {
    await read.handle.close();
  }
}

/** What is shown of the rows, with their pictures. @returns how many of those could not be had, too */
async function showRows(
  read: ReadOutput,
  { rows, first, failures }: { rows: readonly TableRow[]; first: number; failures: ReadFailures },
  dest: string,
  { embed = false, allowPrivate, signal, onProgress }: ReportOptions,
) {
  const { table, answerColumns, runFile } = read;
  const { columns } = table;
  const show = (pictureOf: (url: string, link: string | undefined) => string | undefined) => {
    const showRow = rows.length > 0 ? rowShower(read, columns, answerColumns, rows) : undefined;
    return {
      described: rows.flatMap((row, at) => showRow?.(row, { n: first + at }, pictureOf).shown ?? []),
      failed: shownFailures(read, failures, pictureOf),
    };
  };
  const urls = new Set<string>();
  const linked = show((url, link) => {
    urls.add(url);
    return link ?? besideOf(url, dest);
  });
  if (!embed) return { ...linked, missing: undefined };
  const roots = runFile?.imageRoot === undefined ? [] : [runFile.imageRoot];
  const made = await makeThumbnails(urls, { roots, allowPrivate }, signal, (done) => {
    if (done % PROGRESS_EVERY === 0) onProgress(`pictures: ${count(done)} of ${count(urls.size)}`);
  });
  return { ...show((url) => made.get(url)), missing: urls.size - made.size };
}

/** Where the report goes. @throws {UsageError} when that is no place for it */
async function findDest({ dest: given, overwrite }: ReportOptions, paths: RunPaths): Promise<string> {
  const beside = `${paths.output.replace(/\.(csv|tsv|jsonl|ndjson|parquet)$/i, '')}.report.html`;
  const dest = realName(given ?? beside);
  if (Object.values<string>({ ...paths }).includes(dest))
    throw new UsageError(`-o ${given ?? dest} belongs to the output itself: name another file`);
  if (!/\.html?$/i.test(extname(dest)))
    throw new UsageError(`-o ${given ?? dest}: a report is a .html: end its name so`);
  if (overwrite !== true && existsSync(dest) && !(await isReport(dest)))
    throw new UsageError(
      `${dest} is there already, and is no report: name another with -o, or let --overwrite replace it`,
    );
  return dest;
}

async function isReport(path: string): Promise<boolean> {
  const handle = await open(path, 'r');
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(MARK_WITHIN), 0, MARK_WITHIN, 0);
    return buffer.subarray(0, bytesRead).includes(MARK);
  } finally {
    await handle.close();
  }
}

/** Reads all rows, of which the newest are kept, and when each was described. */
async function readRows({ path, table, handle, isEmpty }: ReadOutput, limit: number, signal: AbortSignal) {
  const rows: TableRow[] = [];
  const times: number[] = [];
  if (isEmpty) return { rows, times };
  const { columns } = table;
  const at = columns.indexOf('described_at');
  const visit = (found: readonly TableRow[]) => {
    for (const { cells } of found) times.push(Date.parse(cells[at] ?? ''));
    rows.push(...found);
    if (rows.length > 2 * limit) rows.splice(0, rows.length - limit);
  };
  await table.forEach(handle, { columns, what: outputAt(path), endsRow, signal, visit });
  return { rows: rows.slice(-limit), times };
}

/** An image on this machine, as the report names it: both can be moved together. */
function besideOf(url: string, dest: string): string | undefined {
  if (!url.startsWith('file:')) return undefined;
  const path = relative(dirname(dest), fileURLToPath(url));
  return `./${path.split(sep).map(encodeURIComponent).join('/')}`;
}

interface Rendered {
  readonly described: readonly ShownRow[];
  readonly failed: readonly ShownRow[];
  readonly times: readonly number[];
  readonly failures: ReadFailures;
  readonly counts: Pick<Reported, 'described' | 'failed' | 'shown'>;
  readonly asOf: Date;
  readonly isGoingOn: boolean;
  readonly prices: Prices | undefined;
}

function render(read: ReadOutput, data: Rendered): string {
  const { failures, described, failed, counts, isGoingOn, asOf } = data;
  const title = fileNameOf(read.paths.output);
  const all = counts.described + counts.failed;
  const series = read.runFile?.series;
  const charts = [
    ratesOf(data.times),
    failuresChart(failures.byCode, undefined, (code) => `#code=${code}`),
    series && costChart(series),
  ];
  const main = html`<section class="card">
      <h1>${title}</h1>
      <p class="where">
        As of ${asOf.toISOString().replace('T', ' ').slice(0, 16)} UTC${isGoingOn && ', still being written'};
        account ${read.runFile?.account ?? ''}
      </p>
      ${receipt(read, data)}
      ${counts.shown < all && html`<p class="note">Of ${count(all)} rows the newest ${count(counts.shown)} are here.</p>`}
    </section>
    <div class="charts">${charts}</div>
    ${viewer(
      read,
      failures,
      {
        described: { rows: described, total: described.length },
        failed: { rows: failed, total: failed.length },
      },
      { isWhole: true },
    )}`;
  return layout(title, main, 200, 'file').text;
}

function receipt({ runFile }: ReadOutput, { counts, prices }: Rendered): Html {
  const spent = runFile?.spent ?? NOTHING_SPENT;
  const { inputTokens, outputTokens } = spent;
  const cost = costOf(spent, prices) ?? runFile?.series?.cost?.at(-1);
  return html`<dl class="facts">
    ${fact('Described', count(counts.described))} ${fact('Failed', count(counts.failed))}
    ${fact('Submits', count(spent.submits))}
    ${inputTokens + outputTokens > 0 && fact('Tokens', `${count(inputTokens)} in, ${count(outputTokens)} out`)}
    ${cost !== undefined && fact('Cost', cost.toFixed(2))}
  </dl>`;
}

/** Images a minute, by when they were described. */
function ratesOf(all: readonly number[]): Html | undefined {
  const times = all.filter((time) => Number.isFinite(time));
  if (times.length === 0) return undefined;
  const [from, until] = times.reduce(([a, b], time) => [Math.min(a, time), Math.max(b, time)], [Infinity, 0]);
  const widthMs = Math.max(1, Math.ceil((until + 1 - from) / MOST_BARS / STEP_MS)) * STEP_MS;
  const described = Array.from({ length: Math.floor((until - from) / widthMs) + 1 }, () => 0);
  for (const time of times) {
    const bar = Math.floor((time - from) / widthMs);
    described[bar] = (described[bar] ?? 0) + 1;
  }
  return rateChart({ from, widthMs, described, failed: described.map(() => 0) }, until);
}
