import { messageOf } from '../shared/errors.js';
import type { ErrorCode } from '../shared/jobs.js';
import {
  ConnectionError,
  DescribeApiError,
  InterruptedError,
  RejectedError,
  ResponseShapeError,
  SetUpError,
  StatusError,
  UnreadableAnswerError,
} from './errors.js';

/**
 * What to do about a failed submit:
 * - `retry-free`: nothing was sent; again, as often as it takes
 * - `retry`: again with a backoff (not before `retryAfterMs`), which costs an attempt; `mostAttempts` of them at most
 * - `rateLimited`: the whole account waits; costs no attempt
 * - `fail`: the image ends here
 * - `stop`: this worker's token is refused, or its settings ask for what the API does not do
 * - `suspect`: the quota may be spent; certain when it happens for three images with no success between, or
 *   three times where the API says so in words (`saysQuota`). Else it costs an attempt, as it may be about this image
 */
export type SubmitVerdict = { readonly reason: string; readonly countsAsDown: boolean } & (
  | { readonly action: 'retry-free' }
  | {
      readonly action: 'retry';
      readonly code: ErrorCode;
      readonly maybePaid: boolean;
      readonly retryAfterMs?: number | undefined;
      readonly mostAttempts?: number | undefined;
      readonly answer?: string | undefined;
    }
  | { readonly action: 'rateLimited'; readonly retryAfterMs?: number | undefined }
  | {
      readonly action: 'fail';
      readonly code: 'rejected' | 'bad-response';
      readonly answer?: string | undefined;
    }
  | { readonly action: 'stop'; readonly why: 'token'; readonly isPaid?: boolean }
  | { readonly action: 'suspect'; readonly why: 'quota'; readonly saysQuota: boolean }
);

/** What to do about a failed poll. Its message is paid for, so almost any failure is polled again. */
export type PollVerdict = { readonly reason: string; readonly countsAsDown: boolean } & (
  | { readonly action: 'retry'; readonly retryAfterMs?: number | undefined }
  | { readonly action: 'stop'; readonly why: 'token' }
);

const ABOUT_QUOTA =
  /\b(credits|credit (limit|balance)|(no|enough|insufficient) credit|quotas?|billing|subscription|payment required|insufficient (funds|balance)|out of (funds|tokens))\b/i;

/** What a 429 says when waiting does not help; a quota alone may be one of each minute. */
const IS_SPENT =
  /\b((no|no more|out of|insufficient|not enough) credits?|credits (are |have been )?(spent|used up|exhausted|depleted)|credit balance|insufficient (funds|balance)|out of funds|payment required)\b/i;

/** Whether a refusal speaks of credits or quota; URLs in it (`.../credit-card.png`) do not count, nor does a credit line. */
function speaksOfQuota(reason: string): boolean {
  return ABOUT_QUOTA.test(withoutUrls(reason));
}

function withoutUrls(text: string): string {
  return text.replace(/\b[a-z]+:\/\/\S+/gi, ' ');
}

/** 408, 409, 425 and 5xx: the request may be good, the moment was not. */
function isPassing(status: number): boolean {
  return status === 408 || status === 409 || status === 425 || status >= 500;
}

function judgeSubmitStatus(error: StatusError): SubmitVerdict {
  const { status, reason, refused, concernsAccount, retryAfterMs } = error;
  const countsAsDown = status >= 500;
  if (status === 401) return { action: 'stop', why: 'token', reason, countsAsDown };
  // A quota that is spent can come as a 429: waiting does not help.
  if (concernsAccount)
    return { action: 'suspect', why: 'quota', saysQuota: true, reason, countsAsDown: false };
  if (status === 429 && IS_SPENT.test(withoutUrls(reason)))
    return { action: 'suspect', why: 'quota', saysQuota: true, reason, countsAsDown };
  if (status === 429) return { action: 'rateLimited', retryAfterMs, reason, countsAsDown };
  const saysQuota = status === 402 || (refused && speaksOfQuota(reason));
  if (saysQuota || status === 403)
    return { action: 'suspect', why: 'quota', saysQuota, reason, countsAsDown };
  if (isPassing(status)) {
    return { action: 'retry', code: 'http', maybePaid: !refused, retryAfterMs, reason, countsAsDown };
  }
  if (status >= 400) return { action: 'fail', code: 'rejected', reason, countsAsDown };
  return { action: 'retry', code: 'bad-response', maybePaid: true, retryAfterMs, reason, countsAsDown };
}

/** A model that cannot be read twice will not be the third time, and each answer is paid for. */
const MOST_UNREADABLE = 2;

/**
 * "Retry or not" for a submit, the table "How an attempt can end". `countsAsDown`: connection errors (breaks
 * and timeouts included) and 5xx; five in a row over different images mean that the account is down.
 */
export function judgeSubmitFailure(error: unknown): SubmitVerdict {
  if (!(error instanceof DescribeApiError)) {
    const reason = messageOf(error);
    return { action: 'retry', code: 'network', maybePaid: true, reason, countsAsDown: false };
  }
  const { reason } = error;
  if (error instanceof StatusError) return judgeSubmitStatus(error);
  if (error instanceof ConnectionError) return { action: 'retry-free', reason, countsAsDown: true };
  if (error instanceof RejectedError) {
    if (speaksOfQuota(reason))
      return { action: 'suspect', why: 'quota', saysQuota: true, reason, countsAsDown: false };
    return { action: 'fail', code: 'rejected', reason, countsAsDown: false };
  }
  if (error instanceof SetUpError)
    return { action: 'stop', why: 'token', isPaid: true, reason, countsAsDown: false };
  if (error instanceof UnreadableAnswerError) {
    const about = { code: 'bad-response', answer: error.answer, reason, countsAsDown: false } as const;
    if (error.isRefusal) return { action: 'fail', ...about };
    return { action: 'retry', maybePaid: true, mostAttempts: MOST_UNREADABLE, ...about };
  }
  const code = error instanceof ResponseShapeError ? 'bad-response' : 'network';
  return { action: 'retry', code, maybePaid: true, reason, countsAsDown: error instanceof InterruptedError };
}

/** "Retry or not" for a poll: only a refused token ends the waiting. */
export function judgePollFailure(error: unknown): PollVerdict {
  if (!(error instanceof DescribeApiError))
    return { action: 'retry', reason: messageOf(error), countsAsDown: false };
  const { reason } = error;
  if (error instanceof StatusError) {
    const { status, retryAfterMs } = error;
    if (status === 401) return { action: 'stop', why: 'token', reason, countsAsDown: false };
    return { action: 'retry', retryAfterMs, reason, countsAsDown: status >= 500 };
  }
  const countsAsDown = error instanceof ConnectionError || error instanceof InterruptedError;
  return { action: 'retry', reason, countsAsDown };
}

const BACKOFF_BASE_MS = 1000;
const BACKOFF_FACTOR = 2;
const LONGEST_BACKOFF_MS = 60_000;

/**
 * How long to wait after a failed try: exponential, 1 s doubled each time up to 60 s, of which between half
 * and all is taken, so that many workers do not come back at once.
 * @param attempt the try that failed, from 1
 * @param random in [0, 1)
 */
export function backoffMs(attempt: number, random: number): number {
  const full = Math.min(LONGEST_BACKOFF_MS, BACKOFF_BASE_MS * BACKOFF_FACTOR ** (Math.max(1, attempt) - 1));
  return Math.round(full / 2 + (full / 2) * random);
}
