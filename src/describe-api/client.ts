import pLimit, { type LimitFunction } from 'p-limit';
import { UsageError } from '../shared/errors.js';
import { readAnswer } from './answers.js';
import type { ApiCall } from './errors.js';
import { type HttpRequest, HttpTransport, untilAborted } from './http.js';
import { type Redact, redactorOf } from './redact.js';
import { type Message, parseMessage, parseSubmitted, type Submitted } from './shapes.js';
import type { WireSubmit } from './wire.js';

export type { CompletedMessage, Message, Submitted } from './shapes.js';

export interface DescribeClientOptions {
  /** The API's base, such as `https://api.thenextleg.io/v2`, with or without a slash at its end. */
  readonly baseUrl: string;
  /** Without one no credentials are sent. */
  readonly token?: string | undefined;
  /** `get` puts everything, the token included, into the query: for services that can only GET. */
  readonly submitMethod?: 'post' | 'get' | undefined;
  /** Over a whole submit, and a whole poll unless `pollTimeoutMs` says otherwise. */
  readonly timeoutMs?: number | undefined;
  readonly pollTimeoutMs?: number | undefined;
  /** After how many minutes the API is to count a message as incomplete; its own default is 12. */
  readonly expireMins?: number | undefined;
  /** Open connections at most; never more than calls at a time. */
  readonly maxConnections?: number | undefined;
  /** HTTP calls at a time; others wait their turn without their clock running. */
  readonly maxConcurrent?: number | undefined;
}

const DEFAULTS = { timeoutMs: 30_000, maxConcurrent: 64 } as const;

export type SubmitRequest = WireSubmit;

function parseBaseUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash) {
    // The text is not shown: whatever is in it besides a URL may be a secret.
    throw new UsageError('API URL: expected an http(s) URL without user name, password and query');
  }
  return url.href.replace(/\/+$/, '');
}

function checkToken(token: string | undefined): void {
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
    throw new UsageError('API token: expected visible ASCII characters without spaces');
  }
}

/**
 * The describe API. Knows the protocol, not when to call: rates, retries and waiting are the caller's. All
 * methods throw the errors of errors.ts, in which the token never is.
 */
export class DescribeClient {
  private readonly base: string;
  private readonly redact: Redact;
  private readonly timeoutMs: number;
  private readonly limit: LimitFunction;
  private readonly transport: HttpTransport;

  /** @throws {UsageError} for a base URL or a token that cannot work */
  constructor(private readonly options: DescribeClientOptions) {
    checkToken(options.token);
    this.base = parseBaseUrl(options.baseUrl);
    this.redact = redactorOf(options.token);
    this.timeoutMs = options.timeoutMs ?? DEFAULTS.timeoutMs;
    const calls = options.maxConcurrent ?? DEFAULTS.maxConcurrent;
    const connections = Math.min(calls, options.maxConnections ?? calls);
    this.limit = pLimit(connections);
    this.transport = new HttpTransport(connections, this.timeoutMs);
  }

  /**
   * The paid call. It cannot be aborted: once sent, its answer is paid for, and is waited for up to `timeoutMs`.
   * @throws {DescribeApiError} for `judgeSubmitFailure`
   */
  async submit(request: SubmitRequest): Promise<Submitted> {
    const { url, ref, webhookOverride } = request;
    const fields = {
      url,
      ...(ref !== undefined && { ref }),
      ...(webhookOverride !== undefined && { webhookOverride }),
    };
    const call = this.call(this.options.submitMethod === 'get' ? 'GET' : 'POST', '/describe');
    const target = new URL(call.url);
    if (call.method === 'POST') {
      const headers = { ...this.headers(), 'content-type': 'application/json' };
      return parseSubmitted(await this.send({ call, target, headers, body: JSON.stringify(fields) }), call);
    }
    const { token } = this.options;
    target.search = new URLSearchParams({ ...(token && { authToken: token }), ...fields }).toString();
    return parseSubmitted(await this.send({ call, target, headers: { accept: 'application/json' } }), call);
  }

  /**
   * Polls a message once.
   * @param about.signal ends the poll, which then rejects with the signal's reason
   * @throws {DescribeApiError} for `judgePollFailure`
   */
  async message(messageId: string, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<Message> {
    const call = this.call('GET', `/message/${encodeURIComponent(messageId)}`);
    const target = new URL(call.url);
    const { expireMins, pollTimeoutMs } = this.options;
    if (expireMins !== undefined) target.searchParams.set('expireMins', String(expireMins));
    const timeoutMs = pollTimeoutMs ?? this.timeoutMs;
    const body = await untilAborted(
      this.send({ call, target, headers: this.headers(), timeoutMs, signal }),
      signal,
    );
    return parseMessage(body, messageId, call);
  }

  /** Waits for the calls under way (their own timeouts bound that), then closes the connections. */
  async close(): Promise<void> {
    await this.transport.close();
  }

  private call(method: ApiCall['method'], path: string): ApiCall {
    return { method, url: this.base + path, redact: this.redact };
  }

  private headers(): Record<string, string> {
    const { token } = this.options;
    return { accept: 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
  }

  private async send(request: Omit<HttpRequest, 'timeoutMs'> & { timeoutMs?: number }): Promise<unknown> {
    const { timeoutMs = this.timeoutMs } = request;
    const answer = await this.limit(() => this.transport.send({ ...request, timeoutMs }));
    return readAnswer(answer, request.call, Date.now());
  }
}
