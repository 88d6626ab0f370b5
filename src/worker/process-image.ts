import {
  type ActiveJob,
  type ProcessingDeps,
  type ProcessingOutcome,
  described,
  failed,
} from './processing.js';
import { MessagePolls } from './poll-schedule.js';
import { awaitRecovery, countCrashes, seedOf, recoverUnconfirmed } from './recovery.js';
import type { Callback } from './webhooks.js';
import { judgePollFailure, judgeSubmitFailure, type SubmitVerdict } from '../describe-api/attempt-policy.js';
import { backoffMs } from '../describe-api/attempt-policy.js';
import type { Submitted } from '../describe-api/client.js';
import { ConnectionError, isAnswer, RejectedError, StatusError } from '../describe-api/errors.js';
import { messageOf } from '../shared/errors.js';
import type { DescribeJobData } from '../shared/jobs.js';
import { sleep } from '../shared/waiting.js';

/**
 * Processes a describe job once: from where its data says it is to an outcome.
 *
 *   no message --submit--> waiting for a message --poll--> completed: an outcome
 *       ^          |             |                             ^
 *       |          |             +--- expired or failed: a new submit
 *       |          +--- described at once: nothing is polled --+
 *       +---------------------------------------------------- (the new submit)
 *
 * With webhooks a submit whose answer was lost waits for its delivery before there is a new one: see recovery.ts.
 *
 * What a submit was paid for is saved before anything else is done: a job that has a messageId never submits, and
 * one that has the prompts as well publishes them.
 * Between two submits the processing ends ("delay"), so that every submit has passed the queue's rate limit.
 * @param stopping aborts when the worker is to release its images; a submit on the wire is still awaited
 */
export async function processImage(
  job: ActiveJob,
  deps: ProcessingDeps,
  stopping: AbortSignal,
): Promise<ProcessingOutcome> {
  // Before anything is awaited: an image that is activated after this one has to see it.
  const polled = job.data.messageId === undefined ? undefined : deps.firstPolls.expect();
  const submittedIn = job.data.messageId === undefined ? undefined : job.data.submittedIn;
  // Before anything is submitted, since a delivery can be faster than the submit's answer.
  const callback = deps.webhooks?.callback(seedOf(job, submittedIn ?? job.attemptsStarted));
  try {
    return await takeOnwards(job, deps, stopping, polled, callback);
  } finally {
    polled?.();
    callback?.watch.end();
  }
}

async function takeOnwards(
  job: ActiveJob,
  deps: ProcessingDeps,
  stopping: AbortSignal,
  polled: (() => void) | undefined,
  callback: Callback | undefined,
): Promise<ProcessingOutcome> {
  let data = await countCrashes(job, deps.webhooks !== undefined);
  const isPaid = data.messageId !== undefined || data.unanswered !== undefined;
  if (!isPaid && !(await deps.mayPay(data.run))) return setAside(job, data, deps);
  if (data.messageId === undefined && data.lastMessageId !== undefined) {
    const checked = await checkLastMessage(job, data, deps, stopping);
    if ('kind' in checked) return checked;
    data = checked;
  }
  if (data.messageId === undefined && data.unanswered !== undefined) {
    return recoverUnconfirmed(job, data, data.unanswered, deps, stopping);
  }
  if (data.messageId === undefined) {
    const submitted = await submitImage(job, data, deps, stopping, callback);
    if ('kind' in submitted) return submitted;
    data = submitted;
  } else {
    const what = data.answered === undefined ? 'waiting for' : 'handing over';
    job.log(`taken up again: ${what} message ${data.messageId}`);
  }
  if (data.answered !== undefined) return described(job, data, data.answered);
  const turns = new MessagePolls(deps, callback, data.messageId ?? '');
  try {
    return await waitForMessage(job, data, data.messageId ?? '', { deps, turns, stopping, polled });
  } finally {
    turns.end();
  }
}

const QUOTA_DELAY_MS = 5000;
const QUOTA_TRIES = 3;

type VerdictOf<Action extends SubmitVerdict['action']> = Extract<SubmitVerdict, { action: Action }>;

interface SubmitContext {
  readonly deps: ProcessingDeps;
  readonly stopping: AbortSignal;
  readonly callback: Callback | undefined;
}

/** The run's coordinator promotes the job when it comes back; looked at again each time, it would spend permits. */
const SET_ASIDE_MS = 15 * 60_000;

/** Puts an image off whose run nobody runs: it is paid for when the run goes on. */
async function setAside(
  job: ActiveJob,
  data: DescribeJobData,
  deps: Pick<ProcessingDeps, 'setAside'>,
): Promise<ProcessingOutcome> {
  await deps.setAside(data.run, job.image);
  job.log('nobody runs its run: it waits until a server or the next start of the run takes it up');
  return { kind: 'delay', data, ms: SET_ASIDE_MS };
}

/** The paid call. Its answer is stored before anything else happens. */
export async function submitImage(
  job: ActiveJob,
  data: DescribeJobData,
  deps: ProcessingDeps,
  stopping: AbortSignal,
  callback: Callback | undefined,
): Promise<DescribeJobData | ProcessingOutcome> {
  const mayBegin = await deps.firstPolls.made(stopping);
  if (!mayBegin || !(await deps.takeSubmitPermit(stopping))) return { kind: 'release', data };
  // The coordinator may have died while the image waited for its permit.
  if (!(await deps.mayPay(data.run))) return setAside(job, data, deps);
  const downMs = deps.health.submitDelayMs(job.image);
  if (downMs > 0) return { kind: 'rest', data, ms: downMs };
  const counted = { ...data, submits: data.submits + 1 };
  const startedAt = deps.now();
  let submitted: Submitted;
  try {
    const asks = callback && { ref: callback.ref, webhookOverride: callback.url };
    submitted = await deps.client.submit({ url: data.url, ...asks }, { deadlineMs: data.deadlineMs });
  } catch (error) {
    return endSubmitFailure(job, counted, error, { deps, stopping, callback });
  }
  const { messageId, completed, restMs } = submitted;
  const attempts = data.attempts + 1;
  const submittedIn = callback && job.attemptsStarted;
  const paid = { ...counted, attempts, messageId, submittedIn, waitedMs: 0, lastMessageId: undefined };
  const kept = completed === undefined ? paid : { ...paid, answered: completed.prompts };
  await job.save(kept);
  deps.health.succeeded('submit');
  await deps.submitted();
  if (completed !== undefined) deps.schedule.completed(deps.now() - startedAt, 0);
  if (restMs !== undefined) await deps.holdSubmits(restMs);
  job.log(`submitted (attempt ${attempts} of ${paid.maxAttempts}): message ${messageId}`);
  return kept;
}

async function endSubmitFailure(
  job: ActiveJob,
  data: DescribeJobData,
  error: unknown,
  { deps, stopping, callback }: SubmitContext,
): Promise<ProcessingOutcome> {
  const wasDown = deps.health.downSince !== undefined;
  const verdict = judgeSubmitFailure(error);
  job.log(`submit failed: ${messageOf(error)}`);
  if (verdict.countsAsDown) deps.health.failed('submit', job.image);
  else if (isAnswer(error)) deps.health.answered('submit');
  switch (verdict.action) {
    case 'retry-free':
      // Nothing was sent, so it was no call.
      return {
        kind: 'delay',
        data: { ...data, submits: data.submits - 1 },
        ms: backoffMs(data.attempts + 1, Math.random()),
      };
    case 'rateLimited':
      return { kind: 'rate-limited', data, ms: await deps.refused(verdict.retryAfterMs) };
    case 'fail':
      return failed(job, { ...data, attempts: data.attempts + 1 }, verdict.code, verdict.reason);
    case 'stop':
      return { kind: 'stop', data, why: verdict.why, reason: verdict.reason };
    case 'suspect':
      return suspectQuota(job, data, verdict, deps);
    case 'retry':
      return retryLater(job, data, error, verdict, { deps, stopping, callback, wasDown });
  }
}

/** A refusal that may be about the account, or about this image alone, which then must not be asked for without end. */
function suspectQuota(
  job: ActiveJob,
  data: DescribeJobData,
  verdict: VerdictOf<'suspect'>,
  deps: ProcessingDeps,
): ProcessingOutcome {
  if (deps.health.quotaRefused(job.image, verdict.saysQuota)) {
    return { kind: 'stop', data, why: verdict.why, reason: verdict.reason };
  }
  const tried = { ...data, attempts: data.attempts + 1 };
  if (tried.attempts >= Math.max(QUOTA_TRIES, data.maxAttempts)) {
    return failed(job, tried, 'rejected', verdict.reason);
  }
  return { kind: 'delay', data: tried, ms: QUOTA_DELAY_MS };
}

async function retryLater(
  job: ActiveJob,
  data: DescribeJobData,
  error: unknown,
  verdict: VerdictOf<'retry'>,
  { deps, stopping, callback, wasDown }: SubmitContext & { wasDown: boolean },
): Promise<ProcessingOutcome> {
  // While the account is down its probes use no attempts up; what may have been paid is counted all the same.
  const attempts = wasDown && verdict.countsAsDown ? data.attempts : data.attempts + 1;
  let tried: DescribeJobData = { ...data, attempts };
  if (verdict.maybePaid) {
    // An API that is down has hardly taken what it answers with a 5xx: probes are not to wait for that.
    const canWait = callback !== undefined && !(wasDown && error instanceof StatusError);
    const lost = { ...tried, unanswered: [job.attemptsStarted] };
    const ended = canWait
      ? await awaitRecovery(job, lost, [callback], deps, stopping)
      : { ...tried, maybePaid: tried.maybePaid + 1 };
    if ('kind' in ended) return ended;
    tried = ended;
  }
  if (attempts >= data.maxAttempts) return failed(job, tried, verdict.code, verdict.reason);
  const ms = Math.max(verdict.retryAfterMs ?? 0, backoffMs(attempts, Math.random()));
  return { kind: 'delay', data: tried, ms };
}

const TRIES = 5;

/** Before a failed image is paid for again: its last message may have been completed after all. */
export async function checkLastMessage(
  job: ActiveJob,
  data: DescribeJobData,
  deps: ProcessingDeps,
  stopping: AbortSignal,
): Promise<DescribeJobData | ProcessingOutcome> {
  const messageId = data.lastMessageId ?? '';
  let polls = data.polls;
  const startOver = () => ({ ...data, polls, lastMessageId: undefined, attempts: 0 });
  for (let tries = 1; tries <= TRIES; tries++) {
    if (!(await deps.takePollPermit(stopping))) return { kind: 'release', data: { ...data, polls } };
    polls++;
    try {
      const message = await deps.client.message(messageId, { signal: stopping });
      if (message.status !== 'completed') return startOver();
      return described(job, { ...data, polls, messageId }, message.prompts);
    } catch (error) {
      if (stopping.aborted) return { kind: 'release', data: { ...data, polls } };
      if (isGone(error)) return startOver();
      if (error instanceof ConnectionError) polls--;
      const verdict = judgePollFailure(error);
      if (verdict.countsAsDown) deps.health.failed('poll', job.image);
      if (verdict.action === 'stop') {
        return { kind: 'stop', data: { ...data, polls }, why: 'token', reason: verdict.reason };
      }
      await sleep(verdict.retryAfterMs ?? backoffMs(tries, Math.random()), stopping);
    }
  }
  // An API that is down says nothing about the message: it is asked again before anything is paid.
  if (deps.health.downSince !== undefined) {
    return { kind: 'delay', data: { ...data, polls }, ms: backoffMs(TRIES, Math.random()) };
  }
  return startOver();
}

function isGone(error: unknown): boolean {
  return (error instanceof StatusError || error instanceof RejectedError) && error.status === 404;
}

interface Waiting {
  readonly deps: ProcessingDeps;
  readonly turns: MessagePolls;
  readonly stopping: AbortSignal;
  /**
   * Of a message that an earlier activation submitted: to be called after the first poll, which is made at once,
   * since nobody knows how long ago that was.
   */
  readonly polled: (() => void) | undefined;
}

/** Polls until the message is completed, has expired, or the deadline is over. */
export async function waitForMessage(
  job: ActiveJob,
  start: DescribeJobData,
  messageId: string,
  { deps, turns, stopping, polled }: Waiting,
): Promise<ProcessingOutcome> {
  const startedAt = deps.now();
  const before = start.waitedMs ?? 0;
  const waited = () => before + deps.now() - startedAt;
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
    if (!(await turns.come(delayMs, stopping)) || !(await deps.takePollPermit(stopping))) {
      return { kind: 'release', data: current() };
    }
    const gapMs = waited() - lastPollAt;
    lastPollAt = waited();
    polls++;
    try {
      const message = await deps.client.message(messageId, { signal: stopping });
      failures = 0;
      deps.health.succeeded('poll');
      if (message.status === 'completed') {
        // After a crash the time between the activations is not known.
        turns.completed(waited(), gapMs, polled === undefined);
        return described(job, current(), message.prompts);
      }
      if (message.status === 'incomplete') return endIncomplete(job, current(), message.reason);
      job.report(message.progress);
    } catch (error) {
      if (stopping.aborted) return { kind: 'release', data: current() };
      const verdict = judgePollFailure(error);
      if (verdict.action === 'stop') {
        return { kind: 'stop', data: current(), why: 'token', reason: verdict.reason };
      }
      failures++;
      job.log(`poll failed: ${messageOf(error)}`);
      if (verdict.countsAsDown) deps.health.failed('poll', job.image);
      else if (isAnswer(error)) deps.health.answered('poll');
      if (error instanceof ConnectionError) polls--;
      // Not past the deadline, at which the message is to be asked for once more.
      const { retryAfterMs } = verdict;
      const toDeadlineMs = Math.max(0, start.deadlineMs - waited());
      if (retryAfterMs !== undefined) await deps.holdPolls(Math.min(retryAfterMs, toDeadlineMs));
    }
    polled?.();
    if (isLast) {
      const seconds = Math.round(start.deadlineMs / 1000);
      return failed(job, current(), 'deadline', `message ${messageId} was not completed within ${seconds} s`);
    }
  }
}

/** Expired or failed, the submit is used up: no service says which of its failures a new one would not meet. */
function endIncomplete(job: ActiveJob, data: DescribeJobData, why: string | undefined): ProcessingOutcome {
  const how = why === undefined ? 'expired before it was completed' : `failed: ${why}`;
  const reason = `message ${data.messageId ?? ''} ${how}`;
  if (data.attempts >= data.maxAttempts) return failed(job, data, 'incomplete', reason);
  job.log(`${reason}: submitting again`);
  return { kind: 'delay', data: { ...data, messageId: undefined, waitedMs: undefined }, ms: 0 };
}
