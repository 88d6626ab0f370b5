import { backoffMs } from '../describe-api/backoff.js';
import type { DescribeJobData } from '../shared/jobs.js';
import type { ActivationTools, ActiveJob } from './activation-tools.js';
import { type Ending, described, failed } from './ending.js';
import { rescueSubmit } from './rescue.js';
import type { Callback } from './webhook-tools.js';

// Submits whose answers were lost: they may have been paid for, and their deliveries may still tell.

/** Lost submits of one image whose deliveries are waited for, the last ones. */
const MOST_UNANSWERED = 5;
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
    job.tell(`${count} earlier activation(s) ended by a crash: a submit may have been lost`);
  }
  const lost = [...unanswered, ...crashed];
  const waitedFor = canWait ? lost.slice(-MOST_UNANSWERED) : [];
  return {
    ...orderly,
    maybePaid: job.data.maybePaid + lost.length - waitedFor.length,
    unanswered: waitedFor.length > 0 ? waitedFor : undefined,
  };
}

/** Waits for the deliveries of submits that a crash or a stop has cut off from their answers. */
export async function takeUpUnanswered(
  job: ActiveJob,
  data: DescribeJobData,
  unanswered: readonly number[],
  tools: ActivationTools,
  stopping: AbortSignal,
): Promise<Ending> {
  // A crash while it is waited is no crash with a submit on the wire: nothing is submitted in this activation.
  await job.save(data);
  const callbacks = unanswered.flatMap((activation) => {
    const callback = tools.webhooks?.callback(seedOf(job, activation));
    return callback === undefined ? [] : [callback];
  });
  try {
    const ended = await awaitRescue(job, data, callbacks, tools, stopping);
    if ('kind' in ended) return ended;
    if (ended.attempts < ended.maxAttempts) return { kind: 'hand-back', data: ended };
    return failed(job, ended, 'network', 'the answers to its submits were lost');
  } finally {
    for (const { watch } of callbacks) watch.end();
  }
}

/**
 * @param data with the submits that may have been paid for as `unanswered`
 * @returns the ending; or, when no delivery came, the data with those counted as perhaps paid
 */
export async function awaitRescue(
  job: ActiveJob,
  data: DescribeJobData,
  callbacks: readonly Callback[],
  tools: ActivationTools,
  stopping: AbortSignal,
): Promise<Ending | DescribeJobData> {
  const lost = data.unanswered?.length ?? 0;
  const given = { ...data, unanswered: undefined, maybePaid: data.maybePaid + lost };
  if (tools.webhooks === undefined) return given;
  const rescue = await rescueSubmit(job, callbacks, tools.webhooks, tools, stopping);
  const polls = data.polls + rescue.polls;
  switch (rescue.kind) {
    case 'nothing':
      job.tell('no delivery came: it is to be submitted again');
      return { ...given, polls };
    case 'unasked':
      return { kind: 'delay', data: { ...data, polls }, ms: backoffMs(UNASKED_TRIES, Math.random()) };
    case 'stopping':
      return { kind: 'hand-back', data: { ...data, polls } };
    case 'token':
      return { kind: 'stop', data: { ...data, polls }, why: 'token', reason: rescue.reason };
    case 'rescued': {
      const { messageId, prompts } = rescue.message;
      job.tell(`its delivery came: message ${messageId} was paid for, and is not submitted again`);
      const rescued = (data.rescued ?? 0) + 1;
      return described(job, { ...given, polls, messageId, rescued, maybePaid: given.maybePaid - 1 }, prompts);
    }
  }
}
