import { setMaxListeners } from 'node:events';
import type { DescribeClient, Message } from '../describe-api/client.js';
import { ConnectionError, StatusError, isAnswer } from '../describe-api/errors.js';
import { messageOf } from '../shared/errors.js';
import type { Logger } from '../shared/log.js';
import type { RateLimiter } from '../shared/queue/limiter.js';
import { unlessAborted } from '../shared/waiting.js';
import type { WorkerMetrics } from './worker-metrics.js';

/** `polls` are the calls so far that are this message's to count. */
type Turn = { readonly polls: number } & (
  | { readonly kind: 'message'; readonly message: Message }
  /** It has a permit, and is to be asked for alone. */
  | { readonly kind: 'alone' }
  /** The signal has aborted. */
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
      /** Aborts when the worker asks for nothing any more. */
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

  #learn(error: unknown): void {
    if (this.#isWithoutList || !isLacking(error)) return;
    this.#isWithoutList = true;
    this.deps.logger.info(`messages are asked for one by one from now on: ${messageOf(error)}`);
  }
}

/** Whether a server that fails like this does not have the call; what fails for the moment is tried again next time. */
function isLacking(error: unknown): boolean {
  const isPassing = error instanceof StatusError && (error.status >= 500 || error.status === 429);
  return isAnswer(error) && !isPassing;
}
