import { accountLabel } from '../shared/account.js';
import { UsageError } from '../shared/errors.js';
import { runPaths } from '../writer/output-paths.js';
import { readRunFile } from '../writer/run-file.js';
import { apiOf } from './api-options.js';
import type { PreparedRun } from './prepare.js';
import type { RunOptions } from './run-options.js';

/**
 * Prompts of a simulator and of an API in one file, or in files that count together, would be told apart by nobody.
 * @throws {UsageError} when the API is of the other kind
 */
export async function refuseForeignOutput(
  prepared: Omit<PreparedRun, 'manifest' | 'plan' | 'outputOptions'>,
  options: RunOptions,
): Promise<void> {
  const { found, runFile, account, isSimulated, paths, earlier } = prepared;
  const own = found === undefined ? [] : [{ path: paths.output, ...found }];
  for (const { path, hasSimulated, hasReal } of [...own, ...(earlier?.files ?? [])]) {
    if (hasReal && isSimulated) {
      throw new UsageError(
        `${path} holds prompts of a real API: let the simulator write to another output, with -o`,
      );
    }
    // A simulator may well be listening there.
    const isLoopback = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/.test(account.host);
    if (!hasSimulated || isSimulated || isLoopback) continue;
    const itsRunFile = path === paths.output ? runFile : await readRunFile(runPaths(path).runFile);
    if (itsRunFile?.account === accountLabel(account)) continue;
    throw new UsageError(
      `${path} holds prompts of a simulator, and the API is ${apiOf(options)}: name another output with -o, or move that one away`,
    );
  }
}
