import { existsSync } from 'node:fs';
import { dirname, extname, join, resolve } from 'node:path';
import { type RowPlan, imageOf } from '../producer/row-reader.js';
import { UsageError } from '../shared/errors.js';
import { MESSAGE_COLUMNS, answerCell } from '../shared/jobs.js';
import { type Cells, jsonText, valuesOf } from '../shared/json-cells.js';
import { replaceFile } from '../writer/durable-file.js';
import { type RunPaths, workingPath } from '../writer/output-paths.js';
import { endsRow, newOutputTable, outputAt } from '../writer/output-table.js';
import { packOutput } from '../writer/parquet-output.js';
import type { Table, TableRow } from '../writer/table.js';
import { type CaptionOptions, ImageNames, captionColumn, makeFolder, sidecarPath } from './captions.js';
import { type ReadOutput, openToRead, planOf } from './read-output.js';

export type ExportFormat = 'sidecar' | 'hf' | 'kohya' | 'jsonl' | 'parquet' | 'csv';

export interface ExportOptions extends CaptionOptions {
  /** The output of a run, which may be going on: the rows that are there now count. */
  readonly output: string;
  readonly to: ExportFormat;
  /** A folder for `sidecar` and `hf`, else a file. */
  readonly dest: string;
  readonly signal?: AbortSignal | undefined;
}

/** What has become of an output's rows; those that share an image are one. */
export interface Exported {
  readonly written: number;
  /** Files that were there, and have been left as they are. */
  readonly kept: number;
  /** Images without a text, which got no caption. */
  readonly empty: number;
}

/** So many files are written at once: each waits for the disk. */
const AT_ONCE = 32;
const AR = /\s*--ar\s+\d+(?:\.\d+)?:\d+(?:\.\d+)?\s*$/;

/**
 * Writes what an output holds as a dataset that trainers read, or in another format. Only reads the output, and waits for
 * nobody; each file is written atomically.
 * @throws {UsageError} before anything is written, when a name cannot be used, or what would be written is there already
 * @throws {FatalError} when a file cannot be written
 */
export async function exportOutput(options: ExportOptions): Promise<Exported> {
  refuseCaptionFlags(options);
  const read = await openToRead(options.output);
  try {
    if (read.isEmpty) throw new UsageError(`${outputAt(read.path)} has no rows yet`);
    const source = new OutputRows(read, options);
    if (options.to === 'sidecar') return await writeSidecars(source, options);
    const dest = options.to === 'hf' ? join(resolve(options.dest), 'metadata.jsonl') : resolve(options.dest);
    refuseDest(dest, read.paths, options);
    if (options.to === 'hf') return await writeHuggingFace(source, options, dest);
    if (options.to === 'kohya') return await writeKohya(source, options, dest);
    return await convert(source, dest);
  } finally {
    await read.handle.close();
  }
}

/** @throws {UsageError} when the rows are written as they are, which names or texts were to be made of */
function refuseCaptionFlags({ to, sidecarName, promptColumn, ar }: ExportOptions): void {
  if (to === 'sidecar' || to === 'hf' || to === 'kohya') return;
  const flags = {
    '--sidecar-name': sidecarName,
    '--prompt-column': promptColumn,
    '--no-ar': ar === false || undefined,
  };
  const [flag] = Object.entries(flags).find(([, value]) => value !== undefined) ?? [];
  if (flag !== undefined)
    throw new UsageError(
      `${flag} is for captions, and --to ${to} writes the rows as they are: leave one of the two away`,
    );
}

/** @throws {UsageError} when the file is there, is the output's own, or has a name of another format */
function refuseDest(dest: string, paths: RunPaths, { to, overwrite, dest: given }: ExportOptions): void {
  const files = new Set<string>(Object.values(paths));
  if (files.has(dest)) throw new UsageError(`-o ${given} belongs to the output itself: name another file`);
  const endings = {
    csv: ['.csv', '.tsv'],
    jsonl: ['.jsonl', '.ndjson'],
    parquet: ['.parquet'],
    kohya: ['.json'],
  };
  const wanted: readonly string[] = to === 'hf' || to === 'sidecar' ? [] : endings[to];
  if (wanted.length > 0 && !wanted.includes(extname(dest).toLowerCase()))
    throw new UsageError(`-o ${given}: --to ${to} writes a ${wanted.join(' or ')}: end its name so`);
  if (existsSync(dest) && overwrite !== true)
    throw new UsageError(`${dest} is there already: name another with -o, or let --overwrite replace it`);
  const working = workingPath(dest);
  if (working !== dest && existsSync(working))
    throw new UsageError(`${working} is there, the working file of a run: name another file with -o`);
}

/** The rows of an output, as they were when it was first read. */
class OutputRows {
  readonly columns: readonly string[];
  readonly answerColumns: readonly string[];
  #count = Infinity;

  readonly path: string;
  readonly table: Table;

  constructor(
    private readonly read: ReadOutput,
    private readonly options: ExportOptions,
  ) {
    this.path = read.path;
    this.table = read.table;
    this.columns = read.table.columns;
    this.answerColumns = read.answerColumns;
  }

  get hasRunFile(): boolean {
    return this.read.runFile !== undefined;
  }

  /** Calls `visit` with all rows, many at a time; a run may write more meanwhile. */
  async forEach(visit: (rows: readonly TableRow[], first: number) => void | Promise<void>): Promise<void> {
    let count = 0;
    const about = { what: outputAt(this.path), endsRow, signal: this.options.signal };
    await this.table.forEach(this.read.handle, this.columns, about, async (found) => {
      const rows = found.slice(0, this.#count - count);
      if (rows.length > 0) await visit(rows, count + 1);
      count += rows.length;
    });
    this.#count = count;
  }

  /** Where the images are. @throws {UsageError} see `planOf` */
  plan(): RowPlan {
    return planOf(this.read, this.columns);
  }

  /**
   * Calls `visit` with each image's row, its name and its text, after all names have been looked at.
   * @throws {UsageError} before the first call, when images cannot be named
   */
  async forEachImage(
    suffix: string | undefined,
    visit: (images: readonly NamedImage[]) => Promise<void>,
  ): Promise<void> {
    const plan = this.plan();
    const text = captionColumn(this.columns, this.answerColumns, this.options);
    const named = (rows: readonly TableRow[], first: number, names: ImageNames) =>
      rows.flatMap((row, at): NamedImage[] => {
        const ofPrompt = (plan.prompt?.columns ?? []).map((column) => row.cells[column] ?? '');
        const image = imageOf(plan, row.cells[plan.urlColumn] ?? '', ofPrompt);
        const name = names.take(row.cells, `row ${first + at} of ${this.path}`, image);
        return name === undefined ? [] : [{ row, name, text: this.#textOf(row, text) }];
      });
    const newNames = () =>
      new ImageNames(this.columns, plan, this.options, suffix, this.options.to !== 'sidecar');
    const checked = newNames();
    await this.forEach((rows, first) => {
      named(rows, first, checked);
    });
    const names = newNames();
    await this.forEach((rows, first) => visit(named(rows, first, names)));
  }

  #textOf({ cells, isJson }: Cells, column: number): string {
    const cell = { cells: [cells[column] ?? ''], isJson: [isJson?.[column] ?? false] };
    const text = answerCell(valuesOf(cell)[0] ?? null);
    return this.options.ar === false ? text.replace(AR, '') : text;
  }
}

interface NamedImage {
  readonly row: TableRow;
  readonly name: NonNullable<ReturnType<ImageNames['take']>>;
  readonly text: string;
}

async function writeSidecars(source: OutputRows, { dest, overwrite }: ExportOptions): Promise<Exported> {
  const done = { written: 0, kept: 0, empty: 0 };
  const folders = new Set<string>();
  const write = async ({ name, text }: NamedImage) => {
    const path = sidecarPath(dest, name);
    if (text.trim() === '') return 'empty';
    if (overwrite !== true && existsSync(path)) return 'kept';
    if (!folders.has(dirname(path))) await makeFolder(dirname(path));
    folders.add(dirname(path));
    // Trainers read its first line alone.
    const line = text.trim().replace(/\s*[\r\n]+\s*/g, ' ');
    await replaceFile(path, (temp) => temp.writeFile(`${line}\n`));
    return 'written';
  };
  await source.forEachImage('.txt', async (images) => {
    for (let start = 0; start < images.length; start += AT_ONCE) {
      const ends = await Promise.all(images.slice(start, start + AT_ONCE).map(write));
      for (const end of ends) done[end]++;
    }
  });
  return done;
}

/** A line an image for `load_dataset("imagefolder")`: `file_name`, `text`, and what else the row has. */
async function writeHuggingFace(source: OutputRows, options: ExportOptions, dest: string): Promise<Exported> {
  const { columns, answerColumns } = source;
  const picked = captionColumn(columns, answerColumns, options);
  const { urlColumn } = source.plan();
  const isLeftOut = (column: number) =>
    column === picked || (column === urlColumn && columns[column] === 'file_name');
  const keys = columns.map((name) =>
    JSON.stringify(name === 'text' || name === 'file_name' ? `_${name}` : name),
  );
  let written = 0;
  await makeFolder(dirname(dest));
  await replaceFile(dest, (temp) =>
    source.forEachImage(undefined, async (images) => {
      const lines = images.map(({ row: { cells, isJson }, name, text }) => {
        const others = cells.flatMap((cell, column) =>
          isLeftOut(column) ? [] : `${keys[column] ?? ''}:${jsonText(cell, isJson?.[column] ?? false)}`,
        );
        const ours = [
          `"file_name":${JSON.stringify(name.stem + name.ending)}`,
          `"text":${JSON.stringify(text)}`,
        ];
        return `{${[...ours, ...others].join(',')}}\n`;
      });
      await temp.writeFile(lines.join(''));
      written += images.length;
    }),
  );
  return { written, kept: 0, empty: 0 };
}

/**
 * The metadata of sd-scripts' fine-tuning: captions, or tags where the column holds lists, by the image's path; of an image
 * from the web by its name, which is looked for in `image_dir`.
 */
async function writeKohya(source: OutputRows, options: ExportOptions, dest: string): Promise<Exported> {
  const picked = captionColumn(source.columns, source.answerColumns, options);
  const root = source.plan().imageRoot?.path ?? '';
  let [written, empty] = [0, 0];
  await replaceFile(dest, async (temp) => {
    await temp.writeFile('{');
    await source.forEachImage(undefined, async (images) => {
      for (const { row, name, text } of images) {
        if (text.trim() === '') {
          empty++;
          continue;
        }
        const key = name.isLocal ? join(root, name.stem + name.ending) : name.stem;
        const isList = row.isJson?.[picked] === true && (row.cells[picked] ?? '').startsWith('[');
        const entry = { [isList ? 'tags' : 'caption']: text };
        await temp.writeFile(
          `${written++ === 0 ? '' : ','}\n${JSON.stringify(key)}: ${JSON.stringify(entry)}`,
        );
      }
    });
    await temp.writeFile('\n}\n');
  });
  return { written, kept: 0, empty };
}

/** The same rows in another format, which a run can go on with. */
async function convert(source: OutputRows, dest: string): Promise<Exported> {
  const { columns, answerColumns } = source;
  const about = {
    path: workingPath(dest),
    columns: columns.filter((name) => !MESSAGE_COLUMNS.some((ours) => ours === name)),
    answerColumns: [],
    delimiter: /\.tsv$/i.test(dest) ? '\t' : ',',
  };
  const table = newOutputTable(about);
  const isAnswer = columns.map((name) => answerColumns.includes(name));
  const convertRow = ({ cells, isJson = [] }: TableRow): Cells => {
    const converted = cells.map((cell, column) => {
      const isList = isAnswer[column] === true && isJson[column] === true && cell.startsWith('[');
      if (!isList) return { cell, isJson: isJson[column] ?? false };
      return table.cellOf(valuesOf({ cells: [cell], isJson: [true] })[0] ?? null);
    });
    return { cells: converted.map(({ cell }) => cell), isJson: converted.map(({ isJson }) => isJson) };
  };
  let written = 0;
  await replaceFile(about.path, async (temp) => {
    await temp.writeFile(table.header());
    await source.forEach(async (rows) => {
      await temp.writeFile(table.format(rows.map(convertRow)));
      written += rows.length;
    });
  });
  const { urlColumn = -1 } = source.hasRunFile ? source.plan() : {};
  await packOutput({ ...about, urlColumn }, dest);
  return { written, kept: 0, empty: 0 };
}
