import { backoffMs } from '../describe-api/attempt-policy.js';
import type { CompletedMessage } from '../describe-api/client.js';
import type { DescribeJobData } from '../shared/jobs.js';
import { sleep } from '../shared/waiting.js';
import { pollOnce } from './message-polls.js';
import {
  type ActiveJob,
  type ProcessingDeps,
  type ProcessingOutcome,
  releaseAndTakeNoMore,
  releaseStopped,
} from './processing.js';
import { publishDescribed, publishFailed } from './publish-result.js';
import { type Callback, recoveryPatienceMs, type Webhooks } from './webhooks.js';

/*
 * Unconfirmed submits: their answers were lost, so they may have been paid for. Without webhooks they are counted; with
 * webhooks their deliveries are waited for first, which may still confirm them.
 */

/** Unconfirmed submits of one image whose deliveries are waited for, the last ones. */
const MOST_UNCONFIRMED = 5;
const UNASKED_TRIES = 5;

/** A processing makes one submit at most, so that its number tells which. */
export function seedOf(job: ActiveJob, processing: number): string {
  return `${job.identity}#${processing}`;
}

/**
 * Processings that ended in a crash may each have lost a submit's answer. A count that is lower than the
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
  if (crashed.length > 0) job.log(`${count} earlier processing(s) crashed: a submit may have been lost`);
  const unconfirmed = [...unanswered, ...crashed];
  const waitedFor = canWait ? unconfirmed.slice(-MOST_UNCONFIRMED) : [];
  return {
    ...orderly,
    maybePaid: job.data.maybePaid + unconfirmed.length - waitedFor.length,
    unanswered: waitedFor.length > 0 ? waitedFor : undefined,
  };
}

/** Waits for the deliveries of submits that a crash or a stop has cut off from their answers. */
export async function recoverUnconfirmed(
  job: ActiveJob,
  data: DescribeJobData,
  unconfirmed: readonly number[],
  deps: ProcessingDeps,
  stopping: AbortSignal,
): Promise<ProcessingOutcome> {
  // A crash while it is waited is no crash with a submit on the wire: this processing submits nothing.
  await job.save(data);
  const callbacks = unconfirmed.flatMap((processing) => {
    const callback = deps.webhooks?.callback(seedOf(job, processing));
    return callback === undefined ? [] : [callback];
  });
  try {
    const ended = await awaitRecovery(job, data, callbacks, deps, stopping);
    if ('kind' in ended) return ended;
    if (ended.attempts < ended.maxAttempts)
      return { kind: 'release', data: ended, why: 'it is to be submitted again' };
    return await publishFailed(
      job,
      ended,
      { code: 'network', reason: 'the answers to its submits were lost' },
      deps,
    );
  } finally {
    for (const { watch } of callbacks) watch.end();
  }
}

/**
 * @param data with the unconfirmed submits as `unanswered`
 * @returns what becomes of the job; or, when no delivery came, the data with those counted as perhaps paid
 */
export async function awaitRecovery(
  job: ActiveJob,
  data: DescribeJobData,
  callbacks: readonly Callback[],
  deps: ProcessingDeps,
  stopping: AbortSignal,
): Promise<ProcessingOutcome | DescribeJobData> {
  const unconfirmed = data.unanswered?.length ?? 0;
  const counted = { ...data, unanswered: undefined, maybePaid: data.maybePaid + unconfirmed };
  if (deps.webhooks === undefined) return counted;
  const recovery = await recoverSubmit(job, callbacks, deps.webhooks, deps, stopping);
  const polls = data.polls + recovery.polls;
  switch (recovery.kind) {
    case 'nothing':
      job.log('no delivery came: it is to be submitted again');
      return { ...counted, polls };
    case 'unasked':
      return { kind: 'delay', data: { ...data, polls }, ms: backoffMs(UNASKED_TRIES, Math.random()) };
    case 'stopping':
      return releaseStopped({ ...data, polls });
    case 'token':
      return releaseAndTakeNoMore({ ...data, polls }, deps, 'token', recovery.reason);
    case 'recovered': {
      const { messageId, prompts } = recovery.message;
      job.log(`its delivery came: message ${messageId} was paid for, and is not submitted again`);
      const rescued = (data.rescued ?? 0) + 1;
      const confirmed = { ...counted, polls, messageId, rescued, maybePaid: counted.maybePaid - 1 };
      return publishDescribed(job, confirmed, prompts, deps);
    }
  }
}

/** How the waiting for the delivery of an unconfirmed submit has ended; `polls` is how many it took. */
export type Recovery = { readonly polls: number } & (
  | { readonly kind: 'recovered'; readonly message: CompletedMessage }
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

type RecoveryDeps = Pick<
  ProcessingDeps,
  'client' | 'pollLimiter' | 'health' | 'connection' | 'queue' | 'now'
>;

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
 * Waits for the delivery of an unconfirmed submit, for as long as describes have been taking. What the delivery says is
 * not trusted: its message is asked for at the API, and has to bear the submit's ref, where the API gives refs back.
 *
 * Messages that are not there yet are asked for in turn, so that a forged delivery holds up none that is true.
 * @param callbacks of the submits that may have been paid for, already watched
 */
export async function recoverSubmit(
  job: Pick<ActiveJob, 'image' | 'log'>,
  callbacks: readonly Callback[],
  webhooks: Webhooks,
  deps: RecoveryDeps,
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
  await webhooks.notifyEarlier(callbacks);
  for (;;) {
    open = [...open, ...namedSince(callbacks, known, deps.now())];
    const [next] = [...open].sort((a, b) => a.nextAt - b.nextAt);
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
  deps: RecoveryDeps,
  stopping: AbortSignal,
): Promise<Recovery | { readonly kind: 'later'; readonly polls: number }> {
  if (!(await deps.pollLimiter.take(stopping))) return { kind: 'stopping', polls: 0 };
  const poll = await pollOnce(named.messageId, image, deps, stopping, () => Infinity);
  const { polls } = poll;
  if (poll.kind === 'stopping') return { kind: 'stopping', polls };
  if (poll.kind === 'failure') {
    const { verdict } = poll;
    if (verdict.action === 'stop') return { kind: 'token', reason: verdict.reason, polls };
    // A 404 says that there is no such message (yet); what says nothing about it is asked again later.
    if (!verdict.countsAsDown && verdict.retryAfterMs === undefined) named.isAnswered = true;
  } else {
    const { message } = poll;
    if (message.status === 'completed' && isOfSubmit(message, named.ref, deps.client.dialect))
      return { kind: 'recovered', message, polls };
    if (message.status !== 'working') return { kind: 'nothing', polls };
    named.isAnswered = true;
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
  { givesRefs = false }: RecoveryDeps['client']['dialect'],
): boolean {
  return message.ref === ref || (message.ref === undefined && !givesRefs);
}
