import { randomBytes } from 'node:crypto';
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
import type { CompleteOptions, FailureKind } from './options.js';

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

/** Decides about a delivery: it may be sent once, after its latency, or never, or more often. */
export type OnDelivery = (delivery: Delivery, sendAfter: (ms: number) => void) => void;

/** What has happened since the start. */
export type SimulatorStats = SimulatedApi['stats'];

function nothingYet() {
  const failures: { [kind in FailureKind]?: number } = {};
  return {
    /** Accepted submits: each of them is paid. */
    paid: 0,
    /** The same by URL, or `data:` and the start of the hash of its data; empty with `trackUrls: false`. */
    paidByUrl: new Map<string, number>(),
    /** Calls by kind, whatever they were answered. */
    requests: { posts: 0, gets: 0, polls: 0 },
    answered401: 0,
    answered429: 0,
    answered503: 0,
    /** Failures that were played, by kind. */
    failures,
    /** Most submits in any second, rate-limited ones included. */
    maxSubmitsInASecond: 0,
    maxInFlight: 0,
    /** Deliveries that were taken in, and those that were not. */
    webhooksSent: 0,
    webhooksFailed: 0,
  };
}

/** What the API answers to each call, in the words of a dialect. */
export class SimulatedApi {
  readonly #stats = nothingYet();
  /** When the submits of the last second came. */
  readonly #lastSecond: number[] = [];
  readonly #limits = new AccountLimits();
  readonly #random: Random;
  readonly #agent = new Agent({ connect: { timeout: WEBHOOK_TIMEOUT_MS } });
  readonly #closing = new AbortController();
  readonly #process = randomBytes(3).toString('hex');
  #accepted = 0;
  onDelivery: OnDelivery = ({ facts }, sendAfter) => sendAfter(facts.latencyMs);

  /** @throws when the journal cannot be written */
  constructor(public options: CompleteOptions) {
    this.#random = seededRandom(options.seed);
    // One that cannot be written is an error before anything is accepted.
    if (options.journal !== null) appendFileSync(options.journal, '');
  }

  /** A copy: it does not change any more. */
  get stats() {
    const { posts, gets, polls } = this.#stats.requests;
    const inFlight = this.#limits.inFlight(Date.now());
    return structuredClone({ ...this.#stats, submits: posts + gets, polls, inFlight });
  }

  /** Drops the deliveries that are not due yet, and breaks off those under way. */
  close(): Promise<void> {
    this.#closing.abort();
    return this.#agent.destroy();
  }

  /** Takes a submit: checks, limits, failures, and then the message that is paid for. */
  submit(dialect: SimulatedDialect, request: FastifyRequest): Reply {
    const isGet = request.method === 'GET';
    this.#countSubmit();
    const shut = this.#shut(dialect, request, isGet ? 'gets' : 'posts');
    if (shut !== undefined) return shut;
    const nowMs = Date.now();
    const schema = dialect.takesData === true ? submitWithDataSchema : submitSchema;
    const submit = schema.safeParse(dialect.readSubmit(isGet ? request.query : request.body));
    if (!submit.success) {
      const issue = submit.error.issues[0];
      const text = `Invalid ${issue?.path.join('.') || 'body'}: ${issue?.message ?? ''}`;
      return refusalIn(dialect, 'invalid', text);
    }
    const waitMs = this.#limits.admit(this.options, nowMs);
    if (waitMs !== undefined) return this.#rateLimited(dialect, waitMs, nowMs);
    const urlHash = hashUrl(submit.data.url);
    // Unless it is configured, nothing is drawn: the other decisions stay as they are.
    const lacking = kindsOf(submit.data).filter((kind) => this.options.failures[kind] !== undefined);
    const failure =
      (lacking.length > 0 ? this.#drawFailure(lacking) : undefined) ??
      this.#drawFailure(['http500', 'quota', 'resetBefore']) ??
      // The latter depend on the image alone, so that asking again does not help.
      this.#drawFailure(['reject', 'reject400'], randomOfHash(urlHash, 100));
    if (failure === 'resetBefore') return 'reset';
    if (failure !== undefined) return refusalIn(dialect, failure);
    return this.#accept(dialect, submit.data, urlHash, nowMs);
  }

  /** Answers a poll; everything it needs to know is in the id. */
  poll(dialect: SimulatedDialect, id: string, request: FastifyRequest): Reply {
    const shut = this.#shut(dialect, request, 'polls');
    if (shut !== undefined) return shut;
    const query = pollSchema.safeParse(request.query);
    if (!query.success) return refusalIn(dialect, 'invalid', 'Invalid expireMins');
    const facts = parseMessageId(id);
    if (!facts) return refusalIn(dialect, 'missing');
    const message = messageAt(facts, Date.now(), query.data.expireMins);
    const kinds = ['pollError', ...(message.state === 'working' ? ['pollMissing' as const] : [])] as const;
    const failure = this.#drawFailure(kinds);
    if (failure !== undefined) return refusalIn(dialect, failure === 'pollError' ? 'http500' : 'missing');
    return { status: 200, body: dialect.messages?.polled(message) ?? {} };
  }

  /** Answers a poll of many messages with those that it knows. */
  list(dialect: SimulatedDialect, request: FastifyRequest): Reply {
    const shut = this.#shut(dialect, request, 'polls');
    if (shut !== undefined) return shut;
    const list = listSchema.safeParse(request.body);
    if (!list.success) return refusalIn(dialect, 'invalid', 'Invalid ids');
    if (this.#drawFailure(['pollError']) !== undefined) return refusalIn(dialect, 'http500');
    const known = list.data.ids.flatMap((id) => parseMessageId(id) ?? []);
    return {
      status: 200,
      body: known.map((facts) => dialect.messages?.polled(messageAt(facts, Date.now()))),
    };
  }

  #countSubmit(): void {
    const now = performance.now();
    this.#lastSecond.push(now);
    while ((this.#lastSecond[0] ?? now) <= now - 1000) this.#lastSecond.shift();
    this.#stats.maxSubmitsInASecond = Math.max(this.#stats.maxSubmitsInASecond, this.#lastSecond.length);
  }

  #drawFailure<Kind extends FailureKind>(kinds: readonly Kind[], random = this.#random): Kind | undefined {
    const kind = drawKind(kinds, this.options.failures, random);
    if (kind !== undefined) this.#stats.failures[kind] = (this.#stats.failures[kind] ?? 0) + 1;
    return kind;
  }

  /** Counts a call. @returns the answer to everybody, or to whoever has not the token */
  #shut(
    dialect: SimulatedDialect,
    request: FastifyRequest,
    kind: 'posts' | 'gets' | 'polls',
  ): Reply | undefined {
    this.#stats.requests[kind]++;
    const { down, token } = this.options;
    if (down) {
      this.#stats.answered503++;
      return { status: 503, body: '<h1>Service Unavailable</h1>' };
    }
    if (token === null || dialect.tokenOf(request) === token) return undefined;
    this.#stats.answered401++;
    return refusalIn(dialect, 'token');
  }

  #rateLimited(dialect: SimulatedDialect, waitMs: number, nowMs: number): Reply {
    this.#stats.answered429++;
    const retryAfter = formatRetryAfter(waitMs, this.options.retryAfter, nowMs);
    const headers = {
      ...(retryAfter !== undefined && { 'retry-after': retryAfter }),
      ...dialect.limitHeaders?.({ remaining: 0, waitMs }),
    };
    return { ...refusalIn(dialect, 'rateLimited'), headers };
  }

  /** From here on the submit is paid, whether the caller learns of it or not. */
  #accept(dialect: SimulatedDialect, submit: Submit, urlHash: string, nowMs: number): Reply {
    const { ref = '', webhook } = submit;
    const url = submit.url.startsWith('data:') ? `data:${urlHash}` : submit.url;
    const { latencyMs, latencySpread, journal, trackUrls } = this.options;
    const fault = this.#drawFailure(['incomplete', 'never']);
    const facts: MessageFacts = {
      submittedAt: nowMs,
      latencyMs: drawLatencyMs(latencyMs, latencySpread, this.#random),
      fate: fault === 'incomplete' ? 'expires' : (fault ?? 'completes'),
      urlHash,
      nonce: `${this.#process}${(this.#accepted++).toString(36)}`,
      ref,
    };
    // Without a buffer: it is there when the process is killed right after.
    if (journal !== null)
      appendFileSync(journal, `${JSON.stringify({ time: nowMs, url, messageId: formatMessageId(facts) })}\n`);
    this.#limits.occupy(endsAt(facts));
    const stats = this.#stats;
    stats.paid++;
    if (trackUrls) stats.paidByUrl.set(url, (stats.paidByUrl.get(url) ?? 0) + 1);
    stats.maxInFlight = Math.max(stats.maxInFlight, this.#limits.inFlight(nowMs));
    const { messages } = dialect;
    if (webhook && messages && facts.fate === 'completes') {
      const bodyOf = (of: MessageFacts) => messages.delivered(messageAt(of, of.submittedAt + of.latencyMs));
      const delivery = { url: webhook, facts, bodyOf };
      this.onDelivery(delivery, (ms) => void this.#deliver(delivery, ms));
    }
    return this.#answer(dialect, facts, submit);
  }

  /** Posts a completed message to its webhook when it is due. Failures are counted, and not reported to anybody. */
  async #deliver({ url, facts, bodyOf }: Delivery, afterMs: number): Promise<void> {
    if (!(await sleep(afterMs, this.#closing.signal))) return;
    try {
      const { statusCode, body } = await post(url, {
        dispatcher: this.#agent,
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(bodyOf(facts)),
        signal: AbortSignal.timeout(WEBHOOK_TIMEOUT_MS),
      });
      await body.dump();
      this.#stats[statusCode < 300 ? 'webhooksSent' : 'webhooksFailed']++;
    } catch {
      // Like the real service, the simulator gives no reason.
      this.#stats.webhooksFailed++;
    }
  }

  #answer(dialect: SimulatedDialect, facts: MessageFacts, submit: Submit): Reply {
    const isSynchronous = dialect.messages === undefined;
    if (isSynchronous && facts.fate === 'never') return 'hang';
    // Where there are no messages, the answer takes as long as the image does.
    const delayMs = isSynchronous ? facts.latencyMs : 0;
    const body = dialect.accepted(messageAt(facts, facts.submittedAt + delayMs), submit.asked);
    const lost = this.#drawFailure(['reset', 'badJson', 'html', 'hang']);
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
        const limit = this.#limits.left(this.options.rateLimit, facts.submittedAt);
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
