import { existsSync } from 'node:fs';
import { dirname, extname, join, resolve } from 'node:path';
import pLimit from 'p-limit';
import { nameOf } from '../producer/row-reader.js';
import { UsageError } from '../shared/errors.js';
import { MESSAGE_COLUMNS, answerCell } from '../shared/jobs.js';
import { type Cells, jsonText, objectText, toCells, valuesOf } from '../shared/json-cells.js';
import { replaceFile } from '../writer/durable-file.js';
import { type RunPaths, workingPath } from '../writer/output-paths.js';
import { endsRow, newOutputTable, outputAt } from '../writer/output-table.js';
import { packOutput } from '../writer/parquet-output.js';
import type { TableRow } from '../writer/table.js';
import {
  type CaptionOptions,
  ImageNames,
  captionColumn,
  captionFlagIn,
  makeFolder,
  sidecarPath,
} from './captions.js';
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
interface Exported {
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
    if (options.to === 'sidecar') return await writeSidecars(source, options.dest, options.overwrite);
    const dest = options.to === 'hf' ? join(resolve(options.dest), 'metadata.jsonl') : resolve(options.dest);
    refuseDest(dest, read.paths, options);
    if (options.to === 'hf') return await writeHuggingFace(source, dest);
    if (options.to === 'kohya') return await writeKohya(source, dest);
    return await convert(source, dest);
  } finally {
    await read.handle.close();
  }
}

/** @throws {UsageError} when the rows are written as they are, which names or texts were to be made of */
function refuseCaptionFlags({ to, ...options }: ExportOptions): void {
  const flag = captionFlagIn(options);
  if (flag === undefined || to === 'sidecar' || to === 'hf' || to === 'kohya') return;
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
  #count = Infinity;

  constructor(
    readonly read: ReadOutput,
    private readonly options: ExportOptions,
  ) {}

  get columns(): readonly string[] {
    return this.read.table.columns;
  }

  /** The column that texts are made of. @throws {UsageError} see `captionColumn` */
  get captionColumn(): number {
    return captionColumn(this.columns, this.read.answerColumns, this.options);
  }

  /** Calls `visit` with all rows, many at a time; a run may write more meanwhile. */
  async forEach(visit: (rows: readonly TableRow[], first: number) => void | Promise<void>): Promise<void> {
    const { table, handle, path } = this.read;
    let count = 0;
    await table.forEach(handle, {
      ...{ columns: this.columns, what: outputAt(path), endsRow, signal: this.options.signal },
      visit: async (found) => {
        const rows = found.slice(0, this.#count - count);
        if (rows.length > 0) await visit(rows, count + 1);
        count += rows.length;
      },
    });
    this.#count = count;
  }

  /**
   * Calls `visit` with each image's row, its name and its text, after all names have been looked at.
   * @param captions see `ImageNames`
   * @throws {UsageError} before the first call, when images cannot be named
   */
  async forEachImage(
    visit: (images: readonly NamedImage[]) => Promise<void>,
    captions?: ConstructorParameters<typeof ImageNames>[3],
  ): Promise<void> {
    const plan = planOf(this.read);
    const column = this.captionColumn;
    const visitNamed = (names: ImageNames, then: typeof visit) =>
      this.forEach((rows, first) => {
        const named = rows.flatMap((row, at): NamedImage[] => {
          const { image } = nameOf(row.cells, plan);
          const name = names.take(row.cells, `row ${first + at} of ${this.read.path}`, image);
          return name === undefined ? [] : [{ row, name, text: this.#textOf(row, column) }];
        });
        return then(named);
      });
    const newNames = () => new ImageNames(this.columns, plan, this.options, captions);
    await visitNamed(newNames(), () => Promise.resolve());
    await visitNamed(newNames(), visit);
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

async function writeSidecars(source: OutputRows, folder: string, overwrite = false): Promise<Exported> {
  const done = { written: 0, kept: 0, empty: 0 };
  const atOnce = pLimit(AT_ONCE);
  const write = async ({ name, text }: NamedImage) => {
    const path = sidecarPath(folder, name);
    if (text.trim() === '') return 'empty';
    if (!overwrite && existsSync(path)) return 'kept';
    await makeFolder(dirname(path));
    // Trainers read its first line alone.
    const line = text.trim().replace(/\s*[\r\n]+\s*/g, ' ');
    await replaceFile(path, (temp) => temp.writeFile(`${line}\n`));
    return 'written';
  };
  await source.forEachImage(
    async (images) => {
      for (const end of await atOnce.map(images, write)) done[end]++;
    },
    { folder, own: Object.values<string>({ ...source.read.paths }) },
  );
  return done;
}

/** A line an image for `load_dataset("imagefolder")`: `file_name`, `text`, and what else the row has. */
async function writeHuggingFace(source: OutputRows, dest: string): Promise<Exported> {
  const { columns, read } = source;
  const left = [source.captionColumn];
  const { index } = planOf(read).urlColumn;
  if (columns[index] === 'file_name') left.push(index);
  const keyOf = (name: string, key = name): string =>
    ['text', 'file_name'].includes(key) || (key !== name && columns.includes(key))
      ? keyOf(name, `_${key}`)
      : key;
  const keys = columns.map((name) => keyOf(name));
  let written = 0;
  await makeFolder(dirname(dest));
  await replaceFile(dest, (temp) =>
    source.forEachImage(async (images) => {
      const lines = images.map(({ row: { cells, isJson }, name, text }) => {
        const others = keys.map(
          (key, at) => [key, jsonText(cells[at] ?? '', isJson?.[at] ?? false)] as const,
        );
        return objectText([
          ['file_name', JSON.stringify(name.stem + name.ending)],
          ['text', JSON.stringify(text)],
          ...others.filter((_, at) => !left.includes(at)),
        ]);
      });
      await temp.writeFile(lines.map((line) => `${line}\n`).join(''));
      written += images.length;
    }),
  );
  return { written, kept: 0, empty: 0 };
}

/**
 * The metadata of sd-scripts' fine-tuning: captions, or tags where the column holds lists, by the image's path; of an image
 * from the web by its name, which is looked for in `image_dir`.
 */
async function writeKohya(source: OutputRows, dest: string): Promise<Exported> {
  const column = source.captionColumn;
  const root = planOf(source.read).imageRoot?.path ?? '';
  let [written, empty] = [0, 0];
  await replaceFile(dest, async (temp) => {
    await temp.writeFile('{');
    await source.forEachImage(async (images) => {
      for (const { row, name, text } of images) {
        if (text.trim() === '') {
          empty++;
          continue;
        }
        const key = name.isLocal ? join(root, name.stem + name.ending) : name.stem;
        const isList = row.isJson?.[column] === true && (row.cells[column] ?? '').startsWith('[');
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
  const { columns, read } = source;
  const named = columns.filter((name) => !MESSAGE_COLUMNS.some((ours) => ours === name));
  const answersFrom = named.findIndex((name) => read.answerColumns.includes(name));
  const own = answersFrom === -1 ? named.length : answersFrom;
  const about = {
    path: workingPath(dest),
    columns: named.slice(0, own),
    // And what they have cost.
    answerColumns: named.slice(own),
    delimiter: /\.tsv$/i.test(dest) ? '\t' : ',',
  };
  const table = newOutputTable(about);
  const isAnswer = columns.map((name) => read.answerColumns.includes(name));
  const convertRow = ({ cells, isJson = [] }: TableRow): Cells =>
    toCells(
      cells.map((cell, column) => {
        const isList = isAnswer[column] === true && isJson[column] === true && cell.startsWith('[');
        if (!isList) return { cell, isJson: isJson[column] ?? false };
        return table.cellOf(valuesOf({ cells: [cell], isJson: [true] })[0] ?? null);
      }),
    );
  let written = 0;
  await replaceFile(about.path, async (temp) => {
    await temp.writeFile(table.header());
    await source.forEach(async (rows) => {
      await temp.writeFile(table.format(rows.map(convertRow)));
      written += rows.length;
    });
  });
  const plan = read.runFile && planOf(read);
  await packOutput({ ...about, urlColumn: { index: -1, path: [] }, ...plan }, dest);
  return { written, kept: 0, empty: 0 };
}
