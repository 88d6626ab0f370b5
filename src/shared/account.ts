import { UsageError } from './errors.js';

/** What a rate limit belongs to: an API origin and dialect plus a name that tells its tokens apart. */
export interface Account {
  /** Host of the API with its port, or `simulator` for the built-in one. */
  readonly host: string;
  readonly dialect: string;
  readonly name: string;
}

/**
 * Checks an account's name, which becomes part of a queue's name.
 * @throws {UsageError} when it holds anything but letters, digits, `-`, `_` and `.`
 */
export function parseAccountName(text: string): string {
  if (!/^[\w.-]{1,64}$/.test(text)) {
    throw new UsageError(`--account ${text}: expected up to 64 letters, digits, dots, dashes or underscores`);
  }
  return text;
}

/** One line that names the account: in the run file, in logs and for people. */
export function accountLabel(account: Account): string {
  return [account.host, account.dialect, account.name].join('@');
}

/** Reads what `accountLabel` wrote; undefined for anything else. */
export function parseAccountLabel(label: string): Account | undefined {
  const [host, dialect, name, ...rest] = label.split('@');
  if (host === undefined || dialect === undefined || name === undefined || rest.length > 0) return undefined;
  return { host, dialect, name };
}

/** The queue of an account's images. Queue names may not hold a colon. */
export function describeQueueName(account: Account): string {
  return `describe@${accountLabel(account).replaceAll(':', '_')}`;
}

export function resultsQueueName(run: string): string {
  return `results@${run}`;
}
