import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { readRows } from '../producer/row-reader.js';
import { UsageError } from '../shared/errors.js';
import { UndoStack } from '../shared/undo.js';
import { type Recount, recountOutput } from '../writer/recount.js';
import { runPaths } from '../writer/output-paths.js';
import { readRunFile } from '../writer/run-file.js';
import { openEarlierOutputs, openRows } from './prepare.js';
import type { RunOptions } from './run-options.js';

export type VerifyOptions = Pick<
  RunOptions,
  'manifest' | 'input' | 'format' | 'delimiter' | 'urlColumn' | 'keyColumn' | 'baseUrl' | 'earlierOutputs'
> & { readonly output: string };

/**
 * Counts from the files alone what has become of each manifest row. What identifies rows is taken from the
 * run file beside the output where it is not given, and the earlier outputs that count with it always. Reads only.
 * @throws {UsageError} when there is no output, or it is not this manifest's
 */
export async function verifyOutput(options: VerifyOptions): Promise<Recount> {
  const undo = new UndoStack();
  try {
    const paths = runPaths(resolve(options.output));
    if (!existsSync(paths.output)) {
      throw new UsageError(`there is no output ${options.output}: name the file that \`run\` has written`);
    }
    const runFile = await readRunFile(paths.runFile);
    const { manifest, plan, outputOptions } = await openRows(
      {
        ...options,
        urlColumn: options.urlColumn ?? runFile?.urlColumn,
        keyColumn: options.keyColumn ?? runFile?.keyColumn,
        baseUrl: options.baseUrl ?? runFile?.baseUrl,
      },
      paths,
      undo,
    );
    const earlier = await openEarlierOutputs(options.earlierOutputs, runFile, outputOptions);
    return await recountOutput({
      ...outputOptions,
      rows: readRows(manifest, plan),
      failuresPath: paths.failures,
      earlier: earlier?.index,
    });
  } finally {
    await undo.release();
  }
}
