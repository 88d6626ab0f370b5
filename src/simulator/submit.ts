import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { MessageView, SimulatedDialect } from './dialects/simulated-dialect.js';
import type { Journal } from './journal.js';
import { type AccountLimits, formatRetryAfter } from './limits.js';
import { DEFAULT_EXPIRE_MINS, endsAt, type Fate, formatMessageId, type MessageFacts } from './message-id.js';
import type { SimulatorSettings } from './options.js';
import { drawKind, drawLatencyMs, hashUrl, type Random, randomOfHash } from './random.js';
import { refuse, type Reply } from './reply.js';
import type { StatsKeeper } from './stats.js';
import type { WebhookSender } from './webhooks.js';

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

const UNPAID_FAILURES = ['http500', 'quota', 'resetBefore'] as const;
const REFUSALS = ['reject', 'reject400'] as const;
const LOST_ANSWERS = ['reset', 'badJson', 'html', 'hang'] as const;
const FATES = { incomplete: 'expires', never: 'never' } as const satisfies Record<string, Fate>;

export interface SubmitDeskParts {
  readonly settings: () => SimulatorSettings;
  readonly limits: AccountLimits;
  readonly stats: StatsKeeper;
  readonly random: Random;
  readonly webhooks: WebhookSender;
  readonly journal: Journal | undefined;
}

/** Takes submits: checks, limits, failures, and then the message that is paid for. */
export class SubmitDesk {
  private submits = 0;
  private readonly process = randomBytes(3).toString('hex');

  constructor(private readonly parts: SubmitDeskParts) {}

  /** Decides about one submit whose token is good. */
  take(dialect: SimulatedDialect, body: unknown, nowMs: number): Reply {
    const submit = submitSchema.safeParse(dialect.readSubmit(body));
    if (!submit.success) {
      const issue = submit.error.issues[0];
      return refuse(
        dialect,
        'invalid',
        `Invalid ${issue?.path.join('.') || 'body'}: ${issue?.message ?? ''}`,
      );
    }
    const waitMs = this.parts.limits.admit(this.parts.settings(), nowMs);
    if (waitMs !== undefined) return this.slowDown(dialect, waitMs, nowMs);
    const urlHash = hashUrl(submit.data.url);
    const failure = this.failUnpaid(dialect, urlHash);
    return failure ?? this.accept(dialect, submit.data, urlHash, nowMs);
  }

  private slowDown(dialect: SimulatedDialect, waitMs: number, nowMs: number): Reply {
    this.parts.stats.count('answered429');
    const retryAfter = formatRetryAfter(waitMs, this.parts.settings().retryAfter, nowMs);
    return refuse(dialect, 'rate', 'Too many requests', {
      ...(retryAfter !== undefined && { 'retry-after': retryAfter }),
      ...dialect.limitHeaders?.({ remaining: 0, waitMs }),
    });
  }

  private failUnpaid(dialect: SimulatedDialect, urlHash: string): Reply | undefined {
    const { random, stats } = this.parts;
    const { failures } = this.parts.settings();
    // Refusals depend on the image alone, so that asking again does not help.
    const kind =
      drawKind(UNPAID_FAILURES, failures, random) ?? drawKind(REFUSALS, failures, randomOfHash(urlHash, 100));
    if (kind === undefined) return undefined;
    stats.countFailure(kind);
    switch (kind) {
      case 'http500':
        return refuse(dialect, 'broken', 'Internal Server Error');
      case 'quota':
        return refuse(dialect, 'quota', 'Your account has no credits left');
      case 'resetBefore':
        return { kind: 'reset' };
      case 'reject':
        return refuse(dialect, 'reject', "Invalid phrase: 'simulated'");
      case 'reject400':
        return refuse(dialect, 'reject400', 'The image could not be downloaded');
    }
  }

  /** From here on the submit is paid, whether the caller learns of it or not. */
  private accept(dialect: SimulatedDialect, submit: Submit, urlHash: string, nowMs: number): Reply {
    const { url, ref = '', webhook } = submit;
    const { random, stats, limits, journal, webhooks } = this.parts;
    const { failures, latencyMs, latencySpread } = this.parts.settings();
    const fateKind = drawKind(['incomplete', 'never'], failures, random);
    if (fateKind) stats.countFailure(fateKind);
    const facts: MessageFacts = {
      submittedAt: nowMs,
      latencyMs: drawLatencyMs(latencyMs, latencySpread, random),
      fate: fateKind ? FATES[fateKind] : 'completes',
      urlHash,
      nonce: `${this.process}${(this.submits++).toString(36)}`,
      ref,
    };
    journal?.append({ time: nowMs, url, messageId: formatMessageId(facts) });
    stats.countPaid(url);
    limits.occupy(endsAt(facts, DEFAULT_EXPIRE_MINS));
    stats.noteInFlight(limits.inFlight(nowMs));
    if (webhook && facts.fate === 'completes') {
      webhooks.expect({
        url: webhook,
        facts,
        deliveredFor: (of) => dialect.delivered(of, this.view(of.submittedAt + of.latencyMs)),
      });
    }
    return this.answer(dialect, facts, dialect.accepted(facts, this.view(nowMs), submit), nowMs);
  }

  private view(nowMs: number): MessageView {
    return { shape: this.parts.settings().shape, expireMins: DEFAULT_EXPIRE_MINS, nowMs };
  }

  /** Where there are no messages, the answer takes as long as the image does, or never comes. */
  private answer(dialect: SimulatedDialect, facts: MessageFacts, body: object, nowMs: number): Reply {
    const isSynchronous = dialect.messagePaths.length === 0;
    if (isSynchronous && facts.fate === 'never') return { kind: 'hang' };
    const late = isSynchronous ? { delayMs: facts.latencyMs } : {};
    const limit = this.parts.limits.left(this.parts.settings(), nowMs);
    const headers = limit === undefined ? {} : (dialect.limitHeaders?.(limit) ?? {});
    const kind = drawKind(LOST_ANSWERS, this.parts.settings().failures, this.parts.random);
    if (kind === undefined) return { kind: 'json', status: 200, body, headers, ...late };
    this.parts.stats.countFailure(kind);
    switch (kind) {
      case 'reset':
      case 'hang':
        return { kind };
      case 'badJson': {
        const text = JSON.stringify(body).slice(0, 40);
        return { kind: 'text', status: 200, type: 'application/json', text, ...late };
      }
      case 'html': {
        const text = '<html><body>Just a moment...</body></html>';
        return { kind: 'text', status: 200, type: 'text/html', text, ...late };
      }
    }
  }
}
