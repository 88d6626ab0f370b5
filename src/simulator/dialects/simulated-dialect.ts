import type { FastifyRequest } from 'fastify';
import type { MessageFacts } from '../message-id.js';
import type { Shape } from '../options.js';

/**
 * Why a call is not answered with what it asks for. `reject` and `reject400` are the API's two ways to refuse an
 * image; `missing` is a message that it does not know, `broken` a 500.
 */
export type Refusal = 'invalid' | 'token' | 'rate' | 'quota' | 'reject' | 'reject400' | 'missing' | 'broken';

/** A submit's fields, whatever the dialect calls them. */
export interface SubmitFields {
  readonly url: unknown;
  readonly ref?: unknown;
  readonly webhook?: unknown;
  /** Answers asked for, where a dialect has that. */
  readonly choices?: unknown;
}

export interface MessageView {
  readonly shape: Shape;
  readonly expireMins: number;
  readonly nowMs: number;
}

/** How long nothing is left of a limit; sent with an answer where the dialect tells. */
export interface LimitView {
  readonly remaining: number;
  readonly waitMs: number;
}

/** One dialect as the simulator speaks it: paths, credentials and the words of each answer. */
export interface SimulatedDialect {
  readonly name: string;
  /** Paths that take a submit by POST; `getPaths`, those that take one by GET as well. */
  readonly submitPaths: readonly string[];
  readonly getPaths?: readonly string[];
  /** Paths of messages, with `:id`. None: the answer to a submit is the outcome, after the latency. */
  readonly messagePaths: readonly string[];
  tokenOf(request: FastifyRequest): string | undefined;
  readSubmit(body: unknown): SubmitFields;
  accepted(facts: MessageFacts, view: MessageView, submit: SubmitFields): object;
  message(facts: MessageFacts, view: MessageView): object;
  /** What a webhook is sent. */
  delivered(facts: MessageFacts, view: MessageView): object;
  refusal(why: Refusal, text: string): { readonly status: number; readonly body: object | string };
  limitHeaders?(limit: LimitView): Record<string, string>;
}
