import { backoffMs } from '../describe-api/backoff.js';
import { judgePollFailure } from '../describe-api/attempt-policy.js';
import { ConnectionError } from '../describe-api/errors.js';
import type { CompletedMessage } from '../describe-api/client.js';
import { sleep } from '../shared/sleep.js';
import type { ActivationTools, ActiveJob } from './activation-tools.js';
import { rescuePatienceMs } from './delivery-timing.js';
import type { Callback, Webhooks } from './webhook-tools.js';

/** How the waiting for the delivery of a submit whose answer was lost has ended; `polls` is how many it took. */
export type Rescue = { readonly polls: number } & (
  | { readonly kind: 'rescued'; readonly message: CompletedMessage }
  /** None came in time: the submit is to be made again. */
  | { readonly kind: 'nothing' }
  /** One came, and the API cannot be asked: the waiting is to begin anew. */
  | { readonly kind: 'unasked' }
  | { readonly kind: 'stopping' }
  | { readonly kind: 'token'; readonly reason: string }
);

/** Messages that are asked for at most, of all that deliveries name, and how often each. */
const MOST_MESSAGES = 3;
const TRIES = 6;

type Tools = Pick<ActivationTools, 'client' | 'takePollSlot' | 'health' | 'holdPolls' | 'now'>;

/**
 * Waits for the delivery of a submit that may have been paid for although its answer was lost, for as long as
 * describes have been taking. What the delivery says is not trusted: its message is asked for at the API, and has to
 * bear the submit's ref, where the API gives refs back.
 * @param callbacks of the submits that may have been paid for, already watched
 */
export async function rescueSubmit(
  job: Pick<ActiveJob, 'image' | 'tell'>,
  callbacks: readonly Callback[],
  webhooks: Webhooks,
  tools: Tools,
  stopping: AbortSignal,
): Promise<Rescue> {
  const patienceMs = rescuePatienceMs(webhooks.timing.slowMs);
  const giveUpAt = tools.now() + patienceMs;
  const asked = new Set<string>();
  let polls = 0;
  job.tell(
    `the answer to a submit was lost: waiting up to ${Math.ceil(patienceMs / 1000)} s for its delivery`,
  );
  await webhooks.ringEarlier(callbacks);
  for (;;) {
    for (const callback of callbacks.filter(({ watch }) => watch.take())) {
      const { messageId } = callback.watch;
      if (messageId === undefined || asked.has(messageId) || asked.size >= MOST_MESSAGES) continue;
      asked.add(messageId);
      const answer = await askFor(messageId, callback.ref, job.image, tools, stopping);
      polls += answer.polls;
      if (answer.kind !== 'nothing') return { ...answer, polls };
    }
    if (stopping.aborted) return { kind: 'stopping', polls };
    const leftMs = giveUpAt - tools.now();
    if (leftMs <= 0) return { kind: 'nothing', polls };
    await sleep(leftMs, AbortSignal.any([stopping, ...callbacks.map(({ watch }) => watch.bell)]));
  }
}

async function askFor(
  messageId: string,
  ref: string,
  image: string,
  tools: Tools,
  stopping: AbortSignal,
): Promise<Rescue> {
  let polls = 0;
  let isAnswered = false;
  for (let tries = 1; tries <= TRIES; tries++) {
    if (!(await tools.takePollSlot(stopping))) return { kind: 'stopping', polls };
    polls++;
    try {
      const message = await tools.client.message(messageId, { signal: stopping });
      if (message.status === 'incomplete') return { kind: 'nothing', polls };
      if (message.status === 'completed') {
        const isOurs = message.ref === undefined || message.ref === ref;
        return isOurs ? { kind: 'rescued', message, polls } : { kind: 'nothing', polls };
      }
      isAnswered = true;
    } catch (error) {
      if (stopping.aborted) return { kind: 'stopping', polls };
      if (error instanceof ConnectionError) polls--;
      const verdict = judgePollFailure(error);
      if (verdict.action === 'stop') return { kind: 'token', reason: verdict.reason, polls };
      // A 404 says that there is no such message (yet); what says nothing about it is asked again later.
      if (!verdict.countsAsDown && verdict.retryAfterMs === undefined) isAnswered = true;
      if (verdict.countsAsDown) tools.health.failed('poll', image);
      if (verdict.retryAfterMs !== undefined) await tools.holdPolls(verdict.retryAfterMs);
    }
    await sleep(backoffMs(tries, Math.random()), stopping);
  }
  return { kind: isAnswered ? 'nothing' : 'unasked', polls };
}
