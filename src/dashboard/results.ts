import type { ReadStream } from 'node:fs';
import pLimit from 'p-limit';
import { z } from 'zod';
import { type ReadFailures, type ReadOutput, openToRead, readFailuresOf } from '../run/read-output.js';
import { FatalError, UsageError } from '../shared/errors.js';
import type { Cells } from '../shared/json-cells.js';
import { count } from '../shared/plural.js';
import type { PreparedImage } from '../shared/prepare-image.js';
import type { RunStatus } from '../shared/published.js';
import { unlessAborted } from '../shared/waiting.js';
import { statIfThere } from '../writer/durable-file.js';
import { RowIndex } from '../writer/row-index.js';
import type { DashboardOptions } from './access.js';
import { type Page, html, layout } from './html.js';
import { smallPicture } from './images.js';
import { fileNameOf } from './texts.js';
import { PER_PAGE, type Shown, type ShownRow, rowShower, shownFailures, viewer } from './viewer.js';

/** What a search has not found by then it finds before the page is asked for again. */
const ANSWER_AFTER_MS = 1500;
/** Of how many outputs it is kept where their rows are. */
const MOST_FILES = 4;
/** The newest failures, which are all kept in memory. */
const MOST_FAILURES = 20_000;
const MOST_ASKED = 200;

// What is there twice in an address counts as not asked for.
const askedSchema = z.object({
  q: z
    .string()
    .catch('')
    .transform((text) => text.trim().slice(0, MOST_ASKED)),
  code: z.string().catch(''),
  sort: z.string().catch(''),
  page: z.coerce.number().int().positive().catch(1),
});
type Asked = z.infer<typeof askedSchema>;

type About = Pick<RunStatus, 'run' | 'output'>;

/** What is known of a file that was read before, as long as it only grows. */
interface KnownFile {
  readonly identity: string;
  readonly index: RowIndex;
  /** One reads at a time, and the next goes on where it ended. */
  readonly turn: ReturnType<typeof pLimit>;
  failures?: { readonly identity: string; readonly read: ReadFailures };
}

/** The results of runs, read from their outputs and failures files. */
export class Results {
  readonly #known = new Map<string, KnownFile>();
  readonly #ended = new AbortController();

  constructor(private readonly options: Pick<DashboardOptions, 'mayRead' | 'imageRoots'>) {}

  close(): void {
    this.#ended.abort();
  }

  /** A page of a run's results. @param query as it is in the address */
  async page(about: About, query: unknown): Promise<Page> {
    const asked = askedSchema.parse(query);
    const title = fileNameOf(about.output);
    try {
      const read = await this.#open(about);
      const known = await this.#fileOf(read);
      const deadline = AbortSignal.timeout(ANSWER_AFTER_MS);
      let hasBegun = false;
      const work = known.turn(() => {
        // Nobody waits for it any more.
        deadline.throwIfAborted();
        hasBegun = true;
        // Who has asked goes, and the file stays open until it is looked through.
        return this.#look(read, known, about, asked).finally(() => read.handle.close());
      });
      const found = await unlessAborted(work, deadline).catch(async (error: unknown) => {
        if (!deadline.aborted) throw error;
        if (!hasBegun) await read.handle.close();
        return undefined;
      });
      const main = html`<div class="title">
          <h1>Results: ${title}</h1>
        </div>
        <p class="where">
          <a href="/runs/${encodeURIComponent(about.run)}">The run</a>, ${count(known.index.rows)} described
          so far.
          <a href="/runs/${encodeURIComponent(about.run)}/results/file" download>Download the output</a>
        </p>
        ${viewer(read, found?.failures ?? NO_FAILURES, found ?? {}, {
          isWhole: false,
          searched: found === undefined ? known.index.searched(asked.q) : undefined,
        })}`;
      return layout(`Results: ${title}`, main, 200, 'results');
    } catch (error) {
      if (!(error instanceof UsageError || error instanceof FatalError)) throw error;
      const main = html`<h1>Results: ${title}</h1>
        <p class="note">${error.message}</p>
        <p><a href="/runs/${encodeURIComponent(about.run)}">The run</a></p>`;
      return layout(`Results: ${title}`, main, 404, 'results');
    }
  }

  /** A small picture of a described row's image; undefined where there is none to be shown. */
  async picture(about: About, row: number): Promise<PreparedImage | undefined> {
    const read = await this.#open(about);
    try {
      const { index } = await this.#fileOf(read);
      const cells = row < index.rows ? await cellsAt(read, index, row) : undefined;
      if (cells === undefined) return undefined;
      const { url = '' } = rowShower(read, read.table.columns, [], [])(cells, {}, () => undefined);
      if (!/^(file|data):/.test(url)) return undefined;
      return await smallPicture(url, this.options.imageRoots ?? []);
    } finally {
      await read.handle.close();
    }
  }

  /** The file that has a run's rows now, to be sent. */
  async file(about: About): Promise<{ name: string; size: number; stream: ReadStream }> {
    const { path, handle } = await this.#open(about);
    const { size } = await handle.stat();
    // What is written meanwhile is left out. The stream closes the file.
    const stream = handle.createReadStream({ start: 0, end: Math.max(0, size - 1) });
    return { name: fileNameOf(path), size, stream };
  }

  /** @throws {UsageError} when its files are not here, or may not be shown */
  async #open({ run, output }: About): Promise<ReadOutput> {
    const { mayRead } = this.options;
    if (mayRead === undefined)
      throw new UsageError(
        'The files of runs are not shown here: start `bulk-describe dashboard --root <folder>` on the machine that has them, or `serve --dashboard`',
      );
    const read = await openToRead(await mayRead(output));
    if (read.runFile?.run === run) return read;
    await read.handle.close();
    throw new UsageError(
      `${output} holds no results of this run here: it is on another machine, or belongs to another run now`,
    );
  }

  /** What is known of a file: nothing where another has its place. */
  async #fileOf({ path, handle, table }: ReadOutput): Promise<KnownFile> {
    const { dev, ino, birthtimeMs, size } = await handle.stat();
    const identity = JSON.stringify([dev, ino, birthtimeMs, table.columns]);
    const known = this.#known.get(path);
    const isSame = known?.identity === identity && known.index.bytes <= size;
    const file = isSame ? known : { identity, index: new RowIndex(table), turn: pLimit(1) };
    this.#known.delete(path);
    this.#known.set(path, file);
    const [oldest = ''] = this.#known.keys();
    if (this.#known.size > MOST_FILES) this.#known.delete(oldest);
    return file;
  }

  /** What is shown of a page that is asked for. */
  async #look(
    read: ReadOutput,
    known: KnownFile,
    { run }: About,
    asked: Asked,
  ): Promise<Shown & { failures: ReadFailures }> {
    const { signal } = this.#ended;
    const failures = await this.#failuresOf(read, known);
    const base = `/runs/${encodeURIComponent(run)}`;
    if (asked.code !== '') {
      const text = asked.q.toLowerCase();
      const shown = shownFailures(
        read,
        failures,
        (_url, link, image) => link ?? `${base}/images/${encodeURIComponent(image)}`,
      );
      const found = shown.filter(
        ({ code, cells }) =>
          (asked.code === 'all' || asked.code === code) &&
          cells.some((cell) => cell.toLowerCase().includes(text)),
      );
      const rows = pageOf(found.length, asked).flatMap((at) => found[at] ?? []);
      return { failures, failed: { rows, total: found.length } };
    }
    const { index } = known;
    await index.refresh(read.handle, signal);
    const found = asked.q === '' ? undefined : await index.search(read.handle, asked.q, signal);
    const total = found?.length ?? index.rows;
    const numbers = pageOf(total, asked).map((at) => found?.[at] ?? at);
    return { failures, described: { rows: await this.#rowsAt(read, index, base, numbers), total } };
  }

  async #rowsAt(
    read: ReadOutput,
    index: RowIndex,
    base: string,
    numbers: readonly number[],
  ): Promise<ShownRow[]> {
    if (numbers.length === 0) return [];
    const { columns } = read.table;
    const found: (Cells | undefined)[] = [];
    for (const number of numbers) found.push(await cellsAt(read, index, number));
    const sample = found.filter((row) => row !== undefined);
    const show = rowShower(read, columns, read.answerColumns, sample);
    return numbers.map((number, at) => {
      const row = found[at];
      const about = { n: number + 1 };
      if (row === undefined)
        return { ...about, name: 'This row cannot be read', cells: columns.map(() => '') };
      return show(row, about, (_url, link) => link ?? `${base}/results/image?row=${number}`).shown;
    });
  }

  async #failuresOf(read: ReadOutput, known: KnownFile): Promise<ReadFailures> {
    const { failures, failuresPartial } = read.paths;
    const stats = await Promise.all([failures, failuresPartial].map(statIfThere));
    const identity = JSON.stringify(stats.map((file) => [file?.ino, file?.size, file?.mtimeMs]));
    if (known.failures?.identity === identity) return known.failures.read;
    const found = await readFailuresOf(read, MOST_FAILURES, this.#ended.signal);
    known.failures = { identity, read: found };
    return found;
  }
}

async function cellsAt({ table, handle }: ReadOutput, index: RowIndex, row: number) {
  const [cells] = await table.readAt(handle, index.offsetOf(row), table.columns);
  return cells;
}

const NO_FAILURES: ReadFailures = { columns: [], failures: [], byCode: {} };

/** The numbers of the rows of a page, of so many, in its order. */
function pageOf(total: number, { page, sort }: Asked): number[] {
  const last = Math.max(1, Math.ceil(total / PER_PAGE));
  const first = (Math.min(page, last) - 1) * PER_PAGE;
  const length = Math.min(PER_PAGE, total - first);
  return Array.from({ length }, (_, at) => (sort === 'written' ? first + at : total - 1 - first - at));
}
