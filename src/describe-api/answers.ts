import { STATUS_CODES } from 'node:http';
import { parseJson } from '../shared/parse-json.js';
import type { Dialect } from './dialects/dialect.js';
import { type ApiCall, RejectedError, ResponseShapeError, StatusError } from './errors.js';
import type { HttpAnswer } from './http.js';
import { retryAfterIn } from './retry-after.js';
import { isRefusal, reasonIn } from './shapes.js';

/** Statuses that refuse this very request: the same request would be refused again. */
const REJECTING: ReadonlySet<number> = new Set([400, 404, 413, 415, 422]);

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
  dialect: Dialect,
  { isSubmit = false }: { readonly isSubmit?: boolean } = {},
): unknown {
  // Some servers begin with a byte order mark, which is no JSON.
  const body = parseJson(answer.text.replace(/^\uFEFF/, ''));
  const isSuccess = (code: number) => code >= 200 && code < 300;
  const status = (isSuccess(answer.status) ? dialect.statusIn?.(body) : undefined) ?? answer.status;
  const refused = isRefusal(body);
  if (isSuccess(status)) {
    if (refused)
      throw new RejectedError(call, { status, reason: reasonIn(body) ?? 'refused without a reason' });
    if (answer.tooLong) throw new ResponseShapeError(call, 'an answer of at most 1 MB', answer.text);
    if (body === undefined) throw new ResponseShapeError(call, 'JSON', answer.text || 'an empty body');
    return body;
  }
  const said = reasonIn(body);
  const setUp = isSubmit ? setUpTrouble(status, said, dialect.isNotFoundSetUp) : undefined;
  const rejected = REJECTING.has(status) && setUp === undefined;
  if (rejected) throw new RejectedError(call, { status, reason: said ?? statusText(status) });
  const answered = said === undefined ? statusText(status) : `${statusText(status)}: ${said}`;
  const reason = setUp === undefined ? answered : `${setUp}: ${answered}`;
  throw new StatusError(call, {
    status,
    reason,
    refused,
    concernsAccount: setUp !== undefined || dialect.isQuota?.(body) === true,
    retryAfterMs: retryAfterIn(answer.headers, nowMs) ?? dialect.restMs?.(answer.headers, nowMs),
  });
}

/** No method, proxy, host or protocol of that kind. */
const NEVER_ABOUT_AN_IMAGE: ReadonlySet<number> = new Set([405, 407, 421, 426]);

/** What servers and frameworks say of a path that they do not have; an API that refuses an image names it, or says why. */
const ABOUT_A_ROUTE = [
  /^(404\b[\s:,-]*)?((page|path|route|endpoint)\s+)?not found[.!]?$/i,
  /^cannot (post|get)\b/i,
  /^(the |requested )*(route|endpoint)\b.*\b(not found|not be found|not exist|unknown)\b/i,
  /^(no|no such|unknown|invalid) (route|endpoint|path|static resource)\b/i,
] as const;

const NO_SUCH_PATH = 'no such path or model (are --api, --dialect and --model right?)';
const NOT_TAKEN = 'nothing is taken there (are --api, --dialect and the proxy right?)';

/**
 * Whether a failed submit speaks of the set-up (URL, dialect, model, proxy): 405, 407, 421, 426, and a 404 that gives no
 * reason of its own. A 404 with a reason is about the image, but for dialects that say nothing of images that way.
 * @param said the reason in the body, where there is one
 * @returns how its reason begins; undefined when it is about the image, or about something else
 */
export function setUpTrouble(
  status: number,
  said: string | undefined,
  isNotFoundSetUp = false,
): string | undefined {
  if (NEVER_ABOUT_AN_IMAGE.has(status)) return NOT_TAKEN;
  if (status !== 404) return undefined;
  const isRoute = said === undefined || ABOUT_A_ROUTE.some((words) => words.test(said.trim()));
  return isRoute || isNotFoundSetUp ? NO_SUCH_PATH : undefined;
}

/** How the reason of a `SetUpError` begins. */
export const IGNORES_CHOICES = 'the server ignores --choices';

/** Whether a reason is one that begins with `setUpTrouble`, or that of a `SetUpError`. */
export function isSetUpTrouble(reason: string): boolean {
  return [NO_SUCH_PATH, NOT_TAKEN, IGNORES_CHOICES].some((beginning) => reason.startsWith(beginning));
}
