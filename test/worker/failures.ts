import type { CompletedMessage } from '../../src/describe-api/client.js';
import {
  ConnectionError,
  InterruptedError,
  RejectedError,
  StatusError,
  UnreadableAnswerError,
} from '../../src/describe-api/errors.js';

const call = { method: 'POST', url: 'http://api.test/v2/describe', redact: (text: string) => text } as const;

export function unreachable(): Error {
  return new ConnectionError(call, 'ECONNREFUSED');
}

export function interrupted(): Error {
  return new InterruptedError(call, 'ECONNRESET');
}

export function refused(reason: string): Error {
  return new RejectedError(call, { status: 200, reason });
}

/** What the client makes of an HTTP status. */
export function status(code: number, about: { refused?: boolean; retryAfterMs?: number } = {}): Error {
  const reason = `HTTP ${code}`;
  if ([400, 404, 413, 415, 422].includes(code)) return new RejectedError(call, { status: code, reason });
  return new StatusError(call, { status: code, reason, refused: false, ...about });
}

/** An answer of a model without prompts. */
export function unreadable(answer: string): Error {
  const about = { isRefusal: false, cutOff: undefined, expected: 'four prompts', usage: undefined };
  return new UnreadableAnswerError(call, { ...about, answer, wrong: 'no JSON' });
}

export function completed(messageId: string): CompletedMessage {
  return { status: 'completed', messageId, prompts: ['one', 'two', 'three', 'four'] };
}
