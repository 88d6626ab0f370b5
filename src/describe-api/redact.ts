import { inspect } from 'node:util';
import { messageOf } from '../shared/errors.js';

/** Takes what may not be shown out of a text. */
export type Redact = (text: string) => string;

const MASK = '[token]';

/** A redactor for one token, in each of the forms in which it can come back: plain, URL-encoded, in JSON. */
export function redactorOf(token: string | undefined): Redact {
  if (!token) return (text) => text;
  const formEncoded = new URLSearchParams({ t: token }).toString().slice(2);
  const forms = [token, encodeURIComponent(token), formEncoded, JSON.stringify(token).slice(1, -1)];
  const longestFirst = [...new Set(forms)].sort((a, b) => b.length - a.length);
  return (text) => longestFirst.reduce((rest, form) => rest.replaceAll(form, MASK), text);
}

/**
 * The cause to keep of an error: itself, or a copy of its message when anything in it shows the token (a
 * parser's error holds the bytes it choked on, and a server may echo what it was sent).
 */
export function redactCause(cause: unknown, redact: Redact): unknown {
  const shown = inspect(cause, { depth: Infinity, maxStringLength: null, maxArrayLength: null });
  if (redact(shown) === shown) return cause;
  return new Error(redact(messageOf(cause)));
}
