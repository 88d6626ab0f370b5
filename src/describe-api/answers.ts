import { STATUS_CODES } from 'node:http';
import type { Dialect } from './dialects/dialect.js';
import { type ApiCall, RejectedError, ResponseShapeError, StatusError } from './errors.js';
import type { HttpAnswer } from './exchange.js';
import { retryAfterIn } from './retry-after.js';
import { setUpTrouble } from './set-up.js';
import { isRefusal, reasonIn } from './shapes.js';

/** Statuses that refuse this very request: the same request would be refused again. */
const REJECTING: ReadonlySet<number> = new Set([400, 404, 413, 415, 422]);

/** What of a dialect is needed to tell a success from a failure. */
export type FailureWords = Pick<Dialect, 'statusIn' | 'isQuota' | 'isNotFoundSetUp' | 'restMs'>;

function parseJson(text: string): { readonly ok: boolean; readonly body: unknown } {
  try {
    // Some servers begin with a byte order mark, which is no JSON.
    return { ok: true, body: JSON.parse(text.startsWith('\uFEFF') ? text.slice(1) : text) };
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
 * @param about.isSubmit a poll's failure says nothing of the set-up: a submit went through before
 * @throws {RejectedError} for a refusal of this request
 * @throws {StatusError} for any other status than 2xx
 * @throws {ResponseShapeError} for a 2xx that is no JSON, or cut off
 */
export function readAnswer(
  answer: HttpAnswer,
  call: ApiCall,
  nowMs: number,
  words: FailureWords = {},
  { isSubmit = false }: { readonly isSubmit?: boolean } = {},
): unknown {
  const json = parseJson(answer.text);
  const isSuccess = answer.status >= 200 && answer.status < 300;
  const status = isSuccess && json.ok ? (words.statusIn?.(json.body) ?? answer.status) : answer.status;
  const refused = json.ok && isRefusal(json.body);
  const reasonSaid = () => (json.ok ? reasonIn(json.body) : undefined);
  if (status >= 200 && status < 300) {
    if (refused)
      throw new RejectedError(call, { status, reason: reasonSaid() ?? 'refused without a reason' });
    if (answer.tooLong) throw new ResponseShapeError(call, 'an answer of at most 1 MB', answer.text);
    if (!json.ok) throw new ResponseShapeError(call, 'JSON', answer.text || 'an empty body');
    return json.body;
  }
  const said = reasonSaid();
  const setUp = isSubmit ? setUpTrouble(status, said, words) : undefined;
  const rejected = REJECTING.has(status) && setUp === undefined;
  if (rejected) throw new RejectedError(call, { status, reason: said ?? statusText(status) });
  const answered = said === undefined ? statusText(status) : `${statusText(status)}: ${said}`;
  const reason = setUp === undefined ? answered : `${setUp}: ${answered}`;
  throw new StatusError(call, {
    status,
    reason,
    refused,
    concernsAccount: setUp !== undefined || (json.ok && words.isQuota?.(json.body) === true),
    retryAfterMs: retryAfterIn(answer.headers, nowMs) ?? words.restMs?.(answer.headers, nowMs),
  });
}
