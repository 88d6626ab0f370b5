import { backoffMs } from '../describe-api/attempt-policy.js';
import type { CompletedMessage } from '../describe-api/client.js';
import type { Dialect } from '../describe-api/dialects/index.js';
import type { DescribeJobData } from '../shared/jobs.js';
import { plural } from '../shared/plural.js';
import { retryUntilUp } from '../shared/queue/outage.js';
import { sleep } from '../shared/waiting.js';
import { pollOnce } from './message-polls.js';
import {
  type ActiveJob,
  type Processing,
  type ProcessingOutcome,
  release,
  publishDescribed,
  publishFailed,
} from './processing.js';
import { type Callback, recoveryPatienceMs } from './webhooks.js';

/*
 * Unconfirmed submits: their answers were lost, so they may have been paid for. Without webhooks they are counted; with
 * webhooks their deliveries are waited for first, which may still confirm them.
 */

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
  if (crashed.length > 0)
    job.log(`${plural(count, 'earlier processing')} crashed: a submit may have been lost`);
  const unconfirmed = [...unanswered, ...crashed];
  if (canWait && unconfirmed.length > 0) return { ...orderly, unanswered: unconfirmed };
  return { ...orderly, maybePaid: job.data.maybePaid + unconfirmed.length, unanswered: undefined };
}

/**
 * Stores that a processing waits, and has submitted nothing yet: BullMQ has counted it when it began, and a crash would look
 * like that of a submit. An image that is submitted at once costs no call for this.
 */
export class WaitBeforeSubmit {
  #isStored = false;

  constructor(private readonly job: ActiveJob) {}

  /** @param data in which this processing counts as ended in order */
  async begin(data: DescribeJobData): Promise<void> {
    if (this.#isStored) return;
    this.#isStored = true;
    await this.job.save(data);
  }

  /**
   * Has to be awaited before the submit: from here on a crash may lose one.
   * @throws when the job's lock has run out meanwhile: whoever has it now counts no crash, and may have submitted it
   */
  async end(data: DescribeJobData): Promise<void> {
    if (!this.#isStored) return;
    await this.job.renewLock();
    await this.job.save({ ...data, orderlyStarts: this.job.attemptsStarted - 1 });
  }
}

/** Waits for the deliveries of submits that a crash or a stop has cut off from their answers. */
export async function recoverUnconfirmed(
  processing: Processing,
  data: DescribeJobData,
  unconfirmed: readonly number[],
): Promise<ProcessingOutcome> {
  const { job, deps } = processing;
  // A crash while it is waited is no crash with a submit on the wire: this processing submits nothing.
  await job.save(data);
  const callbacks = unconfirmed.flatMap((number) => deps.webhooks?.callback(seedOf(job, number)) ?? []);
  try {
    const ended = await awaitRecovery(processing, data, callbacks);
    if ('kind' in ended) return ended;
    if (ended.attempts < ended.maxAttempts)
      return { kind: 'release', data: ended, why: 'it is to be submitted again' };
    const reason = 'the answers to its submits were lost';
    return await publishFailed(processing, ended, { code: 'network', reason });
  } finally {
    for (const { watch } of callbacks) watch.end();
  }
}

/** Messages that are asked for at most, of all that deliveries name, and how often each. */
const MOST_MESSAGES = 3;
const TRIES = 6;

/** A message that a delivery named, and what asking for it has come to. */
interface Named {
  readonly messageId: string;
  readonly ref: string;
  tries: number;
  isAnswered: boolean;
  nextAt: number;
}

/**
 * Waits for the delivery of an unconfirmed submit, for as long as describes have been taking. What the delivery says is
 * not trusted: its message is asked for at the API, and has to bear the submit's ref, where the API gives refs back.
 *
 * Messages that are not there yet are asked for in turn, so that a forged delivery holds up none that is true.
 * @param data with the unconfirmed submits as `unanswered`
 * @param callbacks of the submits that may have been paid for, already watched; none where they cannot be waited for
 * @returns what becomes of the job; or, when no delivery came, the data with those counted as perhaps paid
 */
export async function awaitRecovery(
  processing: Processing,
  data: DescribeJobData,
  callbacks: readonly Callback[],
): Promise<ProcessingOutcome | DescribeJobData> {
  const { job, deps, stopping } = processing;
  const { webhooks } = deps;
  const maybePaid = data.maybePaid + (data.unanswered?.length ?? 0);
  const counted = { ...data, unanswered: undefined, maybePaid };
  if (webhooks === undefined || callbacks.length === 0) return counted;
  const patienceMs = recoveryPatienceMs(deps.schedule.slowMs);
  const giveUpAt = deps.now() + patienceMs;
  const known = new Set<string>();
  let open: readonly Named[] = [];
  let { polls } = data;
  const seconds = Math.ceil(patienceMs / 1000);
  job.log(`the answer to a submit was lost: waiting up to ${seconds} s for its delivery`);
  const refs = callbacks.map(({ ref }) => ref);
  await retryUntilUp(deps.connection, () => webhooks.inbox.lookUp(refs));
  for (;;) {
    open = [...open, ...namedSince(callbacks, known, deps.now())];
    const [next] = [...open].sort((a, b) => a.nextAt - b.nextAt);
    const now = deps.now();
    if (next === undefined || next.nextAt > now) {
      if (stopping.aborted) return release(processing, { ...data, polls });
      const until = next?.nextAt ?? giveUpAt;
      if (until <= now) {
        job.log('no delivery came: it is to be submitted again');
        return { ...counted, polls };
      }
      await sleep(until - now, AbortSignal.any([stopping, ...callbacks.map(({ watch }) => watch.came)]));
      continue;
    }
    const poll = await pollOnce(processing, next.messageId, () => Infinity);
    polls += poll.polls;
    if (poll.kind === 'end') return release(processing, { ...data, polls }, poll.refusal);
    const message = poll.kind === 'message' ? poll.message : undefined;
    const verdict = poll.kind === 'failure' ? poll.verdict : undefined;
    if (message?.status === 'completed' && isOfSubmit(message, next.ref, deps.client.dialect)) {
      const { messageId, prompts } = message;
      job.log(`its delivery came: message ${messageId} was paid for, and is not submitted again`);
      const rescued = (data.rescued ?? 0) + 1;
      const confirmed = { ...counted, polls, messageId, rescued, maybePaid: maybePaid - 1 };
      return publishDescribed(processing, confirmed, prompts);
    }
    next.tries++;
    next.nextAt = deps.now() + backoffMs(next.tries, Math.random());
    // A 404 says that there is no such message (yet); what says nothing about it is asked again later.
    next.isAnswered ||=
      verdict === undefined || (!verdict.countsAsDown && verdict.retryAfterMs === undefined);
    const isOther = message !== undefined && message.status !== 'working';
    if (!isOther && next.tries < TRIES) continue;
    open = open.filter((named) => named !== next);
    // It may be the submit's: the waiting is to begin anew.
    if (!next.isAnswered) return { kind: 'delay', data: { ...data, polls }, ms: next.nextAt - deps.now() };
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

/** An API that gives refs back gives each message the very ref of its submit, or it is another one's. */
function isOfSubmit(message: CompletedMessage, ref: string, { givesRefs = false }: Dialect): boolean {
  return message.ref === ref || (message.ref === undefined && !givesRefs);
}
