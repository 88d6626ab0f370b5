import type { ErrorCode } from '../shared/jobs.js';
import type { OutputOptions } from './csv-output.js';
import { type FailureOptions, type FailureRecord, forEachFailure, isDecidedAnew } from './failures.js';
import { inspectOutput } from './output-file.js';
import { DescribedRows, OutputIndex } from './output-index.js';

/** What a recount needs to know of a manifest row. */
export interface RecountRow {
  /** Only with a key column. */
  readonly key?: string | undefined;
  readonly image?: string | undefined;
  /** Why the row cannot be described, where the manifest alone tells. */
  readonly problem?: { readonly code: ErrorCode } | undefined;
}

/** `rows = described + failed + missing`; `extra` and `twice` are rows of the output beyond those. */
export interface Recount {
  /** Rows of the manifest. */
  readonly rows: number;
  readonly described: number;
  readonly failed: number;
  /** Neither described nor failed. */
  readonly missing: number;
  /** Rows of the output that the manifest has no row like. */
  readonly extra: number;
  /** Rows of the output beyond what the manifest and earlier outputs leave of their key or image. */
  readonly twice: number;
  /** Of those described, how many are in earlier outputs; only where there are some. */
  readonly earlier?: number;
}

export interface RecountOptions extends OutputOptions {
  /** The manifest's rows, in their order. */
  readonly rows: AsyncIterable<readonly RecountRow[]>;
  /** The failures file. */
  readonly failuresPath: string;
  /** The index of the earlier outputs, whose rows count as described. */
  readonly earlier?: OutputIndex | undefined;
}

/**
 * Counts what has become of each manifest row, from the files alone; reads only. Rows are told apart as a run tells
 * them: by key; without keys by image and how many rows of it came before. A row with a problem has neither.
 * Memory: the output's index, and some 100 bytes a failure.
 * @throws {UsageError} when the files do not belong to the manifest, or are broken
 */
export async function recountOutput(options: RecountOptions): Promise<Recount> {
  const inspected = await inspectOutput(options);
  const index = inspected?.index ?? new OutputIndex({ keyed: options.keyColumn !== undefined });
  const onFile = new DescribedRows(index, options.earlier);
  const failures = await tallyFailures({ ...options, path: options.failuresPath });
  onFile.startPass();
  let [rows, described, failed] = [0, 0, 0];
  for await (const batch of options.rows) {
    for (const row of batch) {
      rows++;
      const fate = fateOf(row, onFile, index.keyed);
      if (fate === 'described') described++;
      else if (failures.take(fate)) failed++;
    }
    options.signal?.throwIfAborted();
  }
  const counts = { rows, described, failed, missing: rows - described - failed, ...onFile.surplus() };
  return options.earlier === undefined ? counts : { ...counts, earlier: onFile.fromEarlier };
}

/** What a row is if the files have it, or else what the failure is called that it should have. */
function fateOf(row: RecountRow, onFile: DescribedRows, keyed: boolean): 'described' | FailureName {
  const { key = '', image, problem } = row;
  if (problem !== undefined) return { code: problem.code };
  if (!onFile.markSeen(row)) return { code: 'duplicate-key' };
  if (onFile.take(row)) return 'described';
  return image === undefined ? { code: 'invalid-url' } : { name: keyed ? key : image };
}

/** Failures that the manifest alone tells are counted by their code, others by key or image. */
type FailureName = { readonly code: ErrorCode } | { readonly name: string };

/** How many failures of each name there are, and which have been met. */
class FailureTally {
  readonly #left = new Map<string, number>();

  add({ row, outcome }: FailureRecord): void {
    const name = isDecidedAnew(outcome.code) ? undefined : (row.key ?? row.image);
    this.#change(name === undefined ? { code: outcome.code } : { name }, 1);
  }

  /** Uses one up; false when none is left. */
  take(failure: FailureName): boolean {
    return this.#change(failure, -1);
  }

  #change(failure: FailureName, by: 1 | -1): boolean {
    const name = JSON.stringify(failure);
    const left = (this.#left.get(name) ?? 0) + by;
    if (left >= 0) this.#left.set(name, left);
    return left >= 0;
  }
}

/** Counts what merging the failures file and the partial one would give. */
async function tallyFailures(options: FailureOptions): Promise<FailureTally> {
  const tally = new FailureTally();
  await forEachFailure(options, (failures) => failures.forEach((failure) => tally.add(failure)));
  return tally;
}
