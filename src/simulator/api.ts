import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { appendFileSync } from 'node:fs';
import type { FastifyRequest } from 'fastify';
import { Agent, request as post } from 'undici';
import { z } from 'zod';
import { sleep } from '../shared/waiting.js';
import { type SimulatedDialect, refusalIn } from './dialects.js';
import { AccountLimits, formatRetryAfter } from './limits.js';
import {
  DEFAULT_EXPIRE_MINS,
  type MessageFacts,
  type Random,
  drawKind,
  drawLatencyMs,
  endsAt,
  formatMessageId,
  hashUrl,
  messageAt,
  parseMessageId,
  randomOfHash,
  seededRandom,
} from './messages.js';
import { type CompleteOptions, type FailureKind, type SimulatorOptions, completeOptions } from './options.js';

/** The calls of an API; `list` is a poll of many messages. */
export type Call = 'submit' | 'poll' | 'list';

/** What is done with a call: an answer (after a while), or one of the ways to leave it without. */
export type Reply =
  | {
      readonly status: number;
      /** An object is sent as JSON, a text as HTML unless a header says otherwise. */
      readonly body: object | string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly delayMs?: number;
    }
  | 'reset'
  | 'hang';

const httpUrl = z.url({ protocol: /^https?$/, error: 'is not an http(s) URL' });
const submitSchema = z.object({
  url: httpUrl,
  ref: z.string().max(200).optional(),
  webhook: z.union([httpUrl, z.literal('')]).optional(),
  asked: z
    .object({
      choices: z.unknown().optional(),
      format: z.string().optional(),
      schema: z.unknown().optional(),
    })
    .optional(),
});
type Submit = z.infer<typeof submitSchema>;

const dataUri = z.string().refine(isImage, 'is neither an http(s) URL nor a data: URI of an image');
const submitWithDataSchema = submitSchema.extend({ url: z.union([httpUrl, dataUri]) });

function isImage(text: string): boolean {
  const [, base64 = ''] = /^data:image\/[\w.+-]+;base64,([\w+/]{4})/.exec(text) ?? [];
  return base64 !== '';
}

const paramsSchema = z.object({ id: z.string() });
const listSchema = z.object({ ids: z.array(z.string()) });
const pollSchema = z.object({ expireMins: z.coerce.number().positive().default(DEFAULT_EXPIRE_MINS) });

const WEBHOOK_TIMEOUT_MS = 10_000;

/** What a submit that has named a webhook leads to. */
export interface Delivery {
  /** The webhook, with whatever secret is in it. */
  readonly url: string;
  readonly facts: MessageFacts;
  /** What the API delivers for a message of these facts. */
  readonly bodyOf: (facts: MessageFacts) => object;
}

/** What the API answers to each call, in the words of a dialect. */
export class SimulatedApi {
  protected readonly limits = new AccountLimits();
  readonly #random: Random;
  readonly #agent = new Agent({ connect: { timeout: WEBHOOK_TIMEOUT_MS } });
  readonly #closing = new AbortController();
  readonly #process = randomBytes(3).toString('hex');
  #accepted = 0;
  options: CompleteOptions;

  /**
   * @throws {UsageError} for options that cannot be
   * @throws when the journal cannot be written
   */
  constructor(options: SimulatorOptions) {
    this.options = completeOptions(options);
    const { seed, journal } = this.options;
    this.#random = seededRandom(seed);
    // Each delivery that is not due yet listens to it.
    setMaxListeners(0, this.#closing.signal);
    // One that cannot be written is an error before anything is accepted.
    if (journal !== null) appendFileSync(journal, '');
  }

  /** Drops the deliveries that are not due yet, and breaks off those under way. */
  close(): Promise<void> {
    this.#closing.abort();
    return this.#agent.destroy();
  }

  /** Answers a call, unless it has not the token. */
  answer(dialect: SimulatedDialect, call: Call, request: FastifyRequest): Reply {
    const { token } = this.options;
    if (token !== null && dialect.tokenOf(request) !== token) return refusalIn(dialect, 'token');
    switch (call) {
      case 'submit':
        return this.#submit(dialect, request);
      case 'poll':
        return this.#poll(dialect, request);
      case 'list':
        return this.#list(dialect, request);
    }
  }

  /** Takes a submit: checks, limits, failures, and then the message that is paid for. */
  #submit(dialect: SimulatedDialect, request: FastifyRequest): Reply {
    const nowMs = Date.now();
    const schema = dialect.takesData === true ? submitWithDataSchema : submitSchema;
    const submit = schema.safeParse(
      dialect.readSubmit(request.method === 'GET' ? request.query : request.body),
    );
    if (!submit.success) {
      const issue = submit.error.issues[0];
      const text = `Invalid ${issue?.path.join('.') || 'body'}: ${issue?.message ?? ''}`;
      return refusalIn(dialect, 'invalid', text);
    }
    const waitMs = this.limits.admit(this.options, nowMs);
    if (waitMs !== undefined) return this.#rateLimited(dialect, waitMs, nowMs);
    const urlHash = hashUrl(submit.data.url);
    // Unless it is configured, nothing is drawn: the other decisions stay as they are.
    const lacking = kindsOf(submit.data).filter((kind) => this.options.failures[kind] !== undefined);
    const failure =
      (lacking.length > 0 ? this.drawFailure(lacking) : undefined) ??
      this.drawFailure(['http500', 'quota', 'resetBefore']) ??
      // The latter depend on the image alone, so that asking again does not help.
      this.drawFailure(['reject', 'reject400'], randomOfHash(urlHash, 100));
    if (failure === 'resetBefore') return 'reset';
    if (failure !== undefined) return refusalIn(dialect, failure);
    return this.#accept(dialect, submit.data, urlHash, nowMs);
  }

  /** Answers a poll; everything it needs to know is in the id. */
  #poll(dialect: SimulatedDialect, request: FastifyRequest): Reply {
    const query = pollSchema.safeParse(request.query);
    if (!query.success) return refusalIn(dialect, 'invalid', 'Invalid expireMins');
    const facts = parseMessageId(paramsSchema.parse(request.params).id);
    if (!facts) return refusalIn(dialect, 'missing');
    const message = messageAt(facts, Date.now(), query.data.expireMins);
    const kinds = ['pollError', ...(message.state === 'working' ? ['pollMissing' as const] : [])] as const;
    const failure = this.drawFailure(kinds);
    if (failure !== undefined) return refusalIn(dialect, failure === 'pollError' ? 'http500' : 'missing');
    return { status: 200, body: dialect.messages?.polled(message) ?? {} };
  }

  /** Answers a poll of many messages with those that it knows. */
  #list(dialect: SimulatedDialect, request: FastifyRequest): Reply {
    const list = listSchema.safeParse(request.body);
    if (!list.success) return refusalIn(dialect, 'invalid', 'Invalid ids');
    if (this.drawFailure(['pollError']) !== undefined) return refusalIn(dialect, 'http500');
    const known = list.data.ids.flatMap((id) => parseMessageId(id) ?? []);
    return {
      status: 200,
      body: known.map((facts) => dialect.messages?.polled(messageAt(facts, Date.now()))),
    };
  }

  /** Which of the kinds is to happen now, by their shares. */
  protected drawFailure<K extends FailureKind>(kinds: readonly K[], random = this.#random): K | undefined {
    return drawKind(kinds, this.options.failures, random);
  }

  #rateLimited(dialect: SimulatedDialect, waitMs: number, nowMs: number): Reply {
    const retryAfter = formatRetryAfter(waitMs, this.options.retryAfter, nowMs);
    const headers = {
      ...(retryAfter !== undefined && { 'retry-after': retryAfter }),
      ...dialect.limitHeaders?.({ remaining: 0, waitMs }),
    };
    return { ...refusalIn(dialect, 'rateLimited'), headers };
  }

  #accept(dialect: SimulatedDialect, submit: Submit, urlHash: string, nowMs: number): Reply {
    const { ref = '', webhook } = submit;
    const url = submit.url.startsWith('data:') ? `data:${urlHash}` : submit.url;
    const { latencyMs, latencySpread } = this.options;
    const fault = this.drawFailure(['incomplete', 'never']);
    const facts: MessageFacts = {
      submittedAt: nowMs,
      latencyMs: drawLatencyMs(latencyMs, latencySpread, this.#random),
      fate: fault === 'incomplete' ? 'expires' : (fault ?? 'completes'),
      urlHash,
      nonce: `${this.#process}${(this.#accepted++).toString(36)}`,
      ref,
    };
    this.pay(url, facts);
    const { messages } = dialect;
    if (webhook && messages && facts.fate === 'completes') {
      const bodyOf = (of: MessageFacts) => messages.delivered(messageAt(of, of.submittedAt + of.latencyMs));
      this.deliver({ url: webhook, facts, bodyOf });
    }
    return this.#answer(dialect, facts, submit);
  }

  /** From here on a submit is paid, whether the caller learns of it or not. */
  protected pay(url: string, facts: MessageFacts): void {
    const { journal } = this.options;
    const entry = { time: facts.submittedAt, url, messageId: formatMessageId(facts) };
    // Without a buffer: it is there when the process is killed right after.
    if (journal !== null) appendFileSync(journal, `${JSON.stringify(entry)}\n`);
    this.limits.occupy(endsAt(facts));
  }

  /** Sends a message to its webhook once, when it is completed. */
  protected deliver(delivery: Delivery): void {
    void this.send(delivery, delivery.facts.latencyMs);
  }

  /** @returns whether it was taken in; undefined when the simulator is closed before it is due */
  protected async send({ url, facts, bodyOf }: Delivery, afterMs: number): Promise<boolean | undefined> {
    if (!(await sleep(afterMs, this.#closing.signal))) return undefined;
    try {
      const { statusCode, body } = await post(url, {
        dispatcher: this.#agent,
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(bodyOf(facts)),
        signal: AbortSignal.timeout(WEBHOOK_TIMEOUT_MS),
      });
      await body.dump();
      return statusCode < 300;
    } catch {
      // Like the real service, the simulator gives no reason.
      return false;
    }
  }

  #answer(dialect: SimulatedDialect, facts: MessageFacts, submit: Submit): Reply {
    const isSynchronous = dialect.messages === undefined;
    if (isSynchronous && facts.fate === 'never') return 'hang';
    // Where there are no messages, the answer takes as long as the image does.
    const delayMs = isSynchronous ? facts.latencyMs : 0;
    const body = dialect.accepted(messageAt(facts, facts.submittedAt + delayMs), submit.asked);
    const lost = this.drawFailure(['reset', 'badJson', 'html', 'hang']);
    switch (lost) {
      case 'reset':
      case 'hang':
        return lost;
      case 'badJson': {
        const headers = { 'content-type': 'application/json' };
        return { status: 200, body: JSON.stringify(body).slice(0, 40), headers, delayMs };
      }
      case 'html':
        return { status: 200, body: '<html><body>Just a moment...</body></html>', delayMs };
      case undefined: {
        const limit = this.limits.left(this.options.rateLimit, facts.submittedAt);
        const headers = (limit && dialect.limitHeaders?.(limit)) ?? {};
        return { status: 200, body, headers, delayMs };
      }
    }
  }
}

/** What of a submit a server may not have. */
function kindsOf({ url, asked }: Submit): ('noUrls' | 'noSchema' | 'noFormat')[] {
  const format = asked?.format;
  return [
    ...(url.startsWith('data:') ? [] : ['noUrls' as const]),
    ...(format === 'json_schema' ? ['noSchema' as const] : []),
    ...(format === undefined ? [] : ['noFormat' as const]),
  ];
}
