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
    const exchange = new Exchange();
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
    // Whether it must wait for a connection is undici's affair: everything else it reports to the exchange.
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

const MAX_BODY_BYTES = 1024 * 1024;

export interface HttpAnswer {
  readonly status: number;
  /** By their names in lower case; the first value of one that comes several times. */
  readonly headers: AnswerHeaders;
  readonly text: string;
  /** The body went on after what is in `text`. */
  readonly tooLong: boolean;
}

type Headers = Readonly<Record<string, string | string[] | undefined>>;

/**
 * One call over HTTP, as undici reports it. Two of these are made for each image, so the body is collected as it
 * comes, without a stream around it.
 */
class Exchange implements Dispatcher.DispatchHandler {
  /** Rejects with undici's error, or with the reason of `end`. */
  readonly answer: Promise<HttpAnswer>;
  #resolve: (answer: HttpAnswer) => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;
  #controller: Dispatcher.DispatchController | undefined;
  #isSent = false;
  #endReason: Error | undefined;
  #status = 0;
  #headers: Headers = {};
  #chunks: Buffer[] = [];
  #bytes = 0;

  constructor() {
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Whether the request's first byte was about to be written: from then on a submit may be paid. */
  get isSent(): boolean {
    return this.#isSent;
  }

  /** Gives the call up, wherever it is. Nothing is sent any more if it was still waiting for a connection. */
  end(reason: Error): void {
    this.#endReason = reason;
    this.#reject(reason);
    this.#controller?.abort(reason);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#endReason !== undefined) controller.abort(this.#endReason);
    else this.#isSent = true;
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: Headers): void {
    // Before 200 it is a word on the way, and the answer is still to come.
    if (status < 200) return;
    this.#status = status;
    this.#headers = headers;
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes <= MAX_BODY_BYTES) return;
    this.#settle();
    controller.abort(new Error('the body is too long'));
  }

  onResponseEnd(): void {
    this.#settle();
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    // A failing status is an answer by itself, whatever became of the body behind it.
    if (this.#status < 400 || this.#endReason !== undefined) this.#reject(error);
    else
      this.#resolve({ status: this.#status, headers: firstValues(this.#headers), text: '', tooLong: false });
  }

  #settle(): void {
    const text = this.#text();
    const tooLong = this.#bytes > MAX_BODY_BYTES;
    this.#resolve({ status: this.#status, headers: firstValues(this.#headers), text, tooLong });
  }

  #text(): string {
    const [first] = this.#chunks;
    const body = this.#chunks.length === 1 && first !== undefined ? first : Buffer.concat(this.#chunks);
    return body.toString('utf8', 0, MAX_BODY_BYTES);
  }
}

function firstValues(headers: Headers): AnswerHeaders {
  const first: Record<string, string | undefined> = {};
  for (const name in headers) {
    const value = headers[name];
    first[name.toLowerCase()] = Array.isArray(value) ? value[0] : value;
  }
  return first;
}
