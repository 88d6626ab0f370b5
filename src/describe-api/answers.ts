import { STATUS_CODES } from 'node:http';
import { type ApiCall, RejectedError, ResponseShapeError, StatusError } from './errors.js';
import type { HttpAnswer } from './http.js';
import { retryAfterToMs } from './retry-after.js';
import { isRefusal, reasonIn } from './shapes.js';

/** Statuses that refuse this very request: the same request would be refused again. */
const REJECTING: ReadonlySet<number> = new Set([400, 404, 413, 415, 422]);

function parseJson(text: string): { readonly ok: boolean; readonly body: unknown } {
  try {
    return { ok: true, body: JSON.parse(text) };
  } catch {
    // Any text that is no JSON comes here; the caller names the text itself in its error.
    return { ok: false, body: text };
  }
}

function statusText(status: number): string {
  return `${status} ${STATUS_CODES[status] ?? ''}`.trim();
}

/**
 * The JSON body of a successful answer.
 * @throws {RejectedError} for a refusal of this request
 * @throws {StatusError} for any other status than 2xx
 * @throws {ResponseShapeError} for a 2xx that is no JSON, or cut off
 */
export function readAnswer(answer: HttpAnswer, call: ApiCall, nowMs: number): unknown {
  const { status } = answer;
  const json = parseJson(answer.text);
  const refused = json.ok && isRefusal(json.body);
  const said = json.ok ? reasonIn(json.body) : undefined;
  if (status >= 200 && status < 300) {
    if (refused) throw new RejectedError(call, { status, reason: said ?? 'refused without a reason' });
    if (answer.tooLong) throw new ResponseShapeError(call, 'an answer of at most 1 MB', answer.text);
    if (!json.ok) throw new ResponseShapeError(call, 'JSON', answer.text || 'an empty body');
    return json.body;
  }
  const rejected = REJECTING.has(status);
  if (rejected) throw new RejectedError(call, { status, reason: said ?? statusText(status) });
  const reason = said === undefined ? statusText(status) : `${statusText(status)}: ${said}`;
  throw new StatusError(call, {
    status,
    reason,
    refused,
    retryAfterMs: retryAfterToMs(answer.retryAfter, nowMs),
  });
}
