import { backoffMs } from '../describe-api/attempt-policy.js';
import { judgePollFailure } from '../describe-api/attempt-policy.js';
import { ConnectionError } from '../describe-api/errors.js';
import type { CompletedMessage } from '../describe-api/client.js';
import { sleep } from '../shared/waiting.js';
import type { ProcessingDeps, ActiveJob } from './processing.js';
import { recoveryPatienceMs } from './webhooks.js';
import type { Callback, Webhooks } from './webhooks.js';
import type { DescribeJobData } from '../shared/jobs.js';
import { described, type ProcessingOutcome, failed } from './processing.js';

/** How the waiting for the delivery of a submit whose answer was lost has ended; `polls` is how many it took. */
export type Recovery = { readonly polls: number } & (
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

type Tools = Pick<ProcessingDeps, 'client' | 'takePollPermit' | 'health' | 'holdPolls' | 'now'>;

/** A message that a delivery named, and what asking for it has come to. */
interface Named {
  readonly messageId: string;
  readonly ref: string;
  tries: number;
  /** Whether the API has said anything about it. */
  isAnswered: boolean;
  nextAt: number;
}

/**
 * Waits for the delivery of a submit that may have been paid for although its answer was lost, for as long as
 * describes have been taking. What the delivery says is not trusted: its message is asked for at the API, and has to
 * bear the submit's ref, where the API gives refs back.
 *
 * Messages that are not there yet are asked for in turn, so that a forged delivery holds up none that is true.
 * @param callbacks of the submits that may have been paid for, already watched
 */
export async function recoverSubmit(
  job: Pick<ActiveJob, 'image' | 'log'>,
  callbacks: readonly Callback[],
  webhooks: Webhooks,
  deps: Tools,
  stopping: AbortSignal,
): Promise<Recovery> {
  const patienceMs = recoveryPatienceMs(webhooks.timing.slowMs);
  const giveUpAt = deps.now() + patienceMs;
  const known = new Set<string>();
  let open: readonly Named[] = [];
  let polls = 0;
  job.log(
    `the answer to a submit was lost: waiting up to ${Math.ceil(patienceMs / 1000)} s for its delivery`,
  );
  await webhooks.ringEarlier(callbacks);
  for (;;) {
    open = [...open, ...namedSince(callbacks, known, deps.now())];
    const next = open.reduce<Named | undefined>(
      (a, b) => (a === undefined || b.nextAt < a.nextAt ? b : a),
      undefined,
    );
    const now = deps.now();
    if (next !== undefined && next.nextAt <= now) {
      const answer = await ask(next, job.image, deps, stopping);
      polls += answer.polls;
      if (answer.kind === 'nothing') open = open.filter((named) => named !== next);
      else if (answer.kind !== 'later') return { ...answer, polls };
      continue;
    }
    if (stopping.aborted) return { kind: 'stopping', polls };
    const until = next?.nextAt ?? giveUpAt;
    if (until <= now) return { kind: 'nothing', polls };
    await sleep(until - now, AbortSignal.any([stopping, ...callbacks.map(({ watch }) => watch.came)]));
  }
}

/** Takes what has come, and adds it to what is known. @returns the messages that were not named before */
function namedSince(callbacks: readonly Callback[], known: Set<string>, now: number): Named[] {
  return callbacks.flatMap(({ ref, watch }) => {
    const { messageId } = watch;
    const isNew = watch.take() && messageId !== undefined && !known.has(messageId);
    if (!isNew || known.size >= MOST_MESSAGES) return [];
    known.add(messageId);
    return [{ messageId, ref, tries: 0, isAnswered: false, nextAt: now }];
  });
}

/** Asks for a message once. `nothing`: it is not this submit's, or was asked for often enough. */
async function ask(
  named: Named,
  image: string,
  deps: Tools,
  stopping: AbortSignal,
): Promise<Recovery | { readonly kind: 'later'; readonly polls: number }> {
  if (!(await deps.takePollPermit(stopping))) return { kind: 'stopping', polls: 0 };
  let polls = 1;
  try {
    const message = await deps.client.message(named.messageId, { signal: stopping });
    if (message.status === 'incomplete') return { kind: 'nothing', polls };
    if (message.status === 'completed') {
      return isOfSubmit(message, named.ref, deps.client.dialect)
        ? { kind: 'rescued', message, polls }
        : { kind: 'nothing', polls };
    }
    named.isAnswered = true;
  } catch (error) {
    if (stopping.aborted) return { kind: 'stopping', polls };
    if (error instanceof ConnectionError) polls = 0;
    const verdict = judgePollFailure(error);
    if (verdict.action === 'stop') return { kind: 'token', reason: verdict.reason, polls };
    // A 404 says that there is no such message (yet); what says nothing about it is asked again later.
    if (!verdict.countsAsDown && verdict.retryAfterMs === undefined) named.isAnswered = true;
    if (verdict.countsAsDown) deps.health.failed('poll', image);
    if (verdict.retryAfterMs !== undefined) await deps.holdPolls(verdict.retryAfterMs);
  }
  named.tries++;
  named.nextAt = deps.now() + backoffMs(named.tries, Math.random());
  if (named.tries < TRIES) return { kind: 'later', polls };
  return { kind: named.isAnswered ? 'nothing' : 'unasked', polls };
}

/** An API that gives refs back gives each message the very ref of its submit, or it is another one's. */
function isOfSubmit(
  message: CompletedMessage,
  ref: string,
  { givesRefs = false }: Tools['client']['dialect'],
): boolean {
  return message.ref === ref || (message.ref === undefined && !givesRefs);
}

// Submits whose answers were lost: they may have been paid for, and their deliveries may still tell.

/** Lost submits of one image whose deliveries are waited for, the last ones. */
const MOST_UNCONFIRMED = 5;
const UNASKED_TRIES = 5;

/** An activation makes one submit at most, so that its number tells which. */
export function seedOf(job: ActiveJob, activation: number): string {
  return `${job.identity}#${activation}`;
}

/**
 * Activations that ended without a word may each have lost a submit's answer. A count that is lower than the
 * stored one was set back from outside (BullMQ's "retry all"): counting starts over.
 * @param canWait whether their deliveries can be waited for, before they are counted
 */
export async function countCrashes(job: ActiveJob, canWait: boolean): Promise<DescribeJobData> {
  const { attemptsStarted } = job;
  const { orderlyStarts, messageId, unanswered = [] } = job.data;
  const orderly = { ...job.data, orderlyStarts: attemptsStarted };
  if (attemptsStarted <= orderlyStarts) {
    await job.save({ ...job.data, orderlyStarts: attemptsStarted - 1 });
    return orderly;
  }
  const count = attemptsStarted - orderlyStarts - 1;
  const crashed =
    messageId === undefined ? Array.from({ length: count }, (_, i) => orderlyStarts + 1 + i) : [];
  if (crashed.length > 0) {
    job.log(`${count} earlier activation(s) ended by a crash: a submit may have been lost`);
  }
  const lost = [...unanswered, ...crashed];
  const waitedFor = canWait ? lost.slice(-MOST_UNCONFIRMED) : [];
  return {
    ...orderly,
    maybePaid: job.data.maybePaid + lost.length - waitedFor.length,
    unanswered: waitedFor.length > 0 ? waitedFor : undefined,
  };
}

/** Waits for the deliveries of submits that a crash or a stop has cut off from their answers. */
export async function recoverUnconfirmed(
  job: ActiveJob,
  data: DescribeJobData,
  unanswered: readonly number[],
  deps: ProcessingDeps,
  stopping: AbortSignal,
): Promise<ProcessingOutcome> {
  // A crash while it is waited is no crash with a submit on the wire: nothing is submitted in this activation.
  await job.save(data);
  const callbacks = unanswered.flatMap((activation) => {
    const callback = deps.webhooks?.callback(seedOf(job, activation));
    return callback === undefined ? [] : [callback];
  });
  try {
    const ended = await awaitRecovery(job, data, callbacks, deps, stopping);
    if ('kind' in ended) return ended;
    if (ended.attempts < ended.maxAttempts) return { kind: 'release', data: ended };
    return failed(job, ended, 'network', 'the answers to its submits were lost');
  } finally {
    for (const { watch } of callbacks) watch.end();
  }
}

/**
 * @param data with the submits that may have been paid for as `unanswered`
 * @returns the ending; or, when no delivery came, the data with those counted as perhaps paid
 */
export async function awaitRecovery(
  job: ActiveJob,
  data: DescribeJobData,
  callbacks: readonly Callback[],
  deps: ProcessingDeps,
  stopping: AbortSignal,
): Promise<ProcessingOutcome | DescribeJobData> {
  const lost = data.unanswered?.length ?? 0;
  const given = { ...data, unanswered: undefined, maybePaid: data.maybePaid + lost };
  if (deps.webhooks === undefined) return given;
  const rescue = await recoverSubmit(job, callbacks, deps.webhooks, deps, stopping);
  const polls = data.polls + rescue.polls;
  switch (rescue.kind) {
    case 'nothing':
      job.log('no delivery came: it is to be submitted again');
      return { ...given, polls };
    case 'unasked':
      return { kind: 'delay', data: { ...data, polls }, ms: backoffMs(UNASKED_TRIES, Math.random()) };
    case 'stopping':
      return { kind: 'release', data: { ...data, polls } };
    case 'token':
      return { kind: 'stop', data: { ...data, polls }, why: 'token', reason: rescue.reason };
    case 'rescued': {
      const { messageId, prompts } = rescue.message;
      job.log(`its delivery came: message ${messageId} was paid for, and is not submitted again`);
      const rescued = (data.rescued ?? 0) + 1;
      return described(job, { ...given, polls, messageId, rescued, maybePaid: given.maybePaid - 1 }, prompts);
    }
  }
}
