#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8';
import { CommanderError } from 'commander';
import { DASHBOARD_DEFAULTS } from '../dashboard/access.js';
import { BulkDescribeError, isFileError, isSystemError, messageOf } from '../shared/errors.js';
import { createProgram } from './program.js';
import { printable } from './text.js';

async function main(argv: readonly string[]): Promise<void> {
  const program = createProgram();
  if (argv[0] === '--version') program.version((await import('../shared/version.js')).VERSION, '--version');
  // Commander would take an argument that follows for the port; a manifest may follow.
  const args = argv.map((argument) =>
    argument === '--dashboard' ? `--dashboard=${DASHBOARD_DEFAULTS.port}` : argument,
  );
  await program.parseAsync(args, { from: 'user' });
}

/** One line for what is foreseen; a stack only for what is a defect of this program. */
function report(error: unknown): number {
  // Help or the version, which was printed.
  if (error instanceof CommanderError) return error.exitCode;
  if (error instanceof BulkDescribeError || isFileError(error)) {
    process.stderr.write(`bulk-describe: ${printable(messageOf(error), Infinity)}\n`);
    return isFileError(error) ? 1 : error.exitCode;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`bulk-describe: this is a defect, please report it:\n${text}\n`);
  return 1;
}

// The heap grows by three quarters between two full collections, where V8 would let it grow up to fourfold: coordinators
// and workers stay under 200 MB at any rate and size, for about a tenth more processor time at thousands of rows a second,
// and none that shows at an account's rate.
setFlagsFromString('--heap-growing-percent=75');

// A terminal that is closed, or a log on a full disk, ends no work. Results that stdout did not take are a failure, but where
// their reader has had enough.
let lost: unknown;
process.stdout.on('error', (error: unknown) => {
  if (!isSystemError(error) || error.code !== 'EPIPE') lost ??= error;
});
process.stderr.on('error', () => {
  // There is nowhere left to say it.
});
process.on('exit', () => {
  if (lost === undefined) return;
  process.stderr.write(`bulk-describe: stdout cannot be written: ${messageOf(lost)}\n`);
  process.exitCode ||= 1;
});

try {
  await main(process.argv.slice(2));
} catch (error) {
  process.exitCode = report(error);
}
