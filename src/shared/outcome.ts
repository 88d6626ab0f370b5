/** How a row can fail; the values of the failures file's `error_code` column. */
export const ERROR_CODES = [
  'invalid-url',
  'bad-record',
  'duplicate-key',
  'rejected',
  'incomplete',
  'deadline',
  'http',
  'network',
  'bad-response',
  'lost',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** The four prompts of one image, keycaps stripped. */
export type Prompts = readonly [string, string, string, string];

/** An image that the API described. */
export interface DescribedOutcome {
  readonly status: 'described';
  readonly prompts: Prompts;
  readonly messageId: string;
  /** When the worker received the prompts: ISO 8601, UTC. */
  readonly describedAt: string;
}

/** An image (or a row that never became one) that could not be described. */
export interface FailedOutcome {
  readonly status: 'failed';
  readonly code: ErrorCode;
  /** One line for people. */
  readonly reason: string;
  /** Submits made, 0 for rows that were never submitted. */
  readonly attempts: number;
  /** The last message, if a submit was ever answered. */
  readonly messageId?: string | undefined;
}

/** How a row ended in an earlier run, and over which image. */
export interface PreviousFailure {
  readonly outcome: FailedOutcome;
  readonly image?: string | undefined;
}

export type Outcome = DescribedOutcome | FailedOutcome;

/**
 * Failures that the same command does not try again, since only a change of the manifest can help.
 * (`duplicate-key` is decided anew from the manifest each time, at no cost.)
 */
export function isPermanent(code: ErrorCode): boolean {
  return code === 'invalid-url' || code === 'rejected' || code === 'bad-record' || code === 'duplicate-key';
}
