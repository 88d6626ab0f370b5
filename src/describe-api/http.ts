import { Agent, type Dispatcher } from 'undici';
import { isSystemError, messageOf } from '../shared/errors.js';
import { abortReason, startTimer } from '../shared/waiting.js';
import { type ApiCall, ConnectionError, DescribeApiError, InterruptedError, TimeoutError } from './errors.js';
import type { AnswerHeaders } from './retry-after.js';

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

export interface HttpAnswer {
  readonly status: number;
  /** By their names in lower case; the first value of one that comes several times. */
  readonly headers: AnswerHeaders;
  readonly text: string;
  /** The body went on after what is in `text`. */
  readonly tooLong: boolean;
}

/**
 * Kept-alive connections to one origin.
 * @param connections must not be below the calls made at a time: a call's clock runs while it queues
 */
export function createAgent(connections: number, timeoutMs: number): Agent {
  return new Agent({
    connections,
    connect: { timeout: Math.min(CONNECT_TIMEOUT_MS, timeoutMs) },
    // Each call has its own clock over all of its phases.
    headersTimeout: 0,
    bodyTimeout: 0,
  });
}

/**
 * One call. Redirects are not followed: the token goes nowhere else. Failures say whether the request can have reached
 * the service, see errors.ts.
 * @throws {ConnectionError} nothing was sent
 * @throws {InterruptedError} or {TimeoutError}: it was, or may have been
 */
export async function sendHttp(agent: Agent, request: HttpRequest): Promise<HttpAnswer> {
  const { call, timeoutMs, signal } = request;
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
    if (!state.isLate) throw toTypedError(call, error, state.isSent);
    if (!state.isSent) throw new ConnectionError(call, `no connection within ${timeoutMs} ms`, error);
    throw new TimeoutError(call, `no complete answer within ${timeoutMs} ms`, error);
  } finally {
    stopTimer();
    signal?.removeEventListener('abort', abort);
  }
}

/** Two of these are made for each image, so the body is collected as it comes, without a stream around it. */
function exchange(
  agent: Agent,
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

function toTypedError(call: ApiCall, error: unknown, isSent: boolean): DescribeApiError {
  const message = messageOf(error);
  // The code where the message lacks it (or is empty, as with several addresses).
  const isCoded = isSystemError(error) && !message.includes(error.code);
  const text = isCoded ? `${message} (${error.code})` : message;
  // A request that undici refuses to build would be refused forever: no connection problem.
  if (isSystemError(error) && error.code === 'UND_ERR_INVALID_ARG')
    return new DescribeApiError(call, text, error);
  return isSent ? new InterruptedError(call, text, error) : new ConnectionError(call, text, error);
}

function firstValues(headers: Readonly<Record<string, string | string[] | undefined>>): AnswerHeaders {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value[0] : value]),
  );
}
