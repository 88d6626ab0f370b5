import { basename, dirname, resolve } from 'node:path';
import { EarlierOutputs } from '../writer/earlier-outputs.js';
import type { OutputOptions } from '../writer/output-file.js';
import type { RunFile } from '../writer/run-file.js';

/**
 * Reads the earlier files that count with an output: those that are given, and those that the run file remembers, since
 * rows were left to them already.
 * @returns undefined when there are none
 * @throws {UsageError} see `EarlierOutputs.read`
 */
export async function openEarlierOutputs(
  given: readonly string[] | undefined,
  runFile: Pick<RunFile, 'earlierOutputs'> | undefined,
  options: OutputOptions,
): Promise<EarlierOutputs | undefined> {
  const folder = dirname(options.path);
  const remembered = (runFile?.earlierOutputs ?? []).map((path) => resolve(folder, path));
  const paths = new Set([...(given ?? []).map((path) => resolve(path)), ...remembered]);
  return paths.size === 0 ? undefined : await EarlierOutputs.read([...paths], options.path, options);
}

/** The earlier files as the run file remembers them: those beside the output by name, so that they can move together. */
export function rememberEarlier(earlier: EarlierOutputs | undefined, output: string): string[] | undefined {
  return earlier?.files.map(({ path }) => (dirname(path) === dirname(output) ? basename(path) : path));
}
