import { backoffMs, judgeSubmitFailure, type SubmitVerdict } from '../describe-api/attempt-policy.js';
import {
  ConnectionError,
  isAnswer,
  isUnreachable,
  RejectedError,
  StatusError,
  UnreadableAnswerError,
  type Usage,
} from '../describe-api/errors.js';
import { SET_UP_ADVICE } from '../describe-api/refusals.js';
import { messageOf } from '../shared/errors.js';
import type { DescribeJobData } from '../shared/jobs.js';
import { processingWindow } from '../shared/limits.js';
import { holdQueue } from '../shared/queue/limiter.js';
import { retryUntilUp } from '../shared/queue/outage.js';
import {
  type Processing,
  type ProcessingDeps,
  type ProcessingOutcome,
  release,
  publishFailed,
} from './processing.js';
import { awaitRecovery } from './recovery.js';

type VerdictOf<Action extends SubmitVerdict['action']> = Extract<SubmitVerdict, { action: Action }>;

/** What follows for the image when its submit has failed, and what the worker learns from that. */
export async function endSubmitFailure(
  processing: Processing,
  submitted: DescribeJobData,
  error: unknown,
): Promise<ProcessingOutcome> {
  const { job, deps } = processing;
  const isPaid = error instanceof UnreadableAnswerError || error instanceof RejectedError;
  const data = await withUsage(deps, submitted, isPaid ? error.usage : undefined);
  const wasDown = deps.health.downSince !== undefined;
  const verdict = judgeSubmitFailure(error);
  job.log(`submit failed: ${messageOf(error)}`);
  if (verdict.countsAsDown) deps.health.failed('submit', job.image, verdict.reason, isUnreachable(error));
  else if (isAnswer(error)) deps.health.answered('submit');
  switch (verdict.action) {
    case 'retry-free': {
      // What was not sent does not count as a call.
      const isUnsent = error instanceof ConnectionError;
      const submits = isUnsent ? data.submits - 1 : data.submits;
      if (isUnsent) await deps.spending.giveCallBack(data.run);
      const ms = verdict.isOther === true ? 0 : backoffMs(data.attempts + 1, Math.random());
      return { kind: 'delay', data: { ...data, submits }, ms };
    }
    case 'rateLimited': {
      const { retryAfterMs } = verdict;
      const ms = await retryUntilUp(deps.connection, () => deps.limits.rateLimited(retryAfterMs));
      await holdSubmits(ms, deps);
      return { kind: 'rateLimited', data, ms };
    }
    case 'fail':
      return endRefused(processing, data, verdict);
    case 'stop': {
      const lost = verdict.isPaid === true ? 1 : 0;
      return release(processing, { ...data, maybePaid: data.maybePaid + lost }, verdict);
    }
    case 'suspect':
      return endSuspect(processing, data, verdict);
    case 'retry':
      return retryLater(processing, data, error, verdict, wasDown);
  }
}

/** No submits of the account for a while. A wait that is shorter than BullMQ's window would end it before its time. */
export async function holdSubmits(ms: number, deps: ProcessingDeps): Promise<void> {
  const { connection, queue, limits, submitLimiter } = deps;
  const { duration } = processingWindow(limits.currentRate(), submitLimiter.waiting);
  await retryUntilUp(connection, () => holdQueue(queue, connection.store, Math.max(ms, duration)));
}

const SUSPECT_DELAY_MS = 5000;
const SUSPECT_TRIES = 3;

/** A refusal that may be the same for every image, or about this image alone, which then must not be asked for without end. */
async function endSuspect(
  processing: Processing,
  data: DescribeJobData,
  verdict: VerdictOf<'suspect'>,
): Promise<ProcessingOutcome> {
  const { job, deps } = processing;
  if (deps.health.suspected(job.image, verdict.isSaid)) return release(processing, data, verdict);
  const tried = { ...data, attempts: data.attempts + 1 };
  if (tried.attempts < Math.max(SUSPECT_TRIES, data.maxAttempts))
    return { kind: 'delay', data: tried, ms: SUSPECT_DELAY_MS };
  // Nobody has said that it is this image: a later run tries it again.
  return publishFailed(processing, tried, { code: 'http', reason: verdict.reason });
}

const FIRST_SUCCESS_MS = 3000;

/**
 * An image that is refused. As long as the account has never described any, that may be the set-up: then it waits for what
 * becomes of the others, and ends here when one goes through, or when nothing else has come of some tries.
 */
async function endRefused(
  processing: Processing,
  data: DescribeJobData,
  verdict: VerdictOf<'fail'>,
): Promise<ProcessingOutcome> {
  const { job, deps, stopping } = processing;
  const { health } = deps;
  const tried = { ...data, attempts: data.attempts + 1 };
  if (verdict.mayBeSetUp && !hasDescribed(deps)) {
    if (health.refused(job.image, verdict.reason)) {
      const reason = `${SET_UP_ADVICE.request}: ${verdict.reason}`;
      return release(processing, data, { why: 'set-up', reason });
    }
    const hasWorked = await health.waitUntilWorked(FIRST_SUCCESS_MS, stopping);
    if (stopping.aborted) return release(processing, data);
    if (!hasWorked && tried.attempts < SUSPECT_TRIES)
      return { kind: 'delay', data: tried, ms: SUSPECT_DELAY_MS };
  }
  return publishFailed(processing, tried, verdict);
}

function hasDescribed({ health, schedule }: ProcessingDeps): boolean {
  return health.hasWorked || schedule.slowMs !== undefined;
}

/** Adds what an answer has cost, where the API says that. */
export async function withUsage(
  { metrics, spending }: ProcessingDeps,
  data: DescribeJobData,
  usage: Usage | undefined,
): Promise<DescribeJobData> {
  if (usage === undefined) return data;
  metrics.used(usage);
  await spending.add(data.run, usage);
  const { inputTokens = 0, outputTokens = 0 } = data;
  return {
    ...data,
    inputTokens: inputTokens + usage.inputTokens,
    outputTokens: outputTokens + usage.outputTokens,
  };
}

/** @param wasDown whether the API was down when it was submitted: then it was a probe */
async function retryLater(
  processing: Processing,
  data: DescribeJobData,
  error: unknown,
  verdict: VerdictOf<'retry'>,
  wasDown: boolean,
): Promise<ProcessingOutcome> {
  const { job, deps, callback } = processing;
  // While the account is down its probes use no attempts up; what may have been paid is counted all the same.
  const attempts = wasDown && verdict.countsAsDown ? data.attempts : data.attempts + 1;
  let tried: DescribeJobData = { ...data, attempts, wrong: verdict.wrong ?? data.wrong };
  if (verdict.maybePaid) {
    // An API that is down has hardly taken what it answers with a 5xx: probes are not to wait for that.
    const canWait = callback !== undefined && !(wasDown && error instanceof StatusError);
    const unconfirmed = { ...tried, unanswered: [job.attemptsStarted] };
    const ended = await awaitRecovery(processing, unconfirmed, canWait ? [callback] : []);
    if ('kind' in ended) return ended;
    tried = ended;
  }
  if (verdict.code === 'bad-response' && !hasDescribed(deps) && deps.health.unreadable(job.image)) {
    const refusal = { why: 'set-up', reason: `${SET_UP_ADVICE.unreadable}: ${verdict.reason}` } as const;
    if (verdict.answer === undefined) return release(processing, tried, refusal);
    // The answer is paid for: it is kept with the failure, which the next run takes up again.
    await deps.intake.takeNoMore(refusal.why, refusal.reason);
    return publishFailed(processing, tried, verdict);
  }
  // What a model was told to do otherwise, once, it does no better the next time.
  const isHopeless =
    verdict.wrong === undefined ? attempts >= (verdict.mostAttempts ?? Infinity) : data.wrong !== undefined;
  if (isHopeless || attempts >= data.maxAttempts) return publishFailed(processing, tried, verdict);
  // The last answer of an image is counted as its result is published.
  if (verdict.answer !== undefined) await deps.spending.add(data.run, { unusable: 1 });
  const ms = Math.max(verdict.retryAfterMs ?? 0, backoffMs(attempts, Math.random()));
  return { kind: 'delay', data: tried, ms };
}
