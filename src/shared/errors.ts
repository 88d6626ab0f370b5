/**
 * The errors that end a command. Each message is one line that says what is wrong, where, and what to
 * do; the command line prints it without a stack and exits with `exitCode`.
 */
export class BulkDescribeError extends Error {
  override name = 'BulkDescribeError';
  /** The process's exit code, see "Exit codes" in the README. */
  readonly exitCode: number = 1;
}

/** A wrong flag, value, manifest or output: nothing was paid or created. */
export class UsageError extends BulkDescribeError {
  override name = 'UsageError';
}

/** Something that the run cannot go on without has failed (disk, manifest reading, queue). */
export class FatalError extends BulkDescribeError {
  override name = 'FatalError';
}

/** Another process has this output or this embedded queue. */
export class BusyError extends BulkDescribeError {
  override name = 'BusyError';
  override readonly exitCode = 5;
}

/** Told to end before anything had begun. */
export class InterruptedEarlyError extends BulkDescribeError {
  override name = 'InterruptedEarlyError';
  override readonly exitCode = 130;
}

/** The message of anything that was thrown, on one line. */
export function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message || error.name : String(error);
  return text.replace(/\s*[\r\n]+\s*/g, ' ');
}

/** Narrows to a Node.js system error, which carries a code such as ENOENT. */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException & { code: string } {
  return error instanceof Error && 'code' in error && typeof error.code === 'string';
}
