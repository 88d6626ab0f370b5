import type { FileHandle } from 'node:fs/promises';
import { UsageError } from '../shared/errors.js';
import { type DescribedOutcome, MESSAGE_COLUMNS } from '../shared/jobs.js';
import { openPlainFile } from './durable-file.js';
import { type OutputOptions, newOutputTable, readDescribed, scanOutput } from './output-table.js';
import { realName, rowsPath, runPaths } from './output-paths.js';
import { readRunFile } from './run-file.js';
import type { Table } from './table.js';

/** One earlier file. */
interface EarlierFile {
  readonly path: string;
  /** Where its rows are. */
  readonly rows: string;
  readonly table: Table;
  readonly hasSimulated: boolean;
  readonly hasReal: boolean;
  /** Of its own run: tonight's may be another one. */
  readonly escapeFormulas: boolean;
}

/**
 * Outputs of earlier nights, whose rows count as done. They are read only, and each need have no more columns than the
 * one that tells rows apart and ours: the manifest may have had others then.
 */
export class EarlierOutputs {
  private constructor(
    readonly files: readonly EarlierFile[],
    private readonly answerColumns: readonly string[],
  ) {}

  /**
   * Reads the files and adds them to the index. Rows that somebody appends to one later are not known.
   * @param options of the output, which cannot be an earlier one
   * @throws {UsageError} when one is not there, is the output itself, or holds no prompts of such a manifest
   */
  static async read(paths: readonly string[], options: OutputOptions): Promise<EarlierOutputs> {
    const files: EarlierFile[] = [];
    for (const path of distinctPaths(paths, options.path)) {
      const rows = rowsPath(path);
      const { escapeFormulas = false } = (await readRunFile(runPaths(path).runFile)) ?? options;
      const file = await withEarlier(rows, async (handle, what) => {
        const table = await openTable(handle, rows, { ...options, escapeFormulas });
        if (table === undefined) return undefined;
        const { hasSimulated, hasReal } = await scanOutput(what, handle, table, options, files.length + 1);
        return { path, rows, table, hasSimulated, hasReal, escapeFormulas };
      });
      if (file !== undefined) files.push(file);
    }
    return new EarlierOutputs(files, options.answerColumns);
  }

  /**
   * See `readDescribed`. The file is opened each time: of hundreds of nights not all can stay open.
   * @param file its number in the index
   */
  async readDescribed({ file, offset }: { file: number; offset: number }): Promise<DescribedOutcome> {
    const earlier = this.files[file - 1];
    if (earlier === undefined) throw new RangeError(`there is no earlier output ${file}`);
    return await withEarlier(earlier.rows, (handle, what) =>
      readDescribed(what, handle, earlier.table, offset, this.answerColumns),
    );
  }
}

/** By their real names, each once. */
function distinctPaths(paths: readonly string[], own: string): Set<string> {
  const ownPath = realName(own);
  const distinct = new Set<string>();
  for (const path of paths) {
    const real = realName(path);
    if (rowsPath(real) === ownPath || real === ownPath) {
      throw new UsageError(`${path} is both the output and an earlier output: name another output with -o`);
    }
    distinct.add(real);
  }
  return distinct;
}

async function withEarlier<Result>(
  path: string,
  read: (handle: FileHandle, what: string) => Promise<Result>,
): Promise<Result> {
  await using handle = await openPlainFile(path, 'r', 'the earlier output');
  if (handle === undefined) {
    throw new UsageError(
      `the earlier output ${path} is not there: put it back, since its rows would be paid for again`,
    );
  }
  return await read(handle, `the earlier output ${path}`);
}

/** @returns undefined for an empty file */
async function openTable(
  handle: FileHandle,
  path: string,
  options: OutputOptions,
): Promise<Table | undefined> {
  const key = options.columns[(options.keyColumn ?? options.urlColumn).index] ?? '';
  const needed = [...options.answerColumns, ...MESSAGE_COLUMNS, key];
  const missingIn = (found: readonly string[]) => needed.filter((name) => !found.includes(name));
  // Whichever way that one has its prompts, of which each is one.
  const promptsAs = options.answerColumns.includes('prompt_1') ? 'rows' : undefined;
  const expected = newOutputTable({ ...options, promptsAs }, path);
  const table = await expected.open(handle, (found) => missingIn(found).length === 0);
  const missing = table === undefined ? [] : missingIn(table.columns);
  if (missing.length === 0) return table;
  const list = missing.map((name) => JSON.stringify(name)).join(', ');
  throw new UsageError(`the earlier output ${path} is none of this manifest: it has no column ${list}`);
}
