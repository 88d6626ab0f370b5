import { Agent } from 'undici';
import { isSystemError, messageOf } from '../shared/errors.js';
import { startTimer } from '../shared/timer.js';
import { abortReason } from '../shared/unless-aborted.js';
import { type ApiCall, ConnectionError, DescribeApiError, InterruptedError, TimeoutError } from './errors.js';
import { Exchange, type HttpAnswer } from './exchange.js';

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
  /** Called when the request goes out: a connection may have been waited for until then. */
  readonly onSent?: (() => void) | undefined;
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
    const exchange = new Exchange(request.onSent);
    let timedOut = false;
    const stopTimer = startTimer(request.timeoutMs, () => {
      timedOut = true;
      exchange.end(new Error('timed out'));
    });
    const abort = (): void => {
      if (signal !== undefined) exchange.end(abortReason(signal));
    };
    signal?.addEventListener('abort', abort, { once: true });
    try {
      this.dispatch(request, exchange);
      return await exchange.answer;
    } catch (error) {
      signal?.throwIfAborted();
      throw this.toTypedError(request, error, { sent: exchange.isSent, timedOut });
    } finally {
      stopTimer();
      signal?.removeEventListener('abort', abort);
    }
  }

  /** Waits for the calls under way, then closes the connections. */
  async close(): Promise<void> {
    this.closing ??= this.agent.close();
    await this.closing;
  }

  private dispatch({ call, target, headers, body }: HttpRequest, exchange: Exchange): void {
    const { origin, pathname, search } = target;
    // Whether it must wait for a connection is undici's affair: it tells of everything else by the exchange.
    this.agent.dispatch(
      { origin, path: pathname + search, method: call.method, headers, body: body ?? null },
      exchange,
    );
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
