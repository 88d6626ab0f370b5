import { judgePollFailure, type PollVerdict } from '../describe-api/attempt-policy.js';
import type { Message } from '../describe-api/client.js';
import { ConnectionError, isAnswer, isUnreachable } from '../describe-api/errors.js';
import { limiterName } from '../shared/queue/limiter.js';
import { retryUntilUp } from '../shared/queue/outage.js';
import { sleep } from '../shared/waiting.js';
import type { DeliveryWatch } from '../webhook/deliveries.js';
import type { Processing, ProcessingDeps } from './processing.js';
import { rarePollDelayMs } from './webhooks.js';

/** How asking for a message once has ended; `polls` counts the call, where it reached the API. */
type Poll = { readonly polls: number } & (
  | { readonly kind: 'message'; readonly message: Message }
  | { readonly kind: 'failure'; readonly error: unknown; readonly verdict: PollVerdict & { action: 'retry' } }
  /** The image is to be released; because the token was refused, where there is a refusal. */
  | { readonly kind: 'end'; readonly refusal?: PollVerdict & { action: 'stop' } }
);

/**
 * Asks for a message once, when there is a permit. Where the API says how long to wait (429), all polls of the account
 * wait.
 * @param longestHoldMs they wait no longer than that
 */
export async function pollOnce(
  { job, deps, stopping }: Processing,
  messageId: string,
  longestHoldMs: () => number,
): Promise<Poll> {
  const { client, metrics, health, connection, queue } = deps;
  const turn = await deps.pollTurns.take(messageId, stopping);
  if (turn.kind === 'message') health.succeeded('poll');
  if (turn.kind !== 'alone') return turn;
  let polls = turn.polls + 1;
  try {
    const message = await metrics.poll(client.message(messageId, { signal: stopping }));
    health.succeeded('poll');
    return { kind: 'message', message, polls };
  } catch (error) {
    if (stopping.aborted) return { kind: 'end', polls };
    if (error instanceof ConnectionError) polls--;
    const verdict = judgePollFailure(error);
    if (verdict.countsAsDown) health.failed('poll', job.image, verdict.reason, isUnreachable(error));
    else if (isAnswer(error)) health.answered('poll');
    if (verdict.action === 'stop') return { kind: 'end', refusal: verdict, polls };
    if (verdict.retryAfterMs !== undefined) {
      const ms = Math.max(0, Math.min(verdict.retryAfterMs, longestHoldMs()));
      await retryUntilUp(connection, () => connection.store.holdPermits(limiterName('poll', queue.name), ms));
    }
    return { kind: 'failure', error, verdict, polls };
  }
}

/** Deliveries that lead to a poll of one message at most, and how long they go unheard after one that was wrong. */
const MOST_WAKES = 3;
const DEAF_MS = 1000;
const DEAF_GROWTH = 4;

/**
 * When one message is due to be polled: by the clock, or with webhooks when its delivery has come; by the clock
 * only rarely then, unless deliveries do not come.
 *
 * A delivery proves nothing, it may be forged or doubled. Each leads to one poll at most; after one that led to
 * nothing the next is heard a second later, then four, and after the third no more: the clock is left.
 */
export class MessagePolls {
  #wakes = 0;
  #deafUntil = -Infinity;
  #isWoken = false;
  #isRare = false;

  constructor(
    private readonly deps: Pick<ProcessingDeps, 'schedule' | 'metrics' | 'webhooks' | 'now'>,
    private readonly watch: DeliveryWatch | undefined,
    messageId: string,
  ) {
    if (watch !== undefined) deps.webhooks?.inbox.alsoFor(watch, messageId);
  }

  /** @returns milliseconds until the next poll by the clock */
  dueMs(waitedMs: number, failures: number): number {
    const { schedule, webhooks } = this.deps;
    this.#isRare = webhooks?.areComing === true && failures === 0;
    if (!this.#isRare) return schedule.nextDelayMs(waitedMs, failures);
    return rarePollDelayMs(waitedMs, schedule.slowMs);
  }

  /** Waits until it is due, or a delivery has come; false when the signal aborted first. */
  async come(dueMs: number, stopping: AbortSignal): Promise<boolean> {
    this.#isWoken = false;
    const { watch } = this;
    if (watch === undefined || this.#wakes >= MOST_WAKES) return sleep(dueMs, stopping);
    const dueAt = this.deps.now() + dueMs;
    const deafMs = Math.min(dueMs, this.#deafUntil - this.deps.now());
    if (deafMs > 0 && !(await sleep(deafMs, stopping))) return false;
    const leftMs = dueAt - this.deps.now();
    if (leftMs > 0) await sleep(leftMs, AbortSignal.any([stopping, watch.came]));
    if (stopping.aborted) return false;
    if (!watch.take()) return true;
    this.#isWoken = true;
    this.#deafUntil = this.deps.now() + DEAF_MS * DEAF_GROWTH ** this.#wakes;
    this.#wakes++;
    return true;
  }

  /**
   * The poll has found the message completed.
   * @param sinceSubmit false when nobody knows how long the submit is ago
   */
  completed(waitedMs: number, gapMs: number, sinceSubmit: boolean): void {
    const { schedule, metrics, webhooks } = this.deps;
    if (this.#isWoken) webhooks?.came();
    else if (sinceSubmit) webhooks?.missed();
    // What a rare poll finds is late by half the time waited: learned from, it would make the next poll later still.
    if (!sinceSubmit || (this.#isRare && !this.#isWoken)) return;
    const lateMs = this.#isWoken ? 0 : gapMs;
    schedule.completed(waitedMs, lateMs);
    metrics.completed(waitedMs, lateMs);
  }
}
