import type { Prompts } from '../../shared/jobs.js';
import type { AnswerShape } from '../answer-shape.js';
import type { ApiCall, Usage } from '../errors.js';
import type { About } from '../refusals.js';
import type { AnswerHeaders } from '../retry-after.js';

export interface SubmitRequest {
  /** Where the API loads the image from; or the image itself, as a `data:` URI. */
  readonly url: string;
  /** What a model is asked of this image, where that is not the same for all. */
  readonly prompt?: string | undefined;
  /** What was wrong with a model's last answer, where it is asked once more. */
  readonly wrong?: string | undefined;
  readonly ref?: string | undefined;
  readonly webhookOverride?: string | undefined;
}

export interface Submitted {
  readonly messageId: string;
  /** The outcome itself, where the service answers with it: there is nothing to be polled. */
  readonly completed?: CompletedMessage | undefined;
  /** For how many milliseconds the service says that it will take no other submit. */
  readonly restMs?: number | undefined;
}

export interface CompletedMessage {
  readonly status: 'completed';
  readonly messageId: string;
  /** The four prompts; with an `AnswerShape` of one's own the value of each of its columns. */
  readonly prompts: Prompts;
  readonly ref?: string | undefined;
  /** What a model says that the answer cost. */
  readonly usage?: Usage | undefined;
}

/**
 * What the API made of a submit so far; `progress` is 0..99, `incomplete` means that it gave up: the message has
 * expired, or failed for a reason.
 */
export type Message =
  | { readonly status: 'working'; readonly progress: number }
  | { readonly status: 'incomplete'; readonly reason?: string | undefined }
  | CompletedMessage;

/** What only some dialects have, and what the client's options say about it. */
export interface DialectSettings {
  /** `get` puts everything, the token included, into the query. */
  readonly submitMethod?: 'post' | 'get' | undefined;
  /** After how many minutes the API is to count a message as incomplete. */
  readonly expireMins?: number | undefined;
  readonly model?: string | undefined;
  /** What the model is asked; what the shape of its answer asks for unless it is given. */
  readonly prompt?: string | undefined;
  /** What it is told before. */
  readonly system?: string | undefined;
  /** What its answer holds; four prompts. */
  readonly answer?: AnswerShape | undefined;
  /** How it is held to that; `json_schema`. */
  readonly format?: AnswerFormat | undefined;
  /** More fields of the request, such as `temperature`; `detail` is the image's. */
  readonly params?: Readonly<Record<string, unknown>> | undefined;
  /** 4 asks the model for four answers of one prompt each; 1 for one that holds all four. */
  readonly choices?: 1 | 4 | undefined;
}

/** What a dialect knows of a refusal; the rest is known by its words. */
export interface Refused {
  /** The HTTP status that stands for it; the answer's own. */
  readonly status?: number;
  readonly about?: About;
}

/** How a model is held to the shape of its answer, the strictest first; each server takes some of them. */
export const ANSWER_FORMATS = ['json_schema', 'json_object', 'words'] as const;

export type AnswerFormat = (typeof ANSWER_FORMATS)[number];

/**
 * One way to speak to a describe API: paths, credentials, field names, status words. It knows neither HTTP nor
 * queues, and keeps nothing: all of it are functions of what they are given.
 */
export interface Dialect {
  /** What `--dialect` takes; part of the account's name, so it is not to be changed. */
  readonly name: string;
  /** Hosts that speak it (with a port where it is not the usual one): the dialect where none is named. */
  readonly hosts: readonly string[];
  readonly api: string;
  /**
   * The URL that takes submits.
   * @param base the API's base URL without a slash at its end
   */
  submitUrl(base: string): string;
  /** The URL of a message; undefined for a synchronous dialect: its submits are answered with the outcome. */
  readonly messageUrl?: (base: string, messageId: string) => string;
  /** The headers of the token; `Authorization: Bearer`. */
  credentials?(token: string): Record<string, string>;
  /** Whether APIs beside `hosts` may be spoken to without a token. */
  readonly isTokenOptional?: boolean;
  /** The query parameter of the token when a submit is a GET; undefined where there is no such form. */
  readonly getTokenParameter?: string;
  /** The query parameter of a poll that takes `expireMins`; undefined where there is none. */
  readonly expireParameter?: string;
  /** Whether `model`, `prompt` and `choices` mean something; a model is required then. */
  readonly takesModel?: boolean;
  /** Whether an image may come as a `data:` URI in place of its URL. */
  readonly takesData?: boolean;
  /** Body of a submit by POST, and the query of one by GET; fields that are undefined are left out. */
  submitBody(request: SubmitRequest, settings: DialectSettings): Record<string, unknown>;
  /**
   * @throws {ResponseShapeError} when it is no answer to a submit; {RejectedError} for a refusal;
   *   {UnreadableAnswerError} when a model has answered with something else than was asked for
   */
  readSubmitted(body: unknown, call: ApiCall, settings: DialectSettings): Submitted;
  /** @throws {ResponseShapeError} when it is no message */
  readonly readMessage?: (body: unknown, messageId: string, call: ApiCall) => Message;
  /** The call for many messages at a time, where there is one. */
  readonly list?: {
    readonly most: number;
    url(base: string): string;
    body(messageIds: readonly string[]): object;
    /**
     * @returns the messages that can be read, by their ids
     * @throws {ResponseShapeError} when it is no list
     */
    read(body: unknown, call: ApiCall): ReadonlyMap<string, Message>;
  };
  /** Whether each completed message bears the ref of its submit: one without that ref is another submit's then. */
  readonly givesRefs?: boolean;
  /** The status that an error in the body of a 200 stands for. */
  readonly statusIn?: (body: unknown) => number | undefined;
  /** What an answer says by a code of the dialect's own; undefined unless that is a refusal, which has described nothing. */
  readonly refusedBy?: (body: unknown, status: number) => Refused | undefined;
  /** Whether a failing answer says that the quota is spent, whatever its status is. */
  readonly isQuota?: (body: unknown) => boolean;
  /** Whether every 404 at a submit is about the set-up (path, model), whatever reason it gives. */
  readonly isNotFoundSetUp?: boolean;
  /** For how many milliseconds no submit will be taken, beside what `Retry-After` says. */
  readonly restMs?: (headers: AnswerHeaders, nowMs: number) => number | undefined;
}
