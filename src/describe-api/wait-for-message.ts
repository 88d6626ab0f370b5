import { sleep } from '../shared/waiting.js';
import { judgePollFailure } from './attempt-policy.js';
import { backoffMs } from './backoff.js';
import { type ApiCall, DeadlineError, DescribeApiError, MessageFailedError } from './errors.js';
import type { CompletedMessage, Message } from './shapes.js';

export interface WaitProgress {
  readonly messageId: string;
  /** 0..100. */
  readonly progress: number;
}

export interface WaitOptions {
  /** Ends the waiting, which then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds from the submit to its completion; 20 minutes. */
  readonly deadlineMs?: number | undefined;
  /** Called with the message as soon as it is submitted, and at each change of its progress. What it throws ends the wait. */
  readonly onProgress?: ((progress: WaitProgress) => void) | undefined;
}

const DEADLINE_MS = 20 * 60_000;
const SHORTEST_MS = 500;
const LONGEST_MS = 10_000;
const GROWTH = 0.15;

/** How long to wait for the next poll: a part of the time waited so far. */
function pollDelayMs(waitedMs: number): number {
  return Math.min(LONGEST_MS, Math.max(SHORTEST_MS, waitedMs * GROWTH));
}

/**
 * Polls one message until it is completed.
 * @param call how errors name what is waited for
 * @param startedAt when it was submitted, by `performance.now()`
 * @throws see `DescribeClient.describe`
 */
export async function waitForMessage(
  client: { message(messageId: string, about: { signal?: AbortSignal | undefined }): Promise<Message> },
  messageId: string,
  call: ApiCall,
  startedAt: number,
  { signal, deadlineMs = DEADLINE_MS, onProgress }: WaitOptions,
): Promise<CompletedMessage> {
  let reported = 0;
  let failures = 0;
  let failure: DescribeApiError | undefined;
  let delayMs = SHORTEST_MS;
  for (;;) {
    const leftMs = startedAt + deadlineMs - performance.now();
    await sleep(Math.min(delayMs, Math.max(0, leftMs)), signal);
    signal?.throwIfAborted();
    const poll = await pollOnce(() => client.message(messageId, { signal }), signal);
    failure = poll.failure;
    if (poll.failure === undefined) {
      const { message } = poll;
      failures = 0;
      if (message.status === 'completed') return reportCompleted(message, onProgress);
      if (message.status === 'incomplete') {
        const reason = message.reason ?? 'the message expired before it was completed';
        throw new MessageFailedError(call, messageId, reason);
      }
      if (message.progress > reported) onProgress?.({ messageId, progress: (reported = message.progress) });
      delayMs = pollDelayMs(performance.now() - startedAt);
    } else {
      delayMs = Math.max(poll.retryAfterMs, backoffMs(++failures, Math.random()));
    }
    if (leftMs <= 0) {
      throw new DeadlineError(call, messageId, `not completed within ${deadlineMs / 1000} s`, failure);
    }
  }
}

type Poll =
  | { readonly failure: undefined; readonly message: Message }
  | { readonly failure: DescribeApiError; readonly retryAfterMs: number };

/** @throws what no waiting mends: a refused token, and any error that is not of a call, as a dialect's own */
async function pollOnce(ask: () => Promise<Message>, signal: AbortSignal | undefined): Promise<Poll> {
  try {
    return { failure: undefined, message: await ask() };
  } catch (error) {
    signal?.throwIfAborted();
    if (!(error instanceof DescribeApiError)) throw error;
    const verdict = judgePollFailure(error);
    if (verdict.action === 'stop') throw error;
    return { failure: error, retryAfterMs: verdict.retryAfterMs ?? 0 };
  }
}

function reportCompleted(message: CompletedMessage, onProgress: WaitOptions['onProgress']): CompletedMessage {
  onProgress?.({ messageId: message.messageId, progress: 100 });
  return message;
}
