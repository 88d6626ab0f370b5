import { z } from 'zod';
import { formatRate } from './durations.js';
import { FULL_RATE, fallAfter429, type LearnedRate, settleAfterSuccess, shareAt } from './learned-rate.js';
import { DEFAULT_LIMITS, type Limits } from './limits.js';
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
   * Takes note of a 429 at a submit.
   * @returns how many milliseconds the whole queue should wait
   */
  async fall(retryAfterMs: number | undefined): Promise<number> {
    await this.#adoptLearned();
    const { learned, pauseMs } = fallAfter429(this.#learned, Date.now(), retryAfterMs);
    this.#learned = learned;
    await this.#writeLearned();
    return pauseMs;
  }

  /** Takes note of a submit that went through. Writes only where there was a streak of refusals. */
  async settle(): Promise<void> {
    if (settleAfterSuccess(this.#learned) === this.#learned) return;
    await this.#adoptLearned();
    this.#learned = settleAfterSuccess(this.#learned);
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
