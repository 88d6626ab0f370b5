import { type SubmitVerdict, judgeSubmitFailure } from '../describe-api/attempt-policy.js';
import { backoffMs } from '../describe-api/backoff.js';
import type { Submitted } from '../describe-api/client.js';
import { StatusError, isAnswer } from '../describe-api/errors.js';
import { messageOf } from '../shared/errors.js';
import type { DescribeJobData } from '../shared/jobs.js';
import type { ActivationTools, ActiveJob } from './activation-tools.js';
import { type Ending, failed } from './ending.js';
import { awaitRescue } from './recovery.js';
import type { Callback } from './webhooks.js';

const QUOTA_DELAY_MS = 5000;
const QUOTA_TRIES = 3;

type VerdictOf<Action extends SubmitVerdict['action']> = Extract<SubmitVerdict, { action: Action }>;

interface SubmitContext {
  readonly tools: ActivationTools;
  readonly stopping: AbortSignal;
  readonly callback: Callback | undefined;
}

/** The run's coordinator promotes the job when it comes back; looked at again each time, it would spend permits. */
const SET_ASIDE_MS = 15 * 60_000;

/** Puts an image off whose run nobody runs: it is paid for when the run goes on. */
export async function setAside(
  job: ActiveJob,
  data: DescribeJobData,
  tools: Pick<ActivationTools, 'setAside'>,
): Promise<Ending> {
  await tools.setAside(data.run, job.image);
  job.tell('nobody runs its run: it waits until a server or the next start of the run takes it up');
  return { kind: 'delay', data, ms: SET_ASIDE_MS };
}

/** The paid call. Its answer is stored before anything else happens. */
export async function submitImage(
  job: ActiveJob,
  data: DescribeJobData,
  tools: ActivationTools,
  stopping: AbortSignal,
  callback: Callback | undefined,
): Promise<DescribeJobData | Ending> {
  const mayBegin = await tools.firstPolls.made(stopping);
  if (!mayBegin || !(await tools.takeSubmitPermit(stopping))) return { kind: 'hand-back', data };
  // The coordinator may have died while the image waited for its permit.
  if (!(await tools.mayPay(data.run))) return setAside(job, data, tools);
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
  { tools, stopping, callback }: SubmitContext,
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
    case 'rateLimited':
      return { kind: 'hold', data, ms: await tools.refused(verdict.retryAfterMs) };
    case 'fail':
      return failed(job, { ...data, attempts: data.attempts + 1 }, verdict.code, verdict.reason);
    case 'stop':
      return { kind: 'stop', data, why: verdict.why, reason: verdict.reason };
    case 'suspect':
      return suspectQuota(job, data, verdict, tools);
    case 'retry':
      return retryLater(job, data, error, verdict, { tools, stopping, callback, wasDown });
  }
}

/** A refusal that may be about the account, or about this image alone, which then must not be asked for without end. */
function suspectQuota(
  job: ActiveJob,
  data: DescribeJobData,
  verdict: VerdictOf<'suspect'>,
  tools: ActivationTools,
): Ending {
  if (tools.health.quotaRefused(job.image, verdict.saysQuota)) {
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
  { tools, stopping, callback, wasDown }: SubmitContext & { wasDown: boolean },
): Promise<Ending> {
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
