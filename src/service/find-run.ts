import { resolve } from 'node:path';
import { UsageError } from '../shared/errors.js';

/**
 * Finds a run by its id or its output's path: as this process would resolve it, or as its home has told it; a
 * file's name will do where one run alone has it. Of several runs of one output the newest counts.
 * @param runs the newest first
 * @throws {UsageError} when there is none, or several could be meant
 */
export function findRun<R extends { readonly run: string; readonly output: string }>(
  runs: readonly R[],
  text: string,
): R {
  const exact = runs.find(({ run, output }) => run === text || output === text || output === resolve(text));
  if (exact !== undefined) return exact;
  const named = runs.filter(({ output }) => isNamed(output, text));
  const outputs = new Set(named.map(({ output }) => output));
  const [first] = named;
  if (first !== undefined && outputs.size === 1) return first;
  if (outputs.size > 1) {
    throw new UsageError(`several runs write to a file ${text}: name one by its path or id`);
  }
  throw new UsageError(
    `no run ${text} in the last day: name it by its id or its output's path, as \`bulk-describe status\` shows them`,
  );
}

/** Whether a name, or the end of a path, means this output. */
export function isNamed(output: string, text: string): boolean {
  const name = text.replace(/^\.\//, '');
  return output === name || output.endsWith(`/${name}`);
}
