import type { Message, Submitted } from '../describe-api/client.js';
import { judgePollFailure, judgeSubmitFailure } from '../describe-api/attempt-policy.js';
import { backoffMs } from '../describe-api/backoff.js';
import { ConnectionError, RejectedError, StatusError, isAnswer } from '../describe-api/errors.js';
import { messageOf } from '../shared/errors.js';
import type { DescribeJobData, ResultJobData } from '../shared/jobs.js';
import type { ErrorCode, Outcome, Prompts } from '../shared/outcome.js';
import { sleep } from '../shared/sleep.js';
import type { ApiHealth } from './api-health.js';
import type { FirstPolls } from './first-polls.js';
import type { PollSchedule } from './poll-schedule.js';
import { PollTurns } from './poll-turns.js';
import { rescueSubmit } from './rescue.js';
import type { Callback, Webhooks } from './webhook-tools.js';

/**
 * One activation of a describe job: from where its data says it is to an ending.
 *
 *   no message --submit--> waiting for a message --poll--> completed: an outcome
 *       ^          |             |                             ^
 *       |          |             +--- expired or failed: a new submit
 *       |          +--- described at once: nothing is polled --+
 *       +---------------------------------------------------- (the new submit)
 *
 * With webhooks a submit whose answer was lost waits for its delivery before there is a new one: see rescue.ts.
 *
 * What a submit was paid for is saved before anything else is done: a job that has a messageId never submits, and
 * one that has the prompts as well hands them over.
 * Between two submits the activation ends ("delay"), so that every submit has passed the queue's limiter.
 */
export type Ending =
  /** The image has its outcome; `data` is what a failed job keeps for being taken up again. */
  | { readonly kind: 'outcome'; readonly result: ResultJobData; readonly data: DescribeJobData }
  /** To the head of the queue, for another worker. */
  | { readonly kind: 'hand-back'; readonly data: DescribeJobData }
  /** Try again after a while; takes a new token of the limiter. */
  | { readonly kind: 'delay'; readonly data: DescribeJobData; readonly ms: number }
  /** The whole queue waits. */
  | { readonly kind: 'hold'; readonly data: DescribeJobData; readonly ms: number }
  /** This worker waits, since the API is down for it; others may reach it. */
  | { readonly kind: 'rest'; readonly data: DescribeJobData; readonly ms: number }
  /** This worker's token is refused, or the account's quota is spent. */
  | { readonly kind: 'stop'; readonly data: DescribeJobData; readonly why: StopWhy; readonly reason: string };

export type StopWhy = 'token' | 'quota';

/** The job as the activation sees it. */
export interface ActiveJob {
  readonly image: string;
  /** Tells the job from all others, also from an earlier one of the same id. */
  readonly identity: string;
  readonly data: DescribeJobData;
  /** BullMQ's count of activations, this one included. */
  readonly attemptsStarted: number;
  /** Stores the data and does not give up while the queue is away. */
  save(data: DescribeJobData): Promise<void>;
  /** Tells people: the API's progress, and a line for the job's log. Never fails, never waits. */
  report(progress: number): void;
  tell(line: string): void;
}

interface SubmitCall {
  readonly url: string;
  readonly ref?: string;
  readonly webhookOverride?: string;
}

/** What an activation works with; all of it is shared by the worker's images. */
export interface ActivationTools {
  readonly client: {
    submit(request: SubmitCall, about: { deadlineMs: number }): Promise<Submitted>;
    message(messageId: string, options: { signal: AbortSignal }): Promise<Message>;
  };
  readonly health: ApiHealth;
  readonly schedule: PollSchedule;
  readonly firstPolls: FirstPolls;
  /** Waits for a slot of the account's rate of submits; false when the signal cut it short. */
  takeSubmitSlot(signal: AbortSignal): Promise<boolean>;
  /** Undefined where the API is to call nobody. */
  readonly webhooks?: Webhooks | undefined;
  /** Waits for a slot of the account's poll rate; false when the signal cut it short. */
  takePollSlot(signal: AbortSignal): Promise<boolean>;
  /** The polls of the whole account wait. */
  holdPolls(ms: number): Promise<void>;
  /** A submit went through or met a 429; the latter returns how long the queue is to wait. */
  submitted(): Promise<void>;
  refused(retryAfterMs: number | undefined): Promise<number>;
  /** The API takes no other submit for a while: the queue waits, and nothing else follows. */
  holdSubmits(ms: number): Promise<void>;
  /** Monotonic milliseconds: a machine's sleep does not count. */
  now(): number;
}

const QUOTA_DELAY_MS = 5000;
const QUOTA_TRIES = 3;
const LAST_MESSAGE_TRIES = 5;
/** Lost submits of one image whose deliveries are waited for, the last ones. */
const MOST_UNANSWERED = 5;

/**
 * Takes one image as far as it goes.
 * @param stopping aborts when the worker is to hand its images back; a submit on the wire is still awaited
 */
export async function describeImage(
  job: ActiveJob,
  tools: ActivationTools,
  stopping: AbortSignal,
): Promise<Ending> {
  // Before anything is awaited: an image that is activated after this one has to see it.
  const polled = job.data.messageId === undefined ? undefined : tools.firstPolls.expect();
  const submittedIn = job.data.messageId === undefined ? undefined : job.data.submittedIn;
  // Before anything is submitted, since a delivery can be faster than the submit's answer.
  const callback = tools.webhooks?.callback(seedOf(job, submittedIn ?? job.attemptsStarted));
  try {
    return await takeOnwards(job, tools, stopping, polled, callback);
  } finally {
    polled?.();
    callback?.watch.end();
  }
}

/** An activation makes one submit at most, so that its number tells which. */
function seedOf(job: ActiveJob, activation: number): string {
  return `${job.identity}#${activation}`;
}

async function takeOnwards(
  job: ActiveJob,
  tools: ActivationTools,
  stopping: AbortSignal,
  polled: (() => void) | undefined,
  callback: Callback | undefined,
): Promise<Ending> {
  let data = await countCrashes(job, tools.webhooks !== undefined);
  if (data.messageId === undefined && data.lastMessageId !== undefined) {
    const checked = await checkLastMessage(job, data, tools, stopping);
    if ('kind' in checked) return checked;
    data = checked;
  }
  if (data.messageId === undefined && data.unanswered !== undefined) {
    return takeUpUnanswered(job, data, data.unanswered, tools, stopping);
  }
  if (data.messageId === undefined) {
    const submitted = await submitImage(job, data, tools, stopping, callback);
    if ('kind' in submitted) return submitted;
    data = submitted;
  } else {
    const what = data.answered === undefined ? 'waiting for' : 'handing over';
    job.tell(`taken up again: ${what} message ${data.messageId}`);
  }
  if (data.answered !== undefined) return described(job, data, data.answered);
  const turns = new PollTurns(tools, callback, data.messageId ?? '');
  try {
    return await waitForMessage(job, data, data.messageId ?? '', { tools, turns, stopping, polled });
  } finally {
    turns.end();
  }
}

/**
 * Activations that ended without a word may each have lost a submit's answer. A count that is lower than the
 * stored one was set back from outside (BullMQ's "retry all"): counting starts over.
 * @param canWait whether their deliveries can be waited for, before they are counted
 */
async function countCrashes(job: ActiveJob, canWait: boolean): Promise<DescribeJobData> {
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
async function takeUpUnanswered(
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
async function awaitRescue(
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
      return { kind: 'delay', data: { ...data, polls }, ms: backoffMs(LAST_MESSAGE_TRIES, Math.random()) };
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

/** Before a failed image is paid for again: its last message may have been completed after all. */
async function checkLastMessage(
  job: ActiveJob,
  data: DescribeJobData,
  tools: ActivationTools,
  stopping: AbortSignal,
): Promise<DescribeJobData | Ending> {
  const messageId = data.lastMessageId ?? '';
  let polls = data.polls;
  const startOver = () => ({ ...data, polls, lastMessageId: undefined, attempts: 0 });
  for (let tries = 1; tries <= LAST_MESSAGE_TRIES; tries++) {
    if (!(await tools.takePollSlot(stopping))) return { kind: 'hand-back', data: { ...data, polls } };
    polls++;
    try {
      const message = await tools.client.message(messageId, { signal: stopping });
      if (message.status !== 'completed') return startOver();
      return described(job, { ...data, polls, messageId }, message.prompts);
    } catch (error) {
      if (stopping.aborted) return { kind: 'hand-back', data: { ...data, polls } };
      if (isGone(error)) return startOver();
      if (error instanceof ConnectionError) polls--;
      const verdict = judgePollFailure(error);
      if (verdict.countsAsDown) tools.health.failed('poll', job.image);
      if (verdict.action === 'stop') {
        return { kind: 'stop', data: { ...data, polls }, why: 'token', reason: verdict.reason };
      }
      await sleep(verdict.retryAfterMs ?? backoffMs(tries, Math.random()), stopping);
    }
  }
  // An API that is down says nothing about the message: it is asked again before anything is paid.
  if (tools.health.downSince !== undefined) {
    return { kind: 'delay', data: { ...data, polls }, ms: backoffMs(LAST_MESSAGE_TRIES, Math.random()) };
  }
  return startOver();
}

function isGone(error: unknown): boolean {
  return (error instanceof StatusError || error instanceof RejectedError) && error.status === 404;
}

/** The paid call. Its answer is stored before anything else happens. */
async function submitImage(
  job: ActiveJob,
  data: DescribeJobData,
  tools: ActivationTools,
  stopping: AbortSignal,
  callback: Callback | undefined,
): Promise<DescribeJobData | Ending> {
  const mayBegin = (await tools.firstPolls.made(stopping)) && (await tools.takeSubmitSlot(stopping));
  if (!mayBegin) return { kind: 'hand-back', data };
  const downMs = tools.health.submitDelayMs(job.image);
  if (downMs > 0) return { kind: 'rest', data, ms: downMs };
  const counted = { ...data, submits: data.submits + 1 };
  const startedAt = tools.now();
  let submitted: Submitted;
  try {
    const asks = callback && { ref: callback.ref, webhookOverride: callback.url };
    submitted = await tools.client.submit({ url: data.url, ...asks }, { deadlineMs: data.deadlineMs });
  } catch (error) {
    return endSubmitFailure(job, counted, error, { tools, stopping, callback });
  }
  const { messageId, completed, restMs } = submitted;
  const attempts = data.attempts + 1;
  const submittedIn = callback && job.attemptsStarted;
  const paid = { ...counted, attempts, messageId, submittedIn, waitedMs: 0, lastMessageId: undefined };
  const kept = completed === undefined ? paid : { ...paid, answered: completed.prompts };
  await job.save(kept);
  tools.health.succeeded('submit');
  await tools.submitted();
  if (completed !== undefined) tools.schedule.completed(tools.now() - startedAt, 0);
  if (restMs !== undefined) await tools.holdSubmits(restMs);
  job.tell(`submitted (attempt ${attempts} of ${paid.maxAttempts}): message ${messageId}`);
  return kept;
}

async function endSubmitFailure(
  job: ActiveJob,
  data: DescribeJobData,
  error: unknown,
  {
    tools,
    stopping,
    callback,
  }: { tools: ActivationTools; stopping: AbortSignal; callback: Callback | undefined },
): Promise<Ending> {
  const wasDown = tools.health.downSince !== undefined;
  const verdict = judgeSubmitFailure(error);
  job.tell(`submit failed: ${messageOf(error)}`);
  if (verdict.countsAsDown) tools.health.failed('submit', job.image);
  else if (isAnswer(error)) tools.health.answered('submit');
  switch (verdict.action) {
    case 'retry-free':
      // Nothing was sent, so it was no call.
      return {
        kind: 'delay',
        data: { ...data, submits: data.submits - 1 },
        ms: backoffMs(data.attempts + 1, Math.random()),
      };
    case 'wait':
      return { kind: 'hold', data, ms: await tools.refused(verdict.retryAfterMs) };
    case 'fail':
      return failed(job, { ...data, attempts: data.attempts + 1 }, verdict.code, verdict.reason);
    case 'stop':
      return { kind: 'stop', data, why: verdict.why, reason: verdict.reason };
    case 'suspect': {
      if (tools.health.quotaRefused(job.image, verdict.saysQuota)) {
        return { kind: 'stop', data, why: verdict.why, reason: verdict.reason };
      }
      // It may be about this image alone, which then must not be asked for without end.
      const tried = { ...data, attempts: data.attempts + 1 };
      if (tried.attempts >= Math.max(QUOTA_TRIES, data.maxAttempts)) {
        return failed(job, tried, 'rejected', verdict.reason);
      }
      return { kind: 'delay', data: tried, ms: QUOTA_DELAY_MS };
    }
    case 'retry': {
      // While the account is down its probes use no attempts up; what may have been paid is counted all the same.
      const attempts = wasDown && verdict.countsAsDown ? data.attempts : data.attempts + 1;
      let tried: DescribeJobData = { ...data, attempts };
      if (verdict.maybePaid) {
        // An API that is down has hardly taken what it answers with a 5xx: probes are not to wait for that.
        const canWait = callback !== undefined && !(wasDown && error instanceof StatusError);
        const lost = { ...tried, unanswered: [job.attemptsStarted] };
        const ended = canWait
          ? await awaitRescue(job, lost, [callback], tools, stopping)
          : { ...tried, maybePaid: tried.maybePaid + 1 };
        if ('kind' in ended) return ended;
        tried = ended;
      }
      if (attempts >= data.maxAttempts) return failed(job, tried, verdict.code, verdict.reason);
      const ms = Math.max(verdict.retryAfterMs ?? 0, backoffMs(attempts, Math.random()));
      return { kind: 'delay', data: tried, ms };
    }
  }
}

interface Waiting {
  readonly tools: ActivationTools;
  readonly turns: PollTurns;
  readonly stopping: AbortSignal;
  /**
   * Of a message that an earlier activation submitted: to be called after the first poll, which is made at once,
   * since nobody knows how long ago that was.
   */
  readonly polled: (() => void) | undefined;
}

/** Polls until the message is completed, has expired, or the deadline is over. */
async function waitForMessage(
  job: ActiveJob,
  start: DescribeJobData,
  messageId: string,
  { tools, turns, stopping, polled }: Waiting,
): Promise<Ending> {
  const startedAt = tools.now();
  const before = start.waitedMs ?? 0;
  const waited = () => before + tools.now() - startedAt;
  let { polls } = start;
  let failures = 0;
  let lastPollAt = before;
  let isOverdue = polled !== undefined;
  const current = (): DescribeJobData => ({ ...start, polls, waitedMs: Math.round(waited()) });

  for (;;) {
    const leftMs = start.deadlineMs - waited();
    const dueMs = isOverdue ? 0 : turns.dueMs(waited(), failures);
    isOverdue = false;
    const delayMs = Math.min(dueMs, Math.max(0, leftMs));
    const isLast = leftMs <= 0;
    if (!(await turns.come(delayMs, stopping)) || !(await tools.takePollSlot(stopping))) {
      return { kind: 'hand-back', data: current() };
    }
    const gapMs = waited() - lastPollAt;
    lastPollAt = waited();
    polls++;
    try {
      const message = await tools.client.message(messageId, { signal: stopping });
      failures = 0;
      tools.health.succeeded('poll');
      if (message.status === 'completed') {
        // After a crash the time between the activations is not known.
        turns.completed(waited(), gapMs, polled === undefined);
        return described(job, current(), message.prompts);
      }
      if (message.status === 'incomplete') return endIncomplete(job, current(), message.reason);
      job.report(message.progress);
    } catch (error) {
      if (stopping.aborted) return { kind: 'hand-back', data: current() };
      const verdict = judgePollFailure(error);
      if (verdict.action === 'stop') {
        return { kind: 'stop', data: current(), why: 'token', reason: verdict.reason };
      }
      failures++;
      job.tell(`poll failed: ${messageOf(error)}`);
      if (verdict.countsAsDown) tools.health.failed('poll', job.image);
      else if (isAnswer(error)) tools.health.answered('poll');
      if (error instanceof ConnectionError) polls--;
      // Not past the deadline, at which the message is to be asked for once more.
      const { retryAfterMs } = verdict;
      const toDeadlineMs = Math.max(0, start.deadlineMs - waited());
      if (retryAfterMs !== undefined) await tools.holdPolls(Math.min(retryAfterMs, toDeadlineMs));
    }
    polled?.();
    if (isLast) {
      const seconds = Math.round(start.deadlineMs / 1000);
      return failed(job, current(), 'deadline', `message ${messageId} was not completed within ${seconds} s`);
    }
  }
}

/** Expired or failed, the submit is used up: no service says which of its failures a new one would not meet. */
function endIncomplete(job: ActiveJob, data: DescribeJobData, why: string | undefined): Ending {
  const how = why === undefined ? 'expired before it was completed' : `failed: ${why}`;
  const reason = `message ${data.messageId ?? ''} ${how}`;
  if (data.attempts >= data.maxAttempts) return failed(job, data, 'incomplete', reason);
  job.tell(`${reason}: submitting again`);
  return { kind: 'delay', data: { ...data, messageId: undefined, waitedMs: undefined }, ms: 0 };
}

function described(job: ActiveJob, data: DescribeJobData, prompts: Prompts): Ending {
  job.report(100);
  job.tell(`completed after ${data.polls} poll(s)`);
  return endWith(job, data, {
    status: 'described',
    prompts,
    messageId: data.messageId ?? '',
    describedAt: new Date().toISOString(),
  });
}

function failed(job: ActiveJob, data: DescribeJobData, code: ErrorCode, reason: string): Ending {
  job.tell(`failed (${code}): ${reason}`);
  const messageId = data.messageId ?? data.lastMessageId;
  const { attempts } = data;
  return endWith(job, data, { status: 'failed', code, reason, attempts, messageId });
}

function endWith(job: ActiveJob, data: DescribeJobData, outcome: Outcome): Ending {
  const { submits, polls, maybePaid, rescued } = data;
  return {
    kind: 'outcome',
    result: { image: job.image, outcome, submits, polls, maybePaid, rescued },
    data: {
      ...data,
      submittedIn: undefined,
      unanswered: undefined,
      messageId: undefined,
      answered: undefined,
      waitedMs: undefined,
      lastMessageId: data.messageId ?? data.lastMessageId,
      attempts: 0,
    },
  };
}
