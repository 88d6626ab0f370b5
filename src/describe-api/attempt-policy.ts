import { messageOf } from '../shared/errors.js';
import type { ErrorCode } from '../shared/jobs.js';
import {
  ConnectionError,
  DescribeApiError,
  FormatRefusedError,
  InterruptedError,
  RefusalError,
  ResponseShapeError,
  SetUpError,
  StatusError,
  UnreadableAnswerError,
  isUnreachable,
} from './errors.js';
import { SET_UP_ADVICE, setUpAdvice } from './refusals.js';

/**
 * What to do about a failed submit:
 * - `retry-free`: the API has not seen it, or described nothing; again, as often as it takes (at once where `isOther`: it is
 *   asked for in another way)
 * - `retry`: again with a backoff (not before `retryAfterMs`), which costs an attempt; `mostAttempts` of them at most
 * - `rateLimited`: the whole account waits; costs no attempt
 * - `fail`: the image ends here, unless `mayBeSetUp`, and the API has described nothing and refuses every image alike
 * - `stop`: this worker's token is refused, or its settings ask for what the API does not do
 * - `suspect`: it may be the same for every image; certain when it happens for three images with no success between, or
 *   three times where the API says so in words (`isSaid`). Else it costs an attempt, as it may be about this image
 */
export type SubmitVerdict = { readonly reason: string; readonly countsAsDown: boolean } & (
  | { readonly action: 'retry-free'; readonly isOther?: boolean }
  | {
      readonly action: 'retry';
      readonly code: ErrorCode;
      readonly maybePaid: boolean;
      readonly retryAfterMs?: number | undefined;
      readonly mostAttempts?: number | undefined;
      readonly answer?: string | undefined;
      /** What a model is told that was wrong with its answer, once: what it does not mend then it would not the next time. */
      readonly wrong?: string | undefined;
    }
  | { readonly action: 'rateLimited'; readonly retryAfterMs?: number | undefined }
  | {
      readonly action: 'fail';
      readonly code: 'rejected' | 'bad-response';
      readonly mayBeSetUp: boolean;
      readonly answer?: string | undefined;
    }
  | { readonly action: 'stop'; readonly why: StopReason; readonly isPaid?: boolean }
  | { readonly action: 'suspect'; readonly why: StopReason; readonly isSaid: boolean }
);

/** Why a worker takes no more images: the token is refused, the quota is spent, or no image can be described there. */
export type StopReason = 'token' | 'quota' | 'set-up';

/** What to do about a failed poll. Its message is paid for, so almost any failure is polled again. */
export type PollVerdict = { readonly reason: string; readonly countsAsDown: boolean } & (
  | { readonly action: 'retry'; readonly retryAfterMs?: number | undefined }
  | { readonly action: 'stop'; readonly why: 'token' }
);

/** Whether the API may have taken a submit that it has answered like this: it has not read it, or not said what it did. */
function maybePaid({ status, refused }: RefusalError): boolean {
  const isClear = refused || (status < 500 && status !== 408 && status !== 409 && status !== 425);
  return !isClear || (status >= 300 && status < 400);
}

/** An answer that is no message. `rejected` is only what the service says of this very image. */
function judgeAnswer(error: RefusalError): SubmitVerdict {
  const { status, reason, about, retryAfterMs } = error;
  const countsAsDown = about === 'page' || (about === 'moment' && status >= 500);
  const plain = { reason, countsAsDown };
  switch (about) {
    case 'token':
      if (status === 401) return { action: 'stop', why: 'token', ...plain };
      return { action: 'suspect', why: 'token', isSaid: true, ...plain };
    case 'quota':
      return { action: 'suspect', why: 'quota', isSaid: true, ...plain };
    case 'set-up':
    case 'forbidden': {
      const isSaid = about === 'set-up';
      const advice = isSaid ? setUpAdvice(status, reason) : SET_UP_ADVICE.forbidden;
      return { action: 'suspect', why: 'set-up', isSaid, countsAsDown, reason: `${advice}: ${reason}` };
    }
    case 'rate':
      return { action: 'rateLimited', retryAfterMs, ...plain };
    case 'image':
    case 'request':
      return { action: 'fail', code: 'rejected', mayBeSetUp: about === 'request', ...plain };
    case 'page':
    case 'moment': {
      const isPaid = maybePaid(error);
      const code = about === 'moment' && status >= 300 && status < 400 ? 'bad-response' : 'http';
      return { action: 'retry', code, maybePaid: isPaid, retryAfterMs, ...plain };
    }
  }
}

/** What has not the right shape twice will not the third time, and each answer may be paid for. */
const MOST_UNREADABLE = 2;

/**
 * "Retry or not" for a submit, the table "How an attempt can end". `countsAsDown`: connection errors (breaks and timeouts
 * included), pages, and 5xx; five in a row over different images mean that the account is down.
 */
export function judgeSubmitFailure(error: unknown): SubmitVerdict {
  const reason = reasonOf(error);
  if (error instanceof RefusalError) return judgeAnswer(error);
  if (error instanceof FormatRefusedError)
    return { action: 'retry-free', isOther: true, reason, countsAsDown: false };
  if (error instanceof ConnectionError) return { action: 'retry-free', reason, countsAsDown: true };
  if (error instanceof SetUpError)
    return { action: 'stop', why: 'set-up', isPaid: true, reason, countsAsDown: false };
  if (error instanceof UnreadableAnswerError) {
    const about = { code: 'bad-response', answer: error.answer, reason, countsAsDown: false } as const;
    if (error.isRefusal) return { action: 'fail', mayBeSetUp: false, ...about };
    return { action: 'retry', maybePaid: true, wrong: error.wrong, ...about };
  }
  if (error instanceof ResponseShapeError) {
    const limits = { mostAttempts: MOST_UNREADABLE, countsAsDown: error.isPage };
    return { action: 'retry', code: 'bad-response', maybePaid: true, reason, ...limits };
  }
  const countsAsDown = error instanceof InterruptedError;
  return { action: 'retry', code: 'network', maybePaid: true, reason, countsAsDown };
}

/** "Retry or not" for a poll: only a refused token ends the waiting. */
export function judgePollFailure(error: unknown): PollVerdict {
  const reason = reasonOf(error);
  if (error instanceof StatusError) {
    const { status, about, retryAfterMs } = error;
    if (status === 401) return { action: 'stop', why: 'token', reason, countsAsDown: false };
    return { action: 'retry', retryAfterMs, reason, countsAsDown: status >= 500 || about === 'page' };
  }
  const countsAsDown = isUnreachable(error) || error instanceof InterruptedError;
  return { action: 'retry', reason, countsAsDown };
}

function reasonOf(error: unknown): string {
  return error instanceof DescribeApiError ? error.reason : messageOf(error);
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
