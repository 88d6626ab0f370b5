import { Agent, type Dispatcher } from 'undici';
import { isSystemError, messageOf } from '../shared/errors.js';
import { type ApiCall, ConnectionError, DescribeApiError, InterruptedError, TimeoutError } from './errors.js';

const MAX_BODY_BYTES = 1024 * 1024;
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

export interface HttpAnswer {
  readonly status: number;
  /** By their names in lower case; the first value of one that comes several times. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly text: string;
  /** The body went on after what is in `text`. */
  readonly tooLong: boolean;
}

/** Settles like the work, or rejects with the signal's reason as soon as it aborts. */
export async function untilAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  let stop: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => {
      reject(signal.reason instanceof Error ? signal.reason : new Error('aborted', { cause: signal.reason }));
    };
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    if (stop) signal.removeEventListener('abort', stop);
  }
}

function firstValues(
  headers: Readonly<Record<string, string | string[] | undefined>>,
): Readonly<Record<string, string | undefined>> {
  const first = (value: string | string[] | undefined) => (Array.isArray(value) ? value[0] : value);
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name.toLowerCase(), first(value)]),
  );
}

/** Calls `onSent` when a request's first byte is about to be written: from then on a submit may be paid. */
function noteSending(onSent: () => void): Dispatcher.DispatcherComposeInterceptor {
  return (dispatch) => (options, handler) =>
    dispatch(options, {
      onRequestStart: (controller, context) => {
        handler.onRequestStart?.(controller, context);
        if (!controller.aborted) onSent();
      },
      onRequestUpgrade: (...args) => handler.onRequestUpgrade?.(...args),
      onResponseStart: (...args) => handler.onResponseStart?.(...args),
      onResponseData: (...args) => handler.onResponseData?.(...args),
      onResponseEnd: (...args) => handler.onResponseEnd?.(...args),
      onResponseError: (...args) => handler.onResponseError?.(...args),
    });
}

async function readBody(body: AsyncIterable<unknown>): Promise<Pick<HttpAnswer, 'text' | 'tooLong'>> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    if (!Buffer.isBuffer(chunk)) continue;
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) break;
  }
  const text = Buffer.concat(chunks).subarray(0, MAX_BODY_BYTES).toString('utf8');
  return { text, tooLong: bytes > MAX_BODY_BYTES };
}

/** What undici and Node.js say, with the code where the message lacks it (or is empty, as with several addresses). */
function describeFailure(error: unknown): string {
  const text = messageOf(error);
  return isSystemError(error) && !text.includes(error.code) ? `${text} (${error.code})` : text;
}

/**
 * HTTP to one origin over kept-alive connections. Redirects are not followed: the token goes nowhere else.
 * Failures say whether the request can have reached the service, see errors.ts.
 */
export class HttpTransport {
  private readonly agent: Agent;
  private closing: Promise<void> | undefined;

  /** @param maxConnections must not be below the calls made at a time: a call's clock runs while it queues */
  constructor(maxConnections: number, timeoutMs: number) {
    this.agent = new Agent({
      connections: maxConnections,
      connect: { timeout: Math.min(CONNECT_TIMEOUT_MS, timeoutMs) },
      // Each call has its own clock over all of its phases.
      headersTimeout: 0,
      bodyTimeout: 0,
    });
  }

  /**
   * @throws {ConnectionError} nothing was sent
   * @throws {InterruptedError} or {TimeoutError}: it was, or may have been
   */
  async send(request: HttpRequest): Promise<HttpAnswer> {
    const { signal } = request;
    signal?.throwIfAborted();
    const ending = new AbortController();
    const end = (): void => {
      ending.abort(signal?.aborted ? signal.reason : new Error('timed out'));
    };
    const timer = setTimeout(end, request.timeoutMs);
    signal?.addEventListener('abort', end, { once: true });
    let sent = false;
    try {
      const exchange = this.exchange(request, ending.signal, () => (sent = true));
      return await untilAborted(exchange, ending.signal);
    } catch (error) {
      signal?.throwIfAborted();
      throw this.toTypedError(request, error, { sent, timedOut: ending.signal.aborted });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
    }
  }

  /** Waits for the calls under way, then closes the connections. */
  async close(): Promise<void> {
    this.closing ??= this.agent.close();
    await this.closing;
  }

  private async exchange(request: HttpRequest, signal: AbortSignal, onSent: () => void): Promise<HttpAnswer> {
    const { target } = request;
    const response = await this.agent.compose(noteSending(onSent)).request({
      origin: target.origin,
      path: target.pathname + target.search,
      method: request.call.method,
      headers: request.headers,
      body: request.body ?? null,
      signal,
    });
    const headers = firstValues(response.headers);
    try {
      return { status: response.statusCode, headers, ...(await readBody(response.body)) };
    } catch (error) {
      // A failing status is an answer by itself, whatever became of the body behind it.
      if (response.statusCode < 400 || signal.aborted) throw error;
      return { status: response.statusCode, headers, text: '', tooLong: false };
    }
  }

  private toTypedError(
    { call, timeoutMs }: HttpRequest,
    error: unknown,
    { sent, timedOut }: { sent: boolean; timedOut: boolean },
  ): DescribeApiError {
    if (timedOut && sent) return new TimeoutError(call, `no complete answer within ${timeoutMs} ms`, error);
    if (timedOut) return new ConnectionError(call, `no connection within ${timeoutMs} ms`, error);
    const text = describeFailure(error);
    // A request that undici refuses to build would be refused forever: no connection problem.
    if (isSystemError(error) && error.code === 'UND_ERR_INVALID_ARG')
      return new DescribeApiError(call, text, error);
    return sent ? new InterruptedError(call, text, error) : new ConnectionError(call, text, error);
  }
}
