import { z } from 'zod';
import { DEFAULT_LIMITS, type Limits, type Rate, formatRate, scaleRate } from './limits.js';
import type { Logger } from './log.js';
import { parseJson } from './parse-json.js';
import type { SharedStore } from './queue/store.js';

const rateSchema = z.object({ count: z.number().positive(), perMs: z.number().positive() });
const learnedSchema = z.object({
  share: z.number().positive().max(1),
  fellAt: z.number(),
  heldUntil: z.number(),
  streak: z.number(),
});

function parseField<T>(schema: z.ZodType<T>, text: string | undefined): T | undefined {
  if (text === undefined) return undefined;
  // A value that this version cannot read counts as not set; the next write replaces it.
  return schema.safeParse(parseJson(text)).data;
}

function newerOf(stored: LearnedRate | undefined, own: LearnedRate): LearnedRate {
  const newer = stored !== undefined && stored.fellAt > own.fellAt ? stored : own;
  return { ...newer, heldUntil: Math.max(newer.heldUntil, stored?.heldUntil ?? 0, own.heldUntil) };
}

/** What the queue holds of an account's limits, for those who only look. */
export interface AccountLimitsView {
  readonly configured: Limits;
  /** The share of the configured rate that the API lets through at the moment, in (0, 1]. */
  readonly share: number;
  /** When the API last answered 429, epoch milliseconds; 0 for never. */
  readonly fellAt: number;
  /** Until when the whole queue waits because of a 429, epoch milliseconds; in the past when it does not. */
  readonly heldUntil: number;
}

/** Reads the limits of an account; undefined when nobody has worked for it yet. */
export async function readAccountLimits(
  store: SharedStore,
  queueName: string,
  nowMs: number,
): Promise<AccountLimitsView | undefined> {
  const fields = await store.getFields(`account:${queueName}`);
  const rate = parseField(rateSchema, fields['rate']);
  if (rate === undefined) return undefined;
  const learned = parseField(learnedSchema, fields['learned']) ?? FULL_RATE;
  const configured = {
    rate,
    pollRate: parseField(rateSchema, fields['pollRate']) ?? DEFAULT_LIMITS.pollRate,
    maxInFlight: parseField(z.number().int().positive(), fields['maxInFlight']) ?? DEFAULT_LIMITS.maxInFlight,
  };
  const { fellAt, heldUntil } = learned;
  return { configured, share: shareAt(learned, nowMs), fellAt, heldUntil };
}

/**
 * The limits of one account as its queue holds them, shared by every process that works for it.
 *
 * Values that were given explicitly are written to the queue; the others are adopted from it. Each process
 * keeps a copy of its own, so that a flushed Redis lifts no limit: the next refresh writes them back.
 */
export class AccountLimits {
  #limits: Limits = DEFAULT_LIMITS;
  #learned: LearnedRate = FULL_RATE;
  #change: string | undefined;

  private constructor(
    private readonly store: SharedStore,
    private readonly name: string,
    private readonly logger: Logger,
  ) {}

  /** Reads what the queue holds, writes what was given explicitly, and logs a change. */
  static async open(
    store: SharedStore,
    queueName: string,
    explicit: Partial<Limits>,
    logger: Logger,
  ): Promise<AccountLimits> {
    const limits = new AccountLimits(store, `account:${queueName}`, logger);
    const fields = await store.getFields(limits.name);
    limits.#adopt(fields);
    const before = limits.#limits;
    limits.#limits = {
      rate: explicit.rate ?? before.rate,
      pollRate: explicit.pollRate ?? before.pollRate,
      maxInFlight: explicit.maxInFlight ?? before.maxInFlight,
    };
    if (Object.keys(explicit).length > 0 || fields['rate'] === undefined) {
      await limits.#write();
      if (fields['rate'] !== undefined) limits.#logChange(before);
    }
    return limits;
  }

  /** What the last change of the limits was, for people; undefined when there was none. */
  get lastChange(): string | undefined {
    return this.#change;
  }

  get configured(): Limits {
    return this.#limits;
  }

  /** The share of the configured rate that the API lets through at the moment, in (0, 1]. */
  share(nowMs = Date.now()): number {
    return shareAt(this.#learned, nowMs);
  }

  /** The rate of submits that the API lets through at the moment. */
  currentRate(): Rate {
    return scaleRate(this.#limits.rate, this.share());
  }

  /**
   * Reads the queue's values again.
   * @returns true when the limits are other ones than before
   */
  async refresh(): Promise<boolean> {
    const fields = await this.store.getFields(this.name);
    if (fields['rate'] === undefined) await this.#write();
    const before = this.#limits;
    this.#adopt(fields);
    const changed = JSON.stringify(before) !== JSON.stringify(this.#limits);
    if (changed) this.#logChange(before);
    return changed;
  }

  /**
   * A submit was rate limited (429): the share falls.
   * @returns how many milliseconds the whole queue should wait
   */
  async rateLimited(retryAfterMs: number | undefined): Promise<number> {
    await this.#adoptLearned();
    const { learned, pauseMs } = afterRateLimit(this.#learned, Date.now(), retryAfterMs);
    this.#learned = learned;
    await this.#writeLearned();
    return pauseMs;
  }

  /** A submit went through. Writes only where there was a streak of 429s. */
  async submitted(): Promise<void> {
    if (afterSubmit(this.#learned) === this.#learned) return;
    await this.#adoptLearned();
    this.#learned = afterSubmit(this.#learned);
    await this.#writeLearned();
  }

  #adopt(fields: Record<string, string>): void {
    this.#limits = {
      rate: parseField(rateSchema, fields['rate']) ?? this.#limits.rate,
      pollRate: parseField(rateSchema, fields['pollRate']) ?? this.#limits.pollRate,
      maxInFlight: parseField(z.number().int().positive(), fields['maxInFlight']) ?? this.#limits.maxInFlight,
    };
    this.#learned = parseField(learnedSchema, fields['learned']) ?? this.#learned;
  }

  async #write(): Promise<void> {
    await this.store.setFields(this.name, {
      rate: JSON.stringify(this.#limits.rate),
      pollRate: JSON.stringify(this.#limits.pollRate),
      maxInFlight: JSON.stringify(this.#limits.maxInFlight),
      learned: JSON.stringify(this.#learned),
    });
  }

  /** Another worker may have met a 429 since the last refresh: its fall is not to be written over. */
  async #adoptLearned(): Promise<void> {
    const fields = await this.store.getFields(this.name);
    this.#learned = newerOf(parseField(learnedSchema, fields['learned']), this.#learned);
  }

  async #writeLearned(): Promise<void> {
    await this.store.setFields(this.name, { learned: JSON.stringify(this.#learned) });
  }

  #logChange(before: Limits): void {
    const text = (limits: Limits) =>
      `${formatRate(limits.rate)}, polls ${formatRate(limits.pollRate)}, ${limits.maxInFlight} in flight`;
    if (text(before) === text(this.#limits)) return;
    this.#change = `the account's limits are now ${text(this.#limits)} (were ${text(before)})`;
    this.logger.info(this.#change);
  }
}

/**
 * The learned rate: which share of the configured rate the API lets through at the moment.
 *
 * A 429 halves it at once; time alone brings it back, in small steps. Since the way back is a function of
 * time, nothing has to be written on it: all workers compute the same share from the one record of the
 * last fall.
 */
export interface LearnedRate {
  /** Share of the configured rate right after the last fall, in (0, 1]. */
  readonly share: number;
  /** When that was, and until when the queue waits (epoch milliseconds). */
  readonly fellAt: number;
  readonly heldUntil: number;
  /** 429s since the last success that came without a `Retry-After`: the growing pause. */
  readonly streak: number;
}

export const FULL_RATE: LearnedRate = { share: 1, fellAt: 0, heldUntil: 0, streak: 0 };

const LOWEST_SHARE = 0.1;
const FALL_FACTOR = 0.5;
const STEP_SHARE = 0.05;
const STEP_MS = 2000;
/** 429s that come this soon after a fall, or while the queue waits, were on their way when it happened. */
const SAME_STORM_MS = 1000;
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;

/** The share at `nowMs`: back to 1 within 38 s of the end of the pause, from wherever it fell to. */
export function shareAt(learned: LearnedRate, nowMs: number): number {
  const from = Math.max(learned.fellAt, learned.heldUntil);
  const steps = Math.max(0, Math.floor((nowMs - from) / STEP_MS));
  return Math.min(1, learned.share + steps * STEP_SHARE);
}

/**
 * What a 429 makes of the learned rate.
 * @param retryAfterMs the API's own word, when it gave one
 * @returns the new record and how long the whole queue waits
 */
export function afterRateLimit(
  learned: LearnedRate,
  nowMs: number,
  retryAfterMs: number | undefined,
): { learned: LearnedRate; pauseMs: number } {
  const sameStorm = nowMs < Math.max(learned.fellAt + SAME_STORM_MS, learned.heldUntil) && learned.fellAt > 0;
  const streak = sameStorm ? learned.streak : learned.streak + 1;
  const grown = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (Math.max(1, streak) - 1));
  const pauseMs = retryAfterMs ?? Math.max(grown, sameStorm ? learned.heldUntil - nowMs : 0);
  const heldUntil = Math.max(learned.heldUntil, nowMs + pauseMs);
  if (sameStorm) return { learned: { ...learned, heldUntil }, pauseMs };
  const share = Math.max(LOWEST_SHARE, shareAt(learned, nowMs) * FALL_FACTOR);
  return { learned: { share, fellAt: nowMs, heldUntil, streak }, pauseMs };
}

/** What a success makes of it: the growing pause starts over. */
export function afterSubmit(learned: LearnedRate): LearnedRate {
  return learned.streak === 0 ? learned : { ...learned, streak: 0 };
}
