import { randomBytes } from 'node:crypto';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Refusal, SimulatedDialect, SubmitFields } from './dialects.js';
import { AccountLimits, formatRetryAfter } from './limits.js';
import {
  DEFAULT_EXPIRE_MINS,
  endsAt,
  formatMessageId,
  type MessageFacts,
  type MessageView,
  parseMessageId,
  stateOf,
} from './messages.js';
import type { SimulatorOptions, SimulatorSettings } from './options.js';
import { drawKind, drawLatencyMs, hashUrl, randomOfHash, seededRandom } from './random.js';
import { appendToJournal, readJournal, StatsKeeper } from './stats.js';
import { WebhookSender } from './webhooks.js';

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

const httpUrl = z.string().refine((text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol), {
  message: 'is not an http(s) URL',
});
const submitSchema = z.object({
  url: httpUrl,
  ref: z.string().max(200).optional(),
  webhook: z.union([httpUrl, z.literal('')]).optional(),
  choices: z.unknown().optional(),
});
type Submit = z.infer<typeof submitSchema>;

const pollSchema = z.object({ expireMins: z.coerce.number().positive().default(DEFAULT_EXPIRE_MINS) });

/** Refusals that nobody pays for: what they are called in the dialects, and what they say. */
const UNPAID: {
  readonly [kind in 'http500' | 'quota' | 'reject' | 'reject400']: readonly [Refusal, string];
} = {
  http500: ['broken', 'Internal Server Error'],
  quota: ['quota', 'Your account has no credits left'],
  reject: ['reject', "Invalid phrase: 'simulated'"],
  reject400: ['reject400', 'The image could not be downloaded'],
};

/** Numbers of their own: what goes wrong with deliveries changes nothing else for the same seed. */
const WEBHOOK_SEED = 0x5eed;

/** What the API answers to each call, in the words of a dialect. */
export class SimulatedApi {
  settings: SimulatorSettings;
  readonly stats: StatsKeeper;
  readonly #limits = new AccountLimits();
  readonly #random: () => number;
  readonly #webhooks: WebhookSender;
  readonly #process = randomBytes(3).toString('hex');
  #submits = 0;

  /** @throws when the journal cannot be read or written */
  constructor(private readonly options: SimulatorOptions) {
    this.settings = options;
    this.stats = new StatsKeeper(options.trackUrls);
    this.#random = seededRandom(options.seed);
    this.#webhooks = new WebhookSender({
      settings: () => this.settings.webhooks,
      random: seededRandom(options.seed ^ WEBHOOK_SEED),
      stats: this.stats,
    });
    if (options.journal !== null) this.#restore(options.journal);
  }

  /** Images in progress. */
  get inFlight(): number {
    return this.#limits.inFlight(Date.now());
  }

  close(): Promise<void> {
    return this.#webhooks.close();
  }

  /** Takes a submit: checks, limits, failures, and then the message that is paid for. */
  submit(dialect: SimulatedDialect, request: FastifyRequest): Reply {
    this.stats.countSubmit(request.method === 'GET' ? 'gets' : 'posts');
    return this.#unlessShut(dialect, request, () => {
      const nowMs = Date.now();
      const fields = dialect.readSubmit(request.method === 'GET' ? request.query : request.body);
      const submit = submitSchema.safeParse(fields);
      if (!submit.success) {
        const issue = submit.error.issues[0];
        const text = `Invalid ${issue?.path.join('.') || 'body'}: ${issue?.message ?? ''}`;
        return refusal(dialect, 'invalid', text);
      }
      const waitMs = this.#limits.admit(this.settings, nowMs);
      if (waitMs !== undefined) return this.#rateLimited(dialect, waitMs, nowMs);
      const urlHash = hashUrl(submit.data.url);
      return this.#failUnpaid(dialect, urlHash) ?? this.#accept(dialect, submit.data, urlHash, nowMs);
    });
  }

  /** Answers a poll; everything it needs to know is in the id. */
  poll(dialect: SimulatedDialect, id: string, request: FastifyRequest): Reply {
    this.stats.count('polls');
    return this.#unlessShut(dialect, request, () => {
      const query = pollSchema.safeParse(request.query);
      if (!query.success) return refusal(dialect, 'invalid', 'Invalid expireMins');
      const facts = parseMessageId(id);
      if (!facts) return refusal(dialect, 'missing', 'Message not found');
      const view = { ...this.#view(Date.now()), ...query.data };
      const failure = drawKind(['pollError', 'pollMissing'], this.settings.failures, this.#random);
      if (failure === 'pollError' || (failure !== undefined && stateOf(facts, view) === 'working')) {
        this.stats.countFailure(failure);
        return failure === 'pollError'
          ? refusal(dialect, ...UNPAID.http500)
          : refusal(dialect, 'missing', 'Message not found');
      }
      return { status: 200, body: dialect.messages?.polled(facts, view) ?? {} };
    });
  }

  #unlessShut(dialect: SimulatedDialect, request: FastifyRequest, answer: () => Reply): Reply {
    const { down, token } = this.settings;
    if (down) {
      this.stats.count('answered503');
      return { status: 503, body: '<h1>Service Unavailable</h1>' };
    }
    if (token !== null && dialect.tokenOf(request) !== token) {
      this.stats.count('answered401');
      return refusal(dialect, 'token', 'The token is not valid');
    }
    return answer();
  }

  #rateLimited(dialect: SimulatedDialect, waitMs: number, nowMs: number): Reply {
    this.stats.count('answered429');
    const retryAfter = formatRetryAfter(waitMs, this.settings.retryAfter, nowMs);
    return refusal(dialect, 'rateLimited', 'Too many requests', {
      ...(retryAfter !== undefined && { 'retry-after': retryAfter }),
      ...dialect.limitHeaders?.({ remaining: 0, waitMs }),
    });
  }

  #failUnpaid(dialect: SimulatedDialect, urlHash: string): Reply | undefined {
    const { failures } = this.settings;
    const kind =
      drawKind(['http500', 'quota', 'resetBefore'], failures, this.#random) ??
      // The latter depend on the image alone, so that asking again does not help.
      drawKind(['reject', 'reject400'], failures, randomOfHash(urlHash, 100));
    if (kind === undefined) return undefined;
    this.stats.countFailure(kind);
    return kind === 'resetBefore' ? 'reset' : refusal(dialect, ...UNPAID[kind]);
  }

  /** From here on the submit is paid, whether the caller learns of it or not. */
  #accept(dialect: SimulatedDialect, submit: Submit, urlHash: string, nowMs: number): Reply {
    const { url, ref = '', webhook } = submit;
    const { failures, latencyMs, latencySpread } = this.settings;
    const fault = drawKind(['incomplete', 'never'], failures, this.#random);
    if (fault) this.stats.countFailure(fault);
    const facts: MessageFacts = {
      submittedAt: nowMs,
      latencyMs: drawLatencyMs(latencyMs, latencySpread, this.#random),
      fate: fault === 'incomplete' ? 'expires' : (fault ?? 'completes'),
      urlHash,
      nonce: `${this.#process}${(this.#submits++).toString(36)}`,
      ref,
    };
    if (this.options.journal !== null)
      appendToJournal(this.options.journal, { time: nowMs, url, messageId: formatMessageId(facts) });
    this.#limits.occupy(endsAt(facts, DEFAULT_EXPIRE_MINS));
    this.stats.countPaid(url, this.#limits.inFlight(nowMs));
    const { messages } = dialect;
    if (webhook && messages && facts.fate === 'completes') {
      const deliveredFor = (of: MessageFacts) =>
        messages.delivered(of, this.#view(of.submittedAt + of.latencyMs));
      this.#webhooks.expect({ url: webhook, facts, deliveredFor });
    }
    return this.#answer(dialect, facts, submit, nowMs);
  }

  #answer(dialect: SimulatedDialect, facts: MessageFacts, submit: SubmitFields, nowMs: number): Reply {
    const isSynchronous = dialect.messages === undefined;
    if (isSynchronous && facts.fate === 'never') return 'hang';
    // Where there are no messages, the answer takes as long as the image does.
    const delayMs = isSynchronous ? facts.latencyMs : 0;
    const body = dialect.accepted(facts, this.#view(nowMs), submit);
    const lost = drawKind(['reset', 'badJson', 'html', 'hang'], this.settings.failures, this.#random);
    if (lost !== undefined) this.stats.countFailure(lost);
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
        const limit = this.#limits.left(this.settings.rateLimit, nowMs);
        const headers = (limit && dialect.limitHeaders?.(limit)) ?? {};
        return { status: 200, body, headers, delayMs };
      }
    }
  }

  #view(nowMs: number): MessageView {
    return { shape: this.settings.shape, expireMins: DEFAULT_EXPIRE_MINS, nowMs };
  }

  /** Takes up what an earlier process accepted: it is paid, and in progress until it is done. */
  #restore(journal: string): void {
    const nowMs = Date.now();
    for (const { url, messageId } of readJournal(journal)) {
      const facts = parseMessageId(messageId);
      const untilMs = facts ? endsAt(facts, DEFAULT_EXPIRE_MINS) : 0;
      if (untilMs > nowMs) this.#limits.occupy(untilMs);
      this.stats.countPaid(url, this.#limits.inFlight(nowMs));
    }
    // A file that cannot be written is an error before anything is accepted.
    appendToJournal(journal);
  }
}

/** A refusal in a dialect's words. */
function refusal(
  dialect: SimulatedDialect,
  why: Refusal,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): Reply {
  const { status, body } = dialect.refusal(why, text);
  return { status, body, headers: typeof body === 'string' ? { 'content-type': 'text/plain' } : headers };
}
