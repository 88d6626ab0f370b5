import { inspect } from 'node:util';
import type { Redact } from './redact.js';

/**
 * A text on one line and short enough to show: control characters and runs of white space become one space.
 * Redacted before it is cut, since half a token is a token too.
 */
export function excerptOf(text: string, maxLength: number, redact: Redact): string {
  const line = redact(text)
    .replace(/[\s\p{Cc}]+/gu, ' ')
    .trim();
  return line.length > maxLength ? `${line.slice(0, maxLength - 1)}…` : line;
}

/** Any parsed body as text; unlike JSON it can show everything, however deep. */
export function showBody(body: unknown): string {
  if (typeof body === 'string') return body;
  return inspect(body, { depth: 3, breakLength: Infinity, maxStringLength: null });
}
