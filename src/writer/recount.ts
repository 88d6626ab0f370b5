import type { NamedRow } from '../producer/row-reader.js';
import { type ErrorCode, isDecidedAnew } from '../shared/jobs.js';
import { type FailureRecord, forEachFailure } from './failures.js';
import { type OutputOptions, inspectOutput } from './output-table.js';
import type { OutputIndex } from './output-index.js';

/** What a recount needs to know of a manifest row. */
export interface RecountRow extends NamedRow {
  /** Why the row cannot be described, where the manifest alone tells. */
  readonly problem?: { readonly code: ErrorCode } | undefined;
}

/** `rows = described + failed + missing`; `extra` and `twice` are rows of the output beyond those. */
export interface Recount {
  /** Rows of the manifest. */
  readonly rows: number;
  readonly described: number;
  readonly failed: number;
  /** Failed rows whose codes are accepted; only where that is asked for. */
  readonly accepted?: number;
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
  /** Codes of failures that are counted as accepted. */
  readonly accept?: readonly ErrorCode[] | undefined;
}

/**
 * Counts what has become of each manifest row, from the files alone; reads only. Rows are told apart as a run tells
 * them: by key; without keys by image and how many rows of it came before. A row with a problem has neither.
 * @param options with an index that holds the earlier outputs, whose rows count as described
 * @throws {UsageError} when the files do not belong to the manifest, or are broken
 */
export async function recountOutput(options: RecountOptions): Promise<Recount> {
  const { index, accept } = options;
  await inspectOutput(options);
  const failuresLeft = new Tally();
  const acceptedLeft = new Tally();
  await forEachFailure({ ...options, path: options.failuresPath }, (failures) => {
    for (const failure of failures) {
      failuresLeft.add(nameOf(failure));
      if (accept?.includes(failure.outcome.code) === true) acceptedLeft.add(nameOf(failure));
    }
  });
  index.startPass();
  let [rows, described, failed, accepted] = [0, 0, 0, 0];
  for await (const batch of options.rows) {
    for (const row of batch) {
      rows++;
      const fate = fateOf(row, index);
      if (fate === 'described') {
        described++;
      } else if (failuresLeft.take(fate)) {
        failed++;
        if (acceptedLeft.take(fate)) accepted++;
      }
    }
    options.signal?.throwIfAborted();
  }
  const missing = rows - described - failed;
  const counts = { rows, described, failed, ...(accept && { accepted }), missing, ...index.surplus() };
  return index.earlierRows === 0 ? counts : { ...counts, earlier: index.fromEarlier };
}

/** How many there are of each name. */
class Tally {
  readonly #counts = new Map<string, number>();

  add(name: string): void {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
  }

  /** @returns whether there was one left */
  take(name: string): boolean {
    const left = this.#counts.get(name) ?? 0;
    if (left > 0) this.#counts.set(name, left - 1);
    return left > 0;
  }
}

/** What a row is if the files have it, or else what the failure is called that it should have. */
function fateOf(row: RecountRow, index: OutputIndex): string {
  const { key = '', image, problem } = row;
  if (problem !== undefined) return `code ${problem.code}`;
  if (!index.markSeen(row)) return 'code duplicate-key';
  if (index.take(row)) return 'described';
  return image === undefined ? 'code invalid-url' : `name ${index.keyed ? key : image}`;
}

/** Failures that the manifest alone tells are counted by their code, others by key or image. */
function nameOf({ row, outcome }: FailureRecord): string {
  const name = isDecidedAnew(outcome.code) ? undefined : (row.key ?? row.image);
  return name === undefined ? `code ${outcome.code}` : `name ${name}`;
}
