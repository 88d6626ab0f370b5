import { inspect } from 'node:util';
import { messageOf } from '../shared/errors.js';
import { type About, aboutOf } from './refusals.js';

/** The HTTP call an error is about. */
export interface ApiCall {
  readonly method: 'GET' | 'POST';
  /** Without its query: with `GET /describe` the token is in there. */
  readonly url: string;
  readonly redact: Redact;
}

/** In tokens. */
export interface Usage {
  readonly inputTokens: number;
  readonly outputTokens: number;
}

const REASON_LENGTH = 300;
const EXCERPT_LENGTH = 160;
const ANSWER_LENGTH = 8000;

/**
 * A call of the describe API failed. Neither the message nor the cause ever holds the token: both are
 * redacted here, whatever they are made of.
 */
export class DescribeApiError extends Error {
  override name = 'DescribeApiError';
  readonly method: string;
  readonly url: string;
  /** What went wrong, on one line, without method and URL. */
  readonly reason: string;

  constructor(call: ApiCall, reason: string, cause?: unknown) {
    const line = excerptOf(reason, REASON_LENGTH, call.redact);
    const options = cause === undefined ? undefined : { cause: redactCause(cause, call.redact) };
    super(`${call.method} ${call.redact(call.url)}: ${line}`, options);
    this.method = call.method;
    this.url = call.redact(call.url);
    this.reason = line;
  }
}

/** There was no connection (DNS, refused, TLS, connect timeout): nothing was sent, so nothing was paid. */
export class ConnectionError extends DescribeApiError {
  override name = 'ConnectionError';
}

/** The connection broke after the request was begun: a submit may have been paid. */
export class InterruptedError extends DescribeApiError {
  override name = 'InterruptedError';
}

/** No complete answer came in time after the request was begun: a submit may have been paid. */
export class TimeoutError extends InterruptedError {
  override name = 'TimeoutError';
}

class AnswerError extends DescribeApiError {}

/** An answer that is no message. */
export class RefusalError extends AnswerError {
  readonly status: number;
  /** The body said `success: false`: the service has answered, and did not take the request. */
  readonly refused: boolean;
  /** Whom or what the answer speaks of: a refusal may be one of the moment, or of all images. */
  readonly about: About;
  /** What `Retry-After` asks for, in milliseconds from now. */
  readonly retryAfterMs: number | undefined;

  /** @param facts.about by its reason and status unless it is given */
  constructor(call: ApiCall, facts: RefusalFacts) {
    const { status, reason, refused } = facts;
    super(call, reason);
    this.status = status;
    this.refused = refused;
    this.about = facts.about ?? aboutOf({ status, refused, said: reason });
    this.retryAfterMs = facts.retryAfterMs;
  }
}

interface RefusalFacts {
  readonly status: number;
  readonly reason: string;
  readonly refused: boolean;
  readonly about?: About | undefined;
  readonly retryAfterMs?: number | undefined;
}

/** An HTTP status that is no success and no refusal of this very request. */
export class StatusError extends RefusalError {
  override name = 'StatusError';
}

/** The service refuses this request: `success: false` with any reason, or 400, 410, 413, 415, 422, 451, or a 404 about the image. */
export class RejectedError extends RefusalError {
  override name = 'RejectedError';
  /** What a model's refusal has cost all the same. */
  readonly usage: Usage | undefined;

  constructor(call: ApiCall, facts: Omit<RefusalFacts, 'refused'> & { usage?: Usage | undefined }) {
    super(call, { ...facts, refused: true });
    this.usage = facts.usage;
  }
}

/** There are no prompts of a message. */
class MessageError extends DescribeApiError {
  constructor(
    call: ApiCall,
    readonly messageId: string,
    reason: string,
    cause?: unknown,
  ) {
    super(call, reason, cause);
  }
}

/** A message has come to its end without prompts: it has expired, or the service says why it failed. */
export class MessageFailedError extends MessageError {
  override name = 'MessageFailedError';
}

/** A message was not completed in the time that the caller has for it; it may be later. */
export class DeadlineError extends MessageError {
  override name = 'DeadlineError';
}

/** A success whose body is no JSON or not the promised shape: a submit may have been paid. */
export class ResponseShapeError extends AnswerError {
  override name = 'ResponseShapeError';

  /**
   * @param body what came, parsed or as text
   * @param isPage it is a page, of something in front of the API
   */
  constructor(
    call: ApiCall,
    expected: string,
    body: unknown,
    readonly isPage = false,
  ) {
    super(call, `expected ${expected}, got ${excerptOf(showBody(body), EXCERPT_LENGTH, call.redact)}`);
  }
}

/** The API does not take the format of answers that it was asked for, and has described nothing: a looser one is used from now on. */
export class FormatRefusedError extends AnswerError {
  override name = 'FormatRefusedError';
}

/** A model was paid for an answer that does not hold what it was asked for. */
export class UnreadableAnswerError extends AnswerError {
  override name = 'UnreadableAnswerError';
  /** The answer with its line ends; of a long one the first 8,000 characters. */
  readonly answer: string;
  /** It says that it will not, or cannot: it would say so again. */
  readonly isRefusal: boolean;

  /** What is wrong with it, for the model. */
  readonly wrong: string;
  readonly usage: Usage | undefined;

  /** @param about.expected what an answer is to hold, in words */
  constructor(
    call: ApiCall,
    about: {
      answer: string;
      isRefusal: boolean;
      /** What cut it off: `at the length limit`. */
      cutOff: string | undefined;
      expected: string;
      wrong: string;
      usage: Usage | undefined;
    },
  ) {
    const cut = about.cutOff === undefined ? '' : ` (it was cut off ${about.cutOff})`;
    const excerpt = excerptOf(about.answer, EXCERPT_LENGTH, call.redact) || 'an empty one';
    const reason = `expected an answer that holds ${about.expected}${cut}, got ${excerpt}`;
    super(call, about.isRefusal ? `the model refuses: ${about.answer}` : reason);
    // Not half of a surrogate pair at the end.
    this.answer = call
      .redact(about.answer)
      .slice(0, ANSWER_LENGTH)
      .replace(/[\uD800-\uDBFF]$/, '');
    this.isRefusal = about.isRefusal;
    this.wrong = about.cutOff !== undefined ? 'it was cut off: be shorter' : about.wrong;
    this.usage = about.usage;
  }
}

/** Whether an answer that was kept lacks its end: it was cut off by the server, or for being so long. */
export function isKeptCut({ answer = '', reason }: { answer?: string | undefined; reason: string }): boolean {
  // Half of a surrogate pair may have been taken off a long one.
  return / \(it was cut off [a-z ]+\), got /.test(reason) || answer.length >= ANSWER_LENGTH - 1;
}

/** The API does not do what is asked for, whatever the image is: other settings are needed. */
export class SetUpError extends AnswerError {
  override name = 'SetUpError';
}

/** Whether something answered at all, be it with a refusal or with nonsense. */
export function isAnswer(error: unknown): boolean {
  return error instanceof AnswerError;
}

/** Whether a call came no farther than to what is in front of the API. */
export function isUnreachable(error: unknown): boolean {
  if (error instanceof ResponseShapeError) return error.isPage;
  return error instanceof ConnectionError || (error instanceof StatusError && error.about === 'page');
}

/** Takes what may not be shown out of a text. */
export type Redact = (text: string) => string;

const MASK = '[token]';

/** A redactor for secrets, in each of the forms in which they can come back: plain, URL-encoded, in JSON. */
export function redactorOf(...secrets: readonly (string | undefined)[]): Redact {
  const forms = secrets.flatMap((secret) => (secret ? formsOf(secret) : []));
  if (forms.length === 0) return (text) => text;
  const longestFirst = [...new Set(forms)].sort((a, b) => b.length - a.length);
  return (text) => longestFirst.reduce((rest, form) => rest.replaceAll(form, MASK), text);
}

function formsOf(secret: string): string[] {
  const formEncoded = new URLSearchParams({ t: secret }).toString().slice(2);
  return [secret, encodeURIComponent(secret), formEncoded, JSON.stringify(secret).slice(1, -1)];
}

/**
 * The cause to keep of an error: itself, or a copy of its message when anything in it shows the token (a
 * parser's error holds the bytes it choked on, and a server may echo what it was sent).
 */
function redactCause(cause: unknown, redact: Redact): unknown {
  const shown = inspect(cause, { depth: Infinity, maxStringLength: null, maxArrayLength: null });
  if (redact(shown) === shown) return cause;
  return new Error(redact(messageOf(cause)));
}

/**
 * A text on one line and short enough to show: control characters and runs of white space become one space.
 * Redacted before it is cut, since half a token is a token too.
 */
export function excerptOf(text: string, maxLength: number, redact: Redact): string {
  const line = redact(text)
    .replace(/[\s\p{Cc}]+/gu, ' ')
    .trim();
  return line.length > maxLength ? `${line.slice(0, maxLength - 1)}…` : line;
}

/** Any parsed body as text; unlike JSON it can show everything, however deep. */
function showBody(body: unknown): string {
  if (typeof body === 'string') return body;
  return inspect(body, { depth: 3, breakLength: Infinity, maxStringLength: null });
}
