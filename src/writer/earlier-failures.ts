import type { PreviousFailure } from '../shared/outcome.js';
import type { UndoStack } from '../shared/undo.js';
import type { NamedRow } from './described-rows.js';
import type { EarlierOptions } from './earlier-outputs.js';
import { FailuresIndex } from './failures-index.js';
import { openFailures } from './failures-reading.js';
import { runPaths } from './output-paths.js';

/**
 * How rows failed in earlier files: their last messages may have been completed since, and what is permanent stays so.
 * Read only. Of several nights the newest one that has a row counts.
 */
export class EarlierFailures {
  private constructor(private readonly index: FailuresIndex) {}

  /**
   * Reads the failures files that belong to earlier outputs, and keeps those open in which something is found.
   * @param outputs the oldest first
   * @param undo gets their closing
   * @param isDescribed whether a row has been described since: it is left out
   * @throws {UsageError} when one is no failures file of this manifest: it needs the URL and key columns
   */
  static async open(
    outputs: readonly { readonly path: string }[],
    options: EarlierOptions,
    undo: UndoStack,
    isDescribed: (row: NamedRow) => boolean = () => false,
  ): Promise<EarlierFailures> {
    const index = new FailuresIndex();
    undo.defer(() => index.close());
    for (const { path: output } of [...outputs].reverse()) {
      const { failures, failuresPartial } = runPaths(output);
      // A run that was killed leaves the newer ones in the partial file.
      for (const path of [failuresPartial, failures]) {
        const file = await openFailures(path, { ...options, path: failures });
        if (file === undefined) continue;
        await index.add(file, { ...options, path: failures }, ({ row }) => !isDescribed(row));
      }
    }
    return new EarlierFailures(index);
  }

  /**
   * How a row failed in the newest earlier file that says so.
   * @param name the row's key; in a manifest without keys its image
   */
  previous(name: string | undefined): PreviousFailure | undefined {
    return this.index.find(name);
  }
}
