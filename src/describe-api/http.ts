import { STATUS_CODES } from 'node:http';
import { Agent, type Dispatcher, EnvHttpProxyAgent } from 'undici';
import { z } from 'zod';
import { isSystemError, messageOf, untrustedText, UsageError } from '../shared/errors.js';
import { parseJson } from '../shared/parse-json.js';
import { abortReason, startTimer } from '../shared/waiting.js';
import type { Dialect, Refused } from './dialects/dialect.js';
import {
  type ApiCall,
  ConnectionError,
  DescribeApiError,
  InterruptedError,
  RejectedError,
  ResponseShapeError,
  StatusError,
  TimeoutError,
} from './errors.js';
import { aboutOf, isRefusal, reasonIn } from './refusals.js';
import { type AnswerHeaders, firstValues, retryAfterIn } from './retry-after.js';

const CONNECT_TIMEOUT_MS = 10_000;

export interface HttpRequest {
  /** How errors call it. */
  readonly call: ApiCall;
  readonly target: URL;
  readonly headers: Record<string, string>;
  readonly body?: string | undefined;
  /** Over the whole call, body included. */
  readonly timeoutMs: number;
  /** Ends the call; it rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

const MAX_BODY_BYTES = 1024 * 1024;

interface HttpAnswer {
  readonly status: number;
  readonly headers: AnswerHeaders;
  readonly text: string;
  /** The body went on after what is in `text`. */
  readonly tooLong: boolean;
}

/** What never goes through a proxy: this machine. */
const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/;

const MOMENTARY: ReadonlySet<number> = new Set([408, 425, 429]);

/** Whether a failing status is about the moment: another try may go better. */
export function isMomentary(status: number): boolean {
  return MOMENTARY.has(status) || status >= 500;
}

/**
 * Kept-alive connections to one origin, through the proxy of HTTPS_PROXY or HTTP_PROXY unless NO_PROXY leaves it out.
 * @param connections must not be below the calls made at a time: a call's clock runs while it queues
 * @throws {UsageError} for a proxy that is no URL
 */
export function createAgent(base: URL, connections: number, timeoutMs: number): Dispatcher {
  const connect = { timeout: Math.min(CONNECT_TIMEOUT_MS, timeoutMs) };
  // Each call has its own clock over all of its phases.
  const options = { connections, connect, headersTimeout: 0, bodyTimeout: 0 };
  if (LOOPBACK.test(base.hostname)) return new Agent(options);
  for (const name of ['https_proxy', 'HTTPS_PROXY', 'http_proxy', 'HTTP_PROXY']) {
    // The value is not shown: it may hold a password.
    if (!/^(https?:\/\/[^/]|$)/.test(process.env[name] ?? ''))
      throw new UsageError(`${name}: expected the proxy's URL, such as http://proxy.example.com:3128`);
  }
  return new EnvHttpProxyAgent({ ...options, requestTls: connect, proxyTls: connect });
}

/**
 * One call. Redirects are not followed: the token goes nowhere else. Failures say whether the request can have reached
 * the service, see errors.ts.
 * @throws {ConnectionError} nothing was sent
 * @throws {InterruptedError} or {TimeoutError}: it was, or may have been
 */
export async function sendHttp(agent: Dispatcher, request: HttpRequest): Promise<HttpAnswer> {
  const { call, target, timeoutMs, signal } = request;
  signal?.throwIfAborted();
  const state: ExchangeState = { isSent: false, isLate: false, end: () => undefined };
  const stopTimer = startTimer(timeoutMs, () => {
    state.isLate = true;
    state.end(new Error('timed out'));
  });
  const abort = () => {
    if (signal !== undefined) state.end(abortReason(signal));
  };
  signal?.addEventListener('abort', abort, { once: true });
  try {
    return await exchange(agent, request, state);
  } catch (error) {
    signal?.throwIfAborted();
    if (!state.isLate) throw toTypedError(call, error, state.isSent, target);
    if (!state.isSent) throw new ConnectionError(call, `no connection within ${timeoutMs} ms`, error);
    throw new TimeoutError(call, `no complete answer within ${timeoutMs} ms`, error);
  } finally {
    stopTimer();
    signal?.removeEventListener('abort', abort);
  }
}

/** Two of these are made for each image, so the body is collected as it comes, without a stream around it. */
function exchange(
  agent: Dispatcher,
  { call, target, headers, body }: HttpRequest,
  state: ExchangeState,
): Promise<HttpAnswer> {
  const { origin, pathname, search } = target;
  const options = { origin, path: pathname + search, method: call.method, headers, body: body ?? null };
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    let status = 0;
    let answered: AnswerHeaders = {};
    let controller: Dispatcher.DispatchController | undefined;
    let endReason: Error | undefined;
    const settle = () => {
      const text = Buffer.concat(chunks).toString('utf8', 0, MAX_BODY_BYTES);
      resolve({ status, headers: answered, text, tooLong: bytes > MAX_BODY_BYTES });
    };
    state.end = (reason) => {
      endReason = reason;
      reject(reason);
      controller?.abort(reason);
    };
    agent.dispatch(options, {
      onRequestStart: (started) => {
        controller = started;
        // The first byte is about to be written: from then on a submit may be paid.
        state.isSent = endReason === undefined;
        if (endReason !== undefined) started.abort(endReason);
      },
      onResponseStart: (_controller, code, fields) => {
        // Before 200 it is a word on the way, and the answer is still to come.
        if (code < 200) return;
        status = code;
        answered = firstValues(fields);
      },
      onResponseData: (_controller, chunk) => {
        chunks.push(chunk);
        bytes += chunk.length;
        if (bytes <= MAX_BODY_BYTES) return;
        settle();
        controller?.abort(new Error('the body is too long'));
      },
      onResponseEnd: settle,
      onResponseError: (_controller, error) => {
        // A failing status is an answer by itself, whatever became of the body behind it.
        if (status >= 400) settle();
        else reject(error);
      },
    });
  });
}

interface ExchangeState {
  isSent: boolean;
  isLate: boolean;
  /** Gives the call up, wherever it is. Nothing is sent any more if it still waits for a connection. */
  end: (reason: Error) => void;
}

function toTypedError(call: ApiCall, error: unknown, isSent: boolean, target: URL): DescribeApiError {
  const message = messageOf(error);
  // The code where the message lacks it (or is empty, as with several addresses).
  const isCoded = isSystemError(error) && !message.includes(error.code);
  const text = isCoded ? `${message} (${error.code})`.trim() : message;
  // A request that undici refuses to build would be refused forever: no connection problem.
  if (isSystemError(error) && error.code === 'UND_ERR_INVALID_ARG')
    return new DescribeApiError(call, text, error);
  if (isSent) return new InterruptedError(call, text, error);
  const why = whyNotConnected(error, target);
  return new ConnectionError(call, why === undefined ? text : `${why} [${text}]`, error);
}

const systemErrorSchema = z.object({
  code: z.string(),
  hostname: z.string().optional(),
  address: z.string().optional(),
  port: z.number().optional(),
});
const NO_TLS = /^(EPROTO|ERR_SSL_\w+)$/;

/** Why there was no connection and what helps, in words; undefined where the error says it by itself. */
function whyNotConnected(error: unknown, { hostname, host, port, protocol }: URL): string | undefined {
  const proxyAnswer = /^Proxy response \((\d+)\)/.exec(messageOf(error))?.[1];
  if (proxyAnswer !== undefined)
    return `the proxy answers ${proxyAnswer}: is HTTPS_PROXY or HTTP_PROXY right, with its user and password? NO_PROXY=${hostname} goes past it`;
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error;
  const about = systemErrorSchema.safeParse(first).data;
  if (about === undefined) return undefined;
  const wantedPort = port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port);
  const isProxy = (about.hostname ?? hostname) !== hostname || (about.port ?? wantedPort) !== wantedPort;
  const isRight = isProxy ? 'are HTTPS_PROXY and HTTP_PROXY right?' : 'is --api right?';
  const { code } = about;
  if (code === 'ENOTFOUND') return `there is no host ${about.hostname ?? hostname}: ${isRight}`;
  if (code === 'EAI_AGAIN')
    return `no name server answers for ${about.hostname ?? hostname}: is this machine on the network?`;
  if (code === 'ECONNREFUSED') {
    const where = about.address === undefined ? host : `${about.address}:${about.port ?? ''}`;
    return `nothing listens at ${where}: is the server running, and ${isRight}`;
  }
  if (NO_TLS.test(code)) return `${host} does not speak TLS: http:// in place of https://?`;
  return untrustedText(code, host);
}

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
    if (body === undefined) {
      const isPage = pageIn(answer) !== undefined;
      throw new ResponseShapeError(call, 'JSON', answer.text || 'an empty body', isPage);
    }
    return body;
  }
  throw refusalOf(answer, body, call, dialect, { status, refused, isSubmit, about: own?.about });
}

function refusalOf(
  answer: HttpAnswer,
  body: unknown,
  call: ApiCall,
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
  const words = [status < 300 ? undefined : statusText(status), about === 'page' ? page : said];
  const reason = words.filter((text) => text !== undefined).join(': ');
  const now = Date.now();
  const retryAfterMs = retryAfterIn(answer.headers, now) ?? dialect.restMs?.(answer.headers, now);
  return new StatusError(call, { status, refused, about, reason, retryAfterMs });
}
