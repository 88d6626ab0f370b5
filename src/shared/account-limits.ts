import { z } from 'zod';
import { DEFAULT_LIMITS, type Limits, type Rate, formatRate, scaleRate } from './limits.js';
import type { Logger } from './log.js';
import { parseJson } from './parse-json.js';
import type { SharedStore } from './queue/store.js';

const rateSchema = z.object({ count: z.number().positive(), perMs: z.number().positive() });
const learnedSchema = z.object({
  /** Share of the configured rate right after the last fall, in (0, 1]. */
  share: z.number().positive().max(1),
  /** When that was, and until when the queue waits (epoch milliseconds). */
  fellAt: z.number(),
  heldUntil: z.number(),
  /** 429s since the last success that came without a `Retry-After`: the growing pause. */
  streak: z.number(),
});

/** What processes of an account know of its limits. */
interface KnownLimits {
  readonly configured: Limits;
  readonly learned: LearnedRate;
}

/** What the queue holds; a value that is not set, or that this version cannot read, is the known one. The next write replaces it. */
function readFields(fields: Readonly<Record<string, string>>, known: KnownLimits): KnownLimits {
  const read = <T>(schema: z.ZodType<T>, field: string) =>
    schema.safeParse(parseJson(fields[field] ?? '')).data;
  const { rate, pollRate, maxInFlight } = known.configured;
  return {
    configured: {
      rate: read(rateSchema, 'rate') ?? rate,
      pollRate: read(rateSchema, 'pollRate') ?? pollRate,
      maxInFlight: read(z.number().int().positive(), 'maxInFlight') ?? maxInFlight,
    },
    learned: read(learnedSchema, 'learned') ?? known.learned,
  };
}

/** The limits of an account, for those who only look; undefined when nobody has worked for it yet. */
export async function readAccountLimits(store: SharedStore, queueName: string, nowMs: number) {
  const fields = await store.getFields(`account:${queueName}`);
  if (fields['rate'] === undefined) return undefined;
  const { configured, learned } = readFields(fields, UNKNOWN);
  const { fellAt, heldUntil } = unlessFromTheFuture(learned, nowMs);
  return { configured, share: shareAt(learned, nowMs), fellAt, heldUntil };
}

/**
 * The limits of one account as its queue holds them, shared by every process that works for it.
 *
 * Values that were given explicitly are written to the queue; the others are adopted from it. Each process
 * keeps a copy of its own, so that a flushed Redis lifts no limit: the next refresh writes them back.
 */
export class AccountLimits {
  #known = UNKNOWN;
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
    const { configured, learned } = readFields(fields, UNKNOWN);
    limits.#known = {
      configured: {
        rate: explicit.rate ?? configured.rate,
        pollRate: explicit.pollRate ?? configured.pollRate,
        maxInFlight: explicit.maxInFlight ?? configured.maxInFlight,
      },
      learned,
    };
    const isNew = fields['rate'] === undefined;
    if (Object.keys(explicit).length > 0 || isNew) await limits.#write();
    if (!isNew) limits.#noteChange(configured);
    return limits;
  }

  /** What the last change of the limits was, for people; undefined when there was none. */
  get lastChange(): string | undefined {
    return this.#change;
  }

  get configured(): Limits {
    return this.#known.configured;
  }

  /** The share of the configured rate that the API lets through at the moment, in (0, 1]. */
  share(nowMs = Date.now()): number {
    return shareAt(this.#known.learned, nowMs);
  }

  /** How many milliseconds are left of the wait that the last 429 has brought. */
  heldMs(nowMs = Date.now()): number {
    return Math.max(0, unlessFromTheFuture(this.#known.learned, nowMs).heldUntil - nowMs);
  }

  /** The rate of submits that the API lets through at the moment. */
  currentRate(): Rate {
    return scaleRate(this.configured.rate, this.share());
  }

  /**
   * Reads the queue's values again.
   * @returns true when the limits are other ones than before
   */
  async refresh(): Promise<boolean> {
    const fields = await this.store.getFields(this.name);
    if (fields['rate'] === undefined) await this.#write();
    const before = this.configured;
    this.#known = readFields(fields, this.#known);
    return this.#noteChange(before);
  }

  /**
   * A submit was rate limited (429): the share falls.
   * @returns how many milliseconds the whole queue should wait
   */
  async rateLimited(retryAfterMs: number | undefined): Promise<number> {
    const { learned, pauseMs } = afterRateLimit(await this.#newestLearned(), Date.now(), retryAfterMs);
    await this.#setLearned(learned);
    return pauseMs;
  }

  /** An answer has said that nothing may be submitted for so long: people see why, and the rate does not fall. */
  async resting(ms: number): Promise<void> {
    const newest = await this.#newestLearned();
    const nowMs = Date.now();
    const heldUntil = Math.max(newest.heldUntil, nowMs + ms);
    await this.#setLearned({ ...newest, share: shareAt(newest, nowMs), fellAt: nowMs, heldUntil });
  }

  /** A submit went through. Writes only where there was a streak of 429s. */
  async submitted(): Promise<void> {
    if (this.#known.learned.streak > 0) await this.#setLearned(afterSubmit(await this.#newestLearned()));
  }

  async #write(): Promise<void> {
    const { configured, learned } = this.#known;
    const values = Object.entries({ ...configured, learned });
    const fields = Object.fromEntries(values.map(([name, value]) => [name, JSON.stringify(value)]));
    await this.store.setFields(this.name, fields);
  }

  /** Another worker may have met a 429 since the last refresh: its fall is not to be written over. */
  async #newestLearned(): Promise<LearnedRate> {
    const own = this.#known.learned;
    const stored = readFields(await this.store.getFields(this.name), this.#known).learned;
    const newer = stored.fellAt > own.fellAt ? stored : own;
    return { ...newer, heldUntil: Math.max(stored.heldUntil, own.heldUntil) };
  }

  async #setLearned(learned: LearnedRate): Promise<void> {
    this.#known = { ...this.#known, learned };
    await this.store.setFields(this.name, { learned: JSON.stringify(learned) });
  }

  #noteChange(before: Limits): boolean {
    const text = ({ rate, pollRate, maxInFlight }: Limits) =>
      `${formatRate(rate)}, polls ${formatRate(pollRate)}, ${maxInFlight} in flight`;
    if (text(before) === text(this.configured)) return false;
    this.#change = `the account's limits are now ${text(this.configured)} (were ${text(before)})`;
    this.logger.info(this.#change);
    return true;
  }
}

/**
 * The learned rate: which share of the configured rate the API lets through at the moment.
 *
 * A 429 halves it at once; time alone brings it back, in small steps. Since the way back is a function of
 * time, nothing has to be written on it: all workers compute the same share from the one record of the
 * last fall.
 */
export type LearnedRate = Readonly<z.infer<typeof learnedSchema>>;

export const FULL_RATE: LearnedRate = { share: 1, fellAt: 0, heldUntil: 0, streak: 0 };
const UNKNOWN: KnownLimits = { configured: DEFAULT_LIMITS, learned: FULL_RATE };

const LOWEST_SHARE = 0.1;
const FALL_FACTOR = 0.5;
const STEP_SHARE = 0.05;
const STEP_MS = 2000;
/** 429s that come this soon after a fall, or while the queue waits, were on their way when it happened. */
const SAME_STORM_MS = 1000;
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;

/** Clocks of several machines differ by so much. */
const CLOCK_SKEW_MS = 60_000;

/** A fall that has not happened yet was recorded by a clock that has gone back since: it is worth nothing. */
function unlessFromTheFuture(learned: LearnedRate, nowMs: number): LearnedRate {
  return learned.fellAt > nowMs + CLOCK_SKEW_MS ? FULL_RATE : learned;
}

/** The share at `nowMs`: back to 1 within 38 s of the end of the pause, from wherever it fell to. */
export function shareAt(recorded: LearnedRate, nowMs: number): number {
  const learned = unlessFromTheFuture(recorded, nowMs);
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
  recorded: LearnedRate,
  nowMs: number,
  retryAfterMs: number | undefined,
): { learned: LearnedRate; pauseMs: number } {
  const learned = unlessFromTheFuture(recorded, nowMs);
  const sameStorm = nowMs < Math.max(learned.fellAt + SAME_STORM_MS, learned.heldUntil) && learned.fellAt > 0;
  const streak = sameStorm || retryAfterMs !== undefined ? learned.streak : learned.streak + 1;
  const grown = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (Math.max(1, streak) - 1));
  const pauseMs = retryAfterMs ?? Math.max(grown, sameStorm ? learned.heldUntil - nowMs : 0);
  const heldUntil = Math.max(learned.heldUntil, nowMs + pauseMs);
  if (sameStorm) return { learned: { ...learned, heldUntil }, pauseMs };
  const share = Math.max(LOWEST_SHARE, shareAt(learned, nowMs) * FALL_FACTOR);
  return { learned: { share, fellAt: nowMs, heldUntil, streak }, pauseMs };
}

/** What a success makes of it: the growing pause starts over. */
export function afterSubmit(learned: LearnedRate): LearnedRate {
  return { ...learned, streak: 0 };
}
