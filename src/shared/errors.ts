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
  if (isFileError(error)) {
    return fileTrouble(error) + (error.path === undefined ? '' : `: ${shownPath(error.path)}`);
  }
  const text = error instanceof Error ? error.message || error.name : String(error);
  return text.replace(/\s*[\r\n]+\s*/g, ' ');
}

/** What went wrong with a file. The system's own words name its calls (`realpath`), and paths of whatever length. */
const FILE_TROUBLE: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or folder',
  ENOTDIR: 'a part of the path is a file and no folder',
  EISDIR: 'it is a folder',
  ENAMETOOLONG: 'the name is too long',
  ELOOP: 'symbolic links lead in a circle',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  ENOSPC: 'no space left on the disk',
  EDQUOT: 'the disk quota is spent',
  EFBIG: 'the file has reached the largest size allowed',
  EROFS: 'the disk is read-only',
  EIO: 'the disk reports an error',
  EMFILE: 'too many files are open',
  ENFILE: 'too many files are open',
};

/** Whether an error is one of the file system's that has words. */
export function isFileError(error: unknown): error is NodeJS.ErrnoException & { code: string } {
  // Sockets and processes have errors of the same codes.
  const isOther =
    error instanceof Error &&
    'syscall' in error &&
    /^(connect|listen|bind|spawn)/.test(String(error.syscall));
  return isSystemError(error) && !isOther && Object.hasOwn(FILE_TROUBLE, error.code);
}

/**
 * Why a file cannot be used, in words and with the code, for a message that names the file.
 * @param special words that say more where it is known what was to be done
 */
export function fileTrouble(error: unknown, special: Readonly<Record<string, string>> = {}): string {
  if (!isFileError(error)) return messageOf(error);
  return `${special[error.code] ?? FILE_TROUBLE[error.code] ?? ''} (${error.code})`;
}

const LONGEST_PATH = 200;

/** A path as a message shows it: of one that is very long both ends. */
export function shownPath(path: string): string {
  if (path.length <= LONGEST_PATH) return path;
  const half = LONGEST_PATH / 2;
  return `${path.slice(0, half)}…${path.slice(-half)}`;
}

const UNTRUSTED = /^(DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_(VERIFY|GET)_\w+)$/;

/** What helps against a certificate that Node.js does not trust; undefined for other codes. */
export function untrustedText(code: string, host: string): string | undefined {
  if (!UNTRUSTED.test(code)) return undefined;
  return `the certificate of ${host} is not trusted: NODE_EXTRA_CA_CERTS=<file.pem> names the authority that issued it`;
}

/** Narrows to a Node.js system error, which carries a code such as ENOENT. */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException & { code: string } {
  return error instanceof Error && 'code' in error && typeof error.code === 'string';
}

/** More names than these are counted where they are shown. */
const MOST_NAMED = 3;

/** How several manifests are shown as one. */
export function manifestsText([first, ...more]: readonly [string, ...string[]]): string {
  return more.length < MOST_NAMED ? [first, ...more].join(' ') : `${first} and ${more.length} more`;
}
