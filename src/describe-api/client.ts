import type { Dispatcher } from 'undici';
import pLimit, { type LimitFunction } from 'p-limit';
import { UsageError } from '../shared/errors.js';
import { sleep, unlessAborted } from '../shared/waiting.js';
import { backoffMs, judgePollFailure } from './attempt-policy.js';
import type { CompletedMessage, Message, Submitted } from './dialects/dialect.js';
import {
  ANSWER_FORMATS,
  type AnswerFormat,
  type Dialect,
  type DialectName,
  type DialectSettings,
  type SubmitRequest,
  checkSettings,
  dialectFor,
} from './dialects/index.js';
import {
  type ApiCall,
  DeadlineError,
  DescribeApiError,
  FormatRefusedError,
  MessageFailedError,
  type Redact,
  redactorOf,
  RefusalError,
  RejectedError,
} from './errors.js';
import { isOfFormat } from './refusals.js';
import { type HttpRequest, createAgent, readAnswer, sendHttp } from './http.js';
import { type CallHeaders, callHeaders, secretsIn } from './request-headers.js';
import type { AnswerHeaders } from './retry-after.js';

export type { CompletedMessage, Message, SubmitRequest, Submitted } from './dialects/dialect.js';

export interface DescribeClientOptions extends DialectSettings, CallHeaders {
  /** The API's base, such as `https://api.thenextleg.io/v2`, with or without a slash at its end. A query is kept on every call. */
  readonly baseUrl: string;
  /** Without one no credentials are sent. */
  readonly token?: string | undefined;
  /** Name of a dialect, or one of your own; that of the API's host unless it is given, else `thenextleg`. */
  readonly dialect?: DialectName | Dialect | undefined;
  /** Over a whole call (30 s; over a submit of a synchronous dialect its deadline). Above 0; `Infinity` is no limit. */
  readonly timeoutMs?: number | undefined;
  /** HTTP calls, and connections, at a time; other calls queue without their clock running. `Infinity` is no limit. */
  readonly maxConcurrent?: number | undefined;
}

/** More than a machine has ports. */
const MOST_CONNECTIONS = 65_536;
const DEFAULTS = { timeoutMs: 30_000, synchronousTimeoutMs: 10 * 60_000, maxConcurrent: 64 } as const;

/** Of the polls that `describe` makes. */
const DEADLINE_MS = 20 * 60_000;
const SHORTEST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 10_000;
const DELAY_GROWTH = 0.15;

const CONTENT = { 'content-type': 'application/json' } as const;

export interface WaitProgress {
  readonly messageId: string;
  /** 0..100. */
  readonly progress: number;
}

/** What `DescribeClient.describe` takes beside the image. */
export interface DescribeOptions {
  /** Told back with the message, where the dialect has it. */
  readonly ref?: string | undefined;
  /** Ends the waiting, which then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds from the submit to its completion; 20 minutes. */
  readonly deadlineMs?: number | undefined;
  /** Called with the message as soon as it is submitted, and at each change of its progress. What it throws ends the wait. */
  readonly onProgress?: ((progress: WaitProgress) => void) | undefined;
}

function parseBaseUrl(text: string): { readonly base: string; readonly query: URLSearchParams } {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || url.hash) {
    // The text is not shown: whatever is in it besides a URL may be a secret.
    throw new UsageError('API URL: expected an http(s) URL without user name, password and fragment');
  }
  return { base: `${url.origin}${url.pathname}`.replace(/\/+$/, ''), query: url.searchParams };
}

function checkToken(token: string | undefined): void {
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
    throw new UsageError('API token: expected visible ASCII characters without spaces');
  }
}

/**
 * The describe API, in any of its dialects. `submit` and `message` are one HTTP call each: rates, retries and
 * waiting are the caller's, or `describe`'s for a single image. All methods throw the errors of errors.ts, in
 * which the token never is.
 */
export class DescribeClient {
  readonly dialect: Dialect;
  /** How answers are asked for at the moment: looser, once the API has refused what was asked. */
  answerFormat: AnswerFormat;
  private readonly base: string;
  /** Of every call. */
  private readonly query: URLSearchParams;
  private readonly headers: Record<string, string>;
  private readonly redact: Redact;
  private readonly limit: LimitFunction;
  private readonly agent: Dispatcher;
  private closing: Promise<void> | undefined;

  /** @throws {UsageError} for a base URL, a token, a dialect or a limit that cannot work */
  constructor(private readonly options: DescribeClientOptions) {
    const { baseUrl, dialect } = options;
    checkToken(options.token);
    ({ base: this.base, query: this.query } = parseBaseUrl(baseUrl));
    this.dialect = typeof dialect === 'object' ? dialect : dialectFor({ dialect, api: baseUrl });
    checkSettings(this.dialect, options);
    this.headers = callHeaders(this.dialect, options.token, options);
    this.answerFormat = options.format ?? 'json_schema';
    checkWait('timeoutMs', options.timeoutMs);
    const { maxConcurrent = DEFAULTS.maxConcurrent } = options;
    if (!(maxConcurrent >= 1) || (maxConcurrent !== Infinity && !Number.isInteger(maxConcurrent)))
      throw new UsageError(`maxConcurrent ${maxConcurrent}: expected a whole number of at least 1`);
    this.redact = redactorOf(options.token, ...secretsIn(options, this.query));
    const connections = Math.min(maxConcurrent, MOST_CONNECTIONS);
    this.limit = pLimit(connections);
    this.agent = createAgent(new URL(this.base), connections, options.timeoutMs ?? DEFAULTS.timeoutMs);
  }

  /**
   * The paid call. It cannot be aborted: once sent, its answer is paid for, and is waited for up to `timeoutMs`.
   * @param about.deadlineMs how long a synchronous dialect may take for its answer, where the client has no
   *   `timeoutMs` of its own; 10 minutes
   * @returns the message to poll; with a synchronous dialect (or a service that is quick) its outcome as well
   * @throws {UsageError} for a deadline that is not above 0; {DescribeApiError} for `judgeSubmitFailure`
   */
  async submit(
    request: SubmitRequest,
    { deadlineMs }: { readonly deadlineMs?: number | undefined } = {},
  ): Promise<Submitted> {
    checkWait('deadlineMs', deadlineMs);
    const { dialect, options, answerFormat: format } = this;
    const body = dialect.submitBody(request, { ...options, format });
    const isGet = options.submitMethod === 'get';
    const call = this.call(isGet ? 'GET' : 'POST', dialect.submitUrl(this.base));
    const target = this.targetOf(call, isGet ? this.fieldsOf(body) : []);
    const timeoutMs = this.submitTimeoutMs(deadlineMs);
    // By GET the token is in the query, and in no header.
    const headers = isGet ? callHeaders(dialect, undefined, options) : { ...this.headers, ...CONTENT };
    const { body: answered, headers: answeredWith } = await this.send(
      { call, target, headers, body: isGet ? undefined : JSON.stringify(body), timeoutMs },
      { isSubmit: true },
    ).catch((error: unknown) => {
      throw this.refusedFormat(error, format, call) ?? error;
    });
    const restMs = dialect.restMs?.(answeredWith, Date.now());
    return { ...dialect.readSubmitted(answered, call, options), ...(restMs !== undefined && { restMs }) };
  }

  /**
   * Polls a message once.
   * @param about.signal ends the poll, which then rejects with the signal's reason
   * @throws {DescribeApiError} for `judgePollFailure`; {RejectedError} with a synchronous dialect, which has no messages
   */
  async message(messageId: string, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<Message> {
    const { messageUrl, readMessage, expireParameter } = this.dialect;
    if (messageUrl === undefined || readMessage === undefined) {
      const reason = `the ${this.dialect.name} dialect has no messages`;
      throw new RejectedError(this.call('GET', this.base), { status: 404, reason });
    }
    const call = this.call('GET', messageUrl(this.base, messageId));
    const { expireMins } = this.options;
    const isExpiring = expireMins !== undefined && expireParameter !== undefined;
    const target = this.targetOf(call, isExpiring ? [[expireParameter, String(expireMins)]] : []);
    return readMessage(await this.poll({ call, target, headers: this.headers, signal }), messageId, call);
  }

  /**
   * Polls many messages by one call.
   * @returns those that its answer tells of; the others can only be asked for alone
   * @throws as `message`; {RejectedError} with a dialect that has no `list`
   */
  async messages(
    messageIds: readonly string[],
    { signal }: { signal?: AbortSignal | undefined } = {},
  ): Promise<ReadonlyMap<string, Message>> {
    const { list } = this.dialect;
    const call = this.call('POST', list?.url(this.base) ?? this.base);
    if (list === undefined)
      throw new RejectedError(call, { status: 404, reason: `${this.dialect.name} has no lists of messages` });
    const headers = { ...this.headers, ...CONTENT };
    const body = JSON.stringify(list.body(messageIds));
    return list.read(await this.poll({ call, target: this.targetOf(call, []), headers, body, signal }), call);
  }

  /**
   * Submits an image once and waits for its prompts. Failed polls are repeated; the submit is not, since it may have
   * been paid for: that is the caller's to decide, by the error.
   * @param url an image on the web; the service downloads it
   * @throws {UsageError} before anything is paid, for a deadline that is not above 0
   * @throws {DescribeApiError} when the submit fails, or a poll is refused the token
   * @throws {MessageFailedError} when the message expires or fails
   * @throws {DeadlineError} when it is not completed in time; both name the message
   * @throws the signal's reason when it aborts; a submit on the wire is awaited before
   * @throws what `onProgress`, or a dialect of the caller's, throws, as soon as it does: `onProgress` has had the message
   */
  async describe(url: string, { ref, ...waiting }: DescribeOptions = {}): Promise<CompletedMessage> {
    waiting.signal?.throwIfAborted();
    const startedAt = performance.now();
    const submitted = await this.submit({ url, ref }, waiting);
    waiting.onProgress?.({ messageId: submitted.messageId, progress: submitted.completed ? 100 : 0 });
    if (submitted.completed !== undefined) return submitted.completed;
    return this.waitForMessage(submitted.messageId, startedAt, waiting);
  }

  /** @param startedAt when it was submitted, by `performance.now()` */
  private async waitForMessage(
    messageId: string,
    startedAt: number,
    { signal, deadlineMs = DEADLINE_MS, onProgress }: DescribeOptions,
  ): Promise<CompletedMessage> {
    const call = this.call('GET', this.dialect.messageUrl?.(this.base, messageId) ?? this.base);
    let reported = 0;
    let failures = 0;
    let failure: DescribeApiError | undefined;
    let delayMs = SHORTEST_DELAY_MS;
    for (;;) {
      const leftMs = startedAt + deadlineMs - performance.now();
      await sleep(Math.min(delayMs, Math.max(0, leftMs)), signal);
      signal?.throwIfAborted();
      let message: Message | undefined;
      try {
        message = await this.message(messageId, { signal });
        [failure, failures] = [undefined, 0];
        // A part of the time waited so far.
        const waitedMs = performance.now() - startedAt;
        delayMs = Math.min(LONGEST_DELAY_MS, Math.max(SHORTEST_DELAY_MS, waitedMs * DELAY_GROWTH));
      } catch (error) {
        signal?.throwIfAborted();
        const verdict = judgePollFailure(error);
        // What no waiting mends: a refused token, and what is not of a call, as a dialect's own error.
        if (verdict.action === 'stop' || !(error instanceof DescribeApiError)) throw error;
        failure = error;
        delayMs = Math.max(verdict.retryAfterMs ?? 0, backoffMs(++failures, Math.random()));
      }
      if (message?.status === 'incomplete') {
        const reason = message.reason ?? 'the message expired before it was completed';
        throw new MessageFailedError(call, messageId, reason);
      }
      const progress = message?.status === 'completed' ? 100 : (message?.progress ?? 0);
      if (progress > reported) onProgress?.({ messageId, progress: (reported = progress) });
      if (message?.status === 'completed') return message;
      if (leftMs <= 0)
        throw new DeadlineError(call, messageId, `not completed within ${deadlineMs / 1000} s`, failure);
    }
  }

  /** Waits for the calls under way (their own timeouts bound that), then closes the connections. */
  async close(): Promise<void> {
    await (this.closing ??= this.agent.close());
  }

  /** Asks for answers in the next looser format from now on, where a submit was refused for its own. */
  private refusedFormat(error: unknown, format: AnswerFormat, call: ApiCall): FormatRefusedError | undefined {
    const looser = ANSWER_FORMATS[ANSWER_FORMATS.indexOf(format) + 1];
    if (this.dialect.takesModel !== true || looser === undefined || !(error instanceof RefusalError))
      return undefined;
    const { status, about, reason } = error;
    const isOfRequest = status >= 400 && status < 500 && about !== 'rate' && about !== 'moment';
    if (!(isOfRequest || error instanceof RejectedError) || !isOfFormat(reason)) return undefined;
    // Calls that were under way together are refused together.
    if (this.answerFormat === format) this.answerFormat = looser;
    return new FormatRefusedError(call, `${reason}: asking with ${this.answerFormat}`);
  }

  private call(method: ApiCall['method'], url: string): ApiCall {
    return { method, url, redact: this.redact };
  }

  /** Where a call goes: the base URL's query is on every one. */
  private targetOf({ url }: ApiCall, parameters: readonly (readonly [string, string])[]): URL {
    const target = new URL(url);
    for (const [name, value] of this.query) target.searchParams.append(name, value);
    for (const [name, value] of parameters) target.searchParams.set(name, value);
    return target;
  }

  /** The token and the fields of a submit, as parameters of a query. */
  private fieldsOf(fields: Record<string, unknown>): [string, string][] {
    const { token } = this.options;
    const parameter = this.dialect.getTokenParameter;
    const given = Object.entries(fields).filter(([, value]) => value !== undefined);
    const texts = given.map(([name, value]): [string, string] => [name, String(value)]);
    return token && parameter !== undefined ? [[parameter, token], ...texts] : texts;
  }

  private submitTimeoutMs(deadlineMs: number | undefined): number {
    const { timeoutMs } = this.options;
    if (timeoutMs !== undefined) return timeoutMs;
    const isSynchronous = this.dialect.messageUrl === undefined;
    return isSynchronous ? (deadlineMs ?? DEFAULTS.synchronousTimeoutMs) : DEFAULTS.timeoutMs;
  }

  private async poll(request: Omit<HttpRequest, 'timeoutMs'>): Promise<unknown> {
    const { timeoutMs = DEFAULTS.timeoutMs } = this.options;
    return (await unlessAborted(this.send({ ...request, timeoutMs }), request.signal)).body;
  }

  private async send(
    request: HttpRequest,
    about: { readonly isSubmit?: boolean } = {},
  ): Promise<{ readonly body: unknown; readonly headers: AnswerHeaders }> {
    const answer = await this.limit(() => sendHttp(this.agent, request));
    return { body: readAnswer(answer, request.call, this.dialect, about), headers: answer.headers };
  }
}

/** @throws {UsageError} unless it can be waited for: above 0; `Infinity` is no limit */
function checkWait(name: string, ms: number | undefined): void {
  if (ms === undefined || ms > 0) return;
  throw new UsageError(`${name} ${ms}: expected milliseconds above 0`);
}
