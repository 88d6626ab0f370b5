import { setMaxListeners } from 'node:events';
import { judgePollFailure, type PollVerdict } from '../describe-api/attempt-policy.js';
import type { DescribeClient, Message } from '../describe-api/client.js';
import { ConnectionError, StatusError, isAnswer, isUnreachable } from '../describe-api/errors.js';
import { isMomentary } from '../describe-api/http.js';
import { messageOf } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import { type RateLimiter, limiterName } from '../shared/queue/limiter.js';
import { retryUntilUp } from '../shared/queue/outage.js';
import { sleep, unlessAborted } from '../shared/waiting.js';
import type { DeliveryWatch } from '../webhook/deliveries.js';
import type { Processing, ProcessingDeps } from './processing.js';
import { rarePollDelayMs } from './webhooks.js';
import type { WorkerMetrics } from './worker-metrics.js';

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
    watch?.alsoFor(messageId);
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

/** `polls` are the calls so far that are this message's to count. */
type Turn = { readonly polls: number } & (
  | { readonly kind: 'message'; readonly message: Message }
  /** It has a permit, and is to be asked for alone. */
  | { readonly kind: 'alone' }
  | { readonly kind: 'end' }
);

/** What the permit of a group was used for; without messages it was not used, and is the first one's. */
interface Asked {
  readonly messages?: ReadonlyMap<string, Message>;
  readonly calls: number;
}

/**
 * When the messages of a worker may be asked for. Each waits for a permit; where the API has a call for many messages, those
 * that wait at the same time share a permit and a call.
 *
 * That call only saves calls. Whatever it does not tell of a message, and whatever goes wrong with it, is left to asking for
 * the message alone: nothing is given up for what a list says, or leaves out.
 */
export class PollTurns {
  #waiting: { readonly ids: string[]; readonly asked: Promise<Asked | undefined> } | undefined;
  #isWithoutList = false;

  constructor(
    private readonly deps: {
      readonly client: Pick<DescribeClient, 'dialect' | 'messages'>;
      readonly limiter: RateLimiter;
      readonly metrics: WorkerMetrics;
      readonly logger: Logger;
      readonly stopping: AbortSignal;
    },
  ) {
    // Each call that is under way listens.
    setMaxListeners(0, deps.stopping);
  }

  /** @param stopping of this message alone, or of all */
  async take(messageId: string, stopping: AbortSignal): Promise<Turn> {
    const { client, limiter } = this.deps;
    const most = this.#isWithoutList ? undefined : client.dialect.list?.most;
    let polls = 0;
    if (most !== undefined) {
      const { ids, asked } = this.#join(most);
      const isFirst = ids.push(messageId) === 1;
      const shared = await unlessAborted(asked, stopping).catch((error: unknown) => {
        if (!stopping.aborted) throw error;
        return undefined;
      });
      if (shared === undefined) return { kind: 'end', polls };
      if (isFirst) polls = shared.calls;
      const message = shared.messages?.get(messageId);
      if (message !== undefined) return { kind: 'message', message, polls };
      if (isFirst && shared.messages === undefined) return { kind: 'alone', polls };
    }
    return { kind: (await limiter.take(stopping)) ? 'alone' : 'end', polls };
  }

  /** Those that wait for the next permit, or a new group where they are enough for a call. */
  #join(most: number): { readonly ids: string[]; readonly asked: Promise<Asked | undefined> } {
    if (this.#waiting !== undefined && this.#waiting.ids.length < most) return this.#waiting;
    const ids: string[] = [];
    return (this.#waiting = { ids, asked: this.#ask(ids) });
  }

  /** @returns undefined when the worker stops */
  async #ask(ids: readonly string[]): Promise<Asked | undefined> {
    const { client, limiter, metrics, stopping } = this.deps;
    const hasPermit = await limiter.take(stopping).finally(() => {
      if (this.#waiting?.ids === ids) this.#waiting = undefined;
    });
    if (!hasPermit) return undefined;
    if (ids.length === 1 || this.#isWithoutList) return { calls: 0 };
    try {
      return { messages: await metrics.poll(client.messages(ids, { signal: stopping })), calls: 1 };
    } catch (error) {
      this.#learn(error);
      return { messages: new Map(), calls: error instanceof ConnectionError ? 0 : 1 };
    }
  }

  /** What fails for the moment is tried again next time; a server that fails otherwise does not have the call. */
  #learn(error: unknown): void {
    const isPassing = error instanceof StatusError && isMomentary(error.status);
    if (this.#isWithoutList || !isAnswer(error) || isPassing) return;
    this.#isWithoutList = true;
    this.deps.logger.info(`messages are asked for one by one from now on: ${messageOf(error)}`);
  }
}
