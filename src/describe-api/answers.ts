import { STATUS_CODES } from 'node:http';
import { parseJson } from '../shared/parse-json.js';
import type { Dialect, Refused } from './dialects/dialect.js';
import { type ApiCall, RejectedError, ResponseShapeError, StatusError } from './errors.js';
import type { HttpAnswer } from './http.js';
import { aboutOf } from './refusals.js';
import { retryAfterIn } from './retry-after.js';
import { isRefusal, reasonIn } from './shapes.js';

function statusText(status: number): string {
  return `${status} ${STATUS_CODES[status] ?? ''}`.trim();
}

/** A page, which no API answers with: a firewall, a gateway or a portal has. Its title is for people. */
function pageIn({ text, headers }: HttpAnswer): string | undefined {
  const isPage = /^\s*<(!doctype html|html|head|body)\b/i.test(text);
  if (!isPage && headers['content-type']?.includes('text/html') !== true) return undefined;
  const title = /<title[^>]*>([^<]{1,100})/i.exec(text)?.[1]?.trim();
  return `a page came where JSON was expected${title === undefined ? '' : ` ("${title}")`}`;
}

/** The reason in a success that holds nothing but an error. */
function errorAlone(body: unknown): string | undefined {
  if (typeof body !== 'object' || body === null || !('error' in body)) return undefined;
  if (reasonIn({ error: body.error }) === undefined) return undefined;
  const isError = ([key, value]: [string, unknown]) =>
    value === null || ['error', 'message', 'msg', 'detail', 'code', 'status', 'type', 'object'].includes(key);
  return Object.entries(body).every(isError) ? reasonIn(body) : undefined;
}

/**
 * The JSON body of a successful answer; null for an empty one to a poll.
 * @param about.isSubmit a poll's failure says nothing of the set-up: a submit went through before
 * @throws {RejectedError} for a refusal of this request
 * @throws {StatusError} for any other status than 2xx
 * @throws {ResponseShapeError} for a 2xx that is no JSON, or cut off
 */
export function readAnswer(
  answer: HttpAnswer,
  call: ApiCall,
  nowMs: number,
  dialect: Dialect,
  { isSubmit = false }: { readonly isSubmit?: boolean } = {},
): unknown {
  // Some servers begin with a byte order mark, which is no JSON.
  const body = parseJson(answer.text.replace(/^\uFEFF/, ''));
  const isSuccess = (code: number) => code >= 200 && code < 300;
  const own = dialect.refusedBy?.(body, answer.status);
  const ofBody = isSuccess(answer.status) ? dialect.statusIn?.(body) : undefined;
  const status = own?.status ?? ofBody ?? answer.status;
  const refused = own !== undefined || isRefusal(body);
  if (isSuccess(status) && own === undefined) {
    const reason = isSubmit ? errorAlone(body) : undefined;
    if (refused || reason !== undefined)
      throw new RejectedError(call, {
        status,
        reason: reason ?? reasonIn(body) ?? 'refused without a reason',
      });
    if (answer.tooLong) throw new ResponseShapeError(call, 'an answer of at most 1 MB', answer.text);
    // How some say that there is no such message.
    if (!isSubmit && answer.text.trim() === '') return null;
    if (body === undefined) throw new ResponseShapeError(call, 'JSON', answer.text || 'an empty body');
    return body;
  }
  throw refusalOf(answer, body, call, nowMs, dialect, { status, refused, isSubmit, about: own?.about });
}

function refusalOf(
  answer: HttpAnswer,
  body: unknown,
  call: ApiCall,
  nowMs: number,
  dialect: Dialect,
  known: { status: number; refused: boolean; isSubmit: boolean; about: Refused['about'] },
): StatusError | RejectedError {
  const { status, refused, isSubmit } = known;
  const page = body === undefined ? pageIn(answer) : undefined;
  const said = reasonIn(body);
  const about =
    known.about ??
    aboutOf({
      ...{ status, refused, said, isPage: page !== undefined },
      isQuota: dialect.isQuota?.(body),
      isNotFoundSetUp: dialect.isNotFoundSetUp,
    });
  const isRejected = about === 'image' || about === 'request' || (status === 404 && !isSubmit);
  if (isRejected) return new RejectedError(call, { status, reason: said ?? statusText(status), about });
  const words = about === 'page' ? page : said;
  return new StatusError(call, {
    ...{ status, refused, about },
    reason: [...(status < 300 ? [] : [statusText(status)]), ...(words === undefined ? [] : [words])].join(
      ': ',
    ),
    retryAfterMs: retryAfterIn(answer.headers, nowMs) ?? dialect.restMs?.(answer.headers, nowMs),
  });
}
