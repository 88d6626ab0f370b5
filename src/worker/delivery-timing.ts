const SAMPLES = 64;
const SLOW_SHARE = 0.9;
const MISSED_IN_A_ROW = 3;

/**
 * What a worker has learned of deliveries: how long it takes until one comes, and whether they come at all.
 *
 * Only completions that a delivery told count, since their moment is known. What a rare poll finds is late by
 * half the time waited: learned from, it would make the next poll later still.
 */
export class DeliveryTiming {
  readonly #samples: number[] = [];
  #next = 0;
  #missed = 0;

  /** @param rememberedMs what `slowMs` was in an earlier process */
  constructor(private readonly rememberedMs?: number) {}

  /** A delivery came, and its message was completed. @param tookMs since the submit, where that is known */
  came(tookMs: number | undefined): void {
    this.#missed = 0;
    if (tookMs === undefined) return;
    this.#samples[this.#next] = tookMs;
    this.#next = (this.#next + 1) % SAMPLES;
  }

  /** A poll found the message completed, and no delivery had told so. */
  missed(): void {
    this.#missed++;
  }

  /** False when the last ones did not come: then messages are asked for as without webhooks. */
  get areComing(): boolean {
    return this.#missed < MISSED_IN_A_ROW;
  }

  /** Milliseconds within which nine in ten describes have been completed; undefined when none was seen. */
  get slowMs(): number | undefined {
    if (this.#samples.length === 0) return this.rememberedMs;
    const sorted = [...this.#samples].sort((a, b) => a - b);
    return sorted[Math.floor((sorted.length - 1) * SLOW_SHARE)];
  }
}

/**
 * When to ask for a message whose delivery is expected: well after nearly all would have come, then rarely.
 * @returns milliseconds until the next poll
 */
export function rarePollDelayMs(waitedMs: number, slowMs: number | undefined): number {
  if (slowMs === undefined) return clamp(waitedMs, 5000, 30_000);
  const firstMs = slowMs * 1.5 + 2000;
  if (waitedMs < firstMs) return firstMs - waitedMs;
  return clamp(waitedMs / 2, 2000, 60_000);
}

/** How long a submit whose answer was lost waits for its delivery before it is made again. */
export function rescuePatienceMs(slowMs: number | undefined): number {
  if (slowMs === undefined) return 90_000;
  return clamp(slowMs * 2 + 5000, 10_000, 10 * 60_000);
}

function clamp(value: number, min: number, max: number): number {
  return Math.min(max, Math.max(min, value));
}
