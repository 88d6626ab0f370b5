import { sleep } from '../shared/sleep.js';
import { judgePollFailure } from './attempt-policy.js';
import { backoffMs } from './backoff.js';
import { type ApiCall, DeadlineError, MessageFailedError } from './errors.js';
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
  /** Told of the message as soon as it is submitted, and of each change of its progress. */
  readonly onProgress?: ((progress: WaitProgress) => void) | undefined;
}

const DEADLINE_MS = 20 * 60_000;
const SHORTEST_MS = 500;
const LONGEST_MS = 10_000;
const GROWTH = 0.15;

/** How long to wait for the next poll: a part of the time waited so far. */
export function pollDelayMs(waitedMs: number): number {
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
  let told = 0;
  let failures = 0;
  let failure: unknown;
  let delayMs = SHORTEST_MS;
  for (;;) {
    const leftMs = startedAt + deadlineMs - performance.now();
    await sleep(Math.min(delayMs, Math.max(0, leftMs)), signal);
    signal?.throwIfAborted();
    try {
      const message = await client.message(messageId, { signal });
      failures = 0;
      failure = undefined;
      if (message.status === 'completed') return told100(message, onProgress);
      if (message.status === 'incomplete') {
        throw new MessageFailedError(
          call,
          messageId,
          message.reason ?? 'the message expired before it was completed',
        );
      }
      if (message.progress > told) onProgress?.({ messageId, progress: (told = message.progress) });
      delayMs = pollDelayMs(performance.now() - startedAt);
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof MessageFailedError) throw error;
      const verdict = judgePollFailure(error);
      if (verdict.action === 'stop') throw error;
      failure = error;
      delayMs = Math.max(verdict.retryAfterMs ?? 0, backoffMs(++failures, Math.random()));
    }
    if (leftMs <= 0) {
      throw new DeadlineError(call, messageId, `not completed within ${deadlineMs / 1000} s`, failure);
    }
  }
}

function told100(message: CompletedMessage, onProgress: WaitOptions['onProgress']): CompletedMessage {
  onProgress?.({ messageId: message.messageId, progress: 100 });
  return message;
}
